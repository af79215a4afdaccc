"""Proves that an installed wheel is whole. Run by `dev.py test` with a fresh interpreter.

``smoke.py CHECKOUT``: every module of the checkout is in the wheel and imports, with no more than
the declared dependencies; `py.typed` and the metadata are there; nothing comes from the checkout;
who asks for a database without its driver is told which extra to install.
"""

import importlib
import sys
from importlib import metadata, resources
from pathlib import Path

FOLDERS = {
    "queue_core": "queue_core",
    "transports": "queue_core.transports",
    "mailbox": "queue_core.mailbox",
    "worker": "queue_core.worker",
}
# What needs an extra (pytest and hypothesis, a driver), which is not installed here.
NEEDS_EXTRA = (
    "queue_core.testing",
    "queue_core.transports.sql.mariadb",
    "queue_core.transports.sql.postgresql",
)
EXTRAS = {"postgresql": "postgres", "mysql": "mysql"}  # by the scheme of the url


def modules(checkout: Path) -> list[str]:
    """The import names of every source file, whatever the packaging says."""
    names = []
    for folder, package in FOLDERS.items():
        for path in sorted((checkout / folder).rglob("*.py")):
            parts = path.relative_to(checkout / folder).with_suffix("").parts
            if any((checkout / folder / parts[0]).is_symlink() for _ in parts[:1]):
                continue
            if parts[-1] == "__init__":
                parts = parts[:-1]
            names.append(".".join((package, *parts)))
    return names


def _file_only(name: str) -> str | None:
    """The installed file of a module, without importing it."""
    package = resources.files("queue_core")
    stem = package.joinpath(*name.split(".")[1:])
    for candidate in (stem.joinpath("__init__.py"), Path(f"{stem}.py")):
        if candidate.is_file():
            return str(candidate)
    return None


def _hint(scheme: str) -> str:
    """What is said to who uses a broker without its driver."""
    queue_core = importlib.import_module("queue_core")
    try:
        queue_core.Connection(f"{scheme}://127.0.0.1/nowhere").connect()
    except queue_core.ConfigError as error:
        return str(error)
    return "nothing"


def main(checkout: Path) -> int:
    """Check the installed package against the checkout; 0 if it is whole."""
    problems = []
    names = modules(checkout)
    for name in names:
        if name.endswith(".__main__"):  # importing it would run it
            continue
        try:
            if name.startswith(NEEDS_EXTRA):
                file = _file_only(name)
            else:
                file = importlib.import_module(name).__file__
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if file is None:
            problems.append(f"{name} is not in the wheel")
        elif Path(file).resolve().is_relative_to(checkout.resolve()):
            problems.append(f"{name} came from the checkout: {file}")
    for scheme, extra in EXTRAS.items():
        if f"pip install 'queue-core[{extra}]'" not in (hint := _hint(scheme)):
            problems.append(f"{scheme}:// without its driver does not name the extra: {hint}")
    if not resources.files("queue_core").joinpath("py.typed").is_file():
        problems.append("py.typed is not in the wheel")
    print(f"queue-core {metadata.version('queue-core')}: {len(names)} modules")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
