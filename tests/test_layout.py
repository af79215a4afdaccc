"""What keeps the packaging honest: the list of packages, the three links, the public names.

The package is mapped together from four folders (see setup.cfg), and a folder that is missing from
the list is missing from the wheel without a word. These tests say the word.
"""

import ast
import configparser
import subprocess
import sys
import types
from pathlib import Path

import pytest

import queue_core

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("transports", "mailbox", "worker")
DRIVERS = ("pika", "redis", "sqlalchemy", "psycopg", "pymysql")
# Each would cost every program milliseconds at its start; see docs/design/import-time.md.
HEAVY = (
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "difflib",
    "email",
    "http",
    "importlib.metadata",
    "multiprocessing",
    "pickle",
    "random",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
)


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def packages_of_folders() -> set[str]:
    found = set()
    for folder, name in [("queue_core", "queue_core"), *((f, f"queue_core.{f}") for f in LINKED)]:
        for marker in (ROOT / folder).rglob("__init__.py"):
            parts = marker.parent.relative_to(ROOT / folder).parts
            if not (folder == "queue_core" and parts and parts[0] in LINKED):
                found.add(".".join((name, *parts)))
    return found


def module_names(package: Path) -> set[str]:
    """The names of the modules and folders directly in a package's folder."""
    folders = {p.parent.name for p in package.glob("*/__init__.py")}
    return folders | {p.stem for p in package.glob("*.py") if p.stem != "__init__"}


def run(code: str) -> str:
    """The output of ``code`` in a fresh interpreter that does not see the checkout's root."""
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_list_of_packages_is_the_list_of_folders(
    settings: configparser.ConfigParser,
) -> None:
    listed = lines(settings["options"]["packages"])
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_of_folders()


def test_every_folder_with_python_files_is_a_package() -> None:
    for folder in ("queue_core", *LINKED):
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), f"{file.parent} has no __init__.py"


@pytest.mark.parametrize("name", LINKED)
def test_links_lead_to_the_folders_at_the_root(name: str) -> None:
    link = ROOT / "queue_core" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert link.resolve(strict=True) == ROOT / name


def test_mapping_names_the_linked_folders(settings: configparser.ConfigParser) -> None:
    mapping = dict(
        [part.strip() for part in line.split("=")]
        for line in lines(settings["options"]["package_dir"])
    )
    expected = {"queue_core": "queue_core", **{f"queue_core.{name}": name for name in LINKED}}
    assert mapping == expected


def test_all_names_exactly_the_public_names() -> None:
    submodules = module_names(ROOT / "queue_core") | set(LINKED)
    public = {
        name
        for name, value in vars(queue_core).items()
        if not name.startswith("_")
        and name != "annotations"  # of __future__
        and not (isinstance(value, types.ModuleType) and name in submodules)
    }
    assert public, "the facade exports nothing"
    assert sorted(queue_core.__all__) == sorted(
        public | ({"__version__"} & set(queue_core.__all__))
    )
    assert len(queue_core.__all__) == len(set(queue_core.__all__))


@pytest.mark.parametrize(
    "package", ["mailbox", "worker", "queue_core/emulation", "transports/amqp", "transports/redis"]
)
def test_a_packages_docstring_says_where_each_of_its_modules_belongs(package: str) -> None:
    folder = ROOT / package
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    assert [name for name in sorted(module_names(folder)) if f"``{name}``" not in text] == []


def test_package_is_marked_as_typed() -> None:
    assert (ROOT / "queue_core" / "py.typed").is_file()


@pytest.mark.parametrize("layer", ["mailbox", "worker"])
def test_contracts_of_the_upper_layers_forbid_every_inner_module(
    settings: configparser.ConfigParser, layer: str
) -> None:
    forbidden = set(lines(settings[f"importlinter:contract:{layer}"]["forbidden_modules"]))
    inner = module_names(ROOT / "queue_core") - {"mailbox", "worker"} | {"transports"}
    assert {f"queue_core.{name}" for name in inner} <= forbidden


def test_drivers_are_confined_in_every_module_but_their_transports(
    settings: configparser.ConfigParser,
) -> None:
    confined = set(lines(settings["importlinter:contract:drivers"]["source_modules"]))
    inner = module_names(ROOT / "queue_core") - {"testing", "transports"} | {"mailbox", "worker"}
    assert {f"queue_core.{name}" for name in inner} <= confined


def test_importing_the_package_loads_no_driver_and_nothing_heavy() -> None:
    unwanted = (*DRIVERS, *HEAVY)
    loaded = run(f"import sys, queue_core; print([d for d in {unwanted!r} if d in sys.modules])")
    assert loaded.strip() == "[]"


def test_a_remote_command_loads_nothing_that_tasks_are_made_with() -> None:
    code = "import sys, queue_core.worker.cli.remote; print('queue_core.worker.app' in sys.modules)"
    assert run(code).strip() == "False"


def test_every_public_name_of_the_worker_can_be_loaded() -> None:
    code = "import queue_core.worker as w; print(all(getattr(w, name) for name in w.__all__))"
    assert run(code).strip() == "True"


def test_the_standard_librarys_mailbox_is_not_shadowed() -> None:
    assert "maildir" in run("import mailbox; print([n.lower() for n in dir(mailbox)])")
