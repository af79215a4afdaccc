"""Proves that an installed wheel is whole. Run by `dev.py test` with a fresh interpreter.

``smoke.py CHECKOUT``: every module of the checkout is in the wheel and imports, with no more than
the declared dependencies; `py.typed` and the metadata are there; nothing comes from the checkout.
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
# Needs an extra of its own (pytest and hypothesis), which is not installed here.
NEEDS_EXTRA = ("queue_core.testing",)


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
    if not resources.files("queue_core").joinpath("py.typed").is_file():
        problems.append("py.typed is not in the wheel")
    print(f"queue-core {metadata.version('queue-core')}: {len(names)} modules")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
