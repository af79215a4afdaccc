"""From ``module:attribute`` to an app, with an answer a person can use when there is none."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from queue_core import QueueCoreError, nearest
from queue_core.worker.absent import AppNotFound
from queue_core.worker.app import App

_MAKE_ONE = "from queue_core.worker import App; app = App(...)"
# Installed, they would make apps and tasks that are none of ours.
_INSTEAD = {
    "celery": "import it from queue_core.worker instead; see docs/coming-from-celery.rst",
    "kombu": "import it from queue_core instead; see docs/coming-from-celery.rst",
}


def find_app(spec: str) -> App:
    """Import ``module:attribute``, or ``module`` with one app in it, and return the app.

    Runs the module's code. ``sys.path`` is used as it is.

    Raises:
        AppNotFound: there is no such module or attribute (the nearest one is named), it is no app,
            or its import failed.
    """
    name, _, attribute = spec.partition(":")
    if not name or name.startswith("."):
        raise AppNotFound(f"{spec!r} does not name an app", advice="-A module:app")
    if name.endswith(".py") or "/" in name:
        stem = name.removesuffix(".py").replace("/", ".").strip(".")
        raise AppNotFound(
            f"{name!r} is a file; the name of its module is needed",
            advice=f"-A {stem}:{attribute or 'app'}",
        )
    module = _import(name, attribute)
    if not attribute:
        return _only_app(module)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _no_attribute(module, name, attribute)
        found = getattr(found, part)
    if not isinstance(found, App):
        raise AppNotFound(
            f"{spec} is no App, but of type {type(found).__name__}", advice=_suggest(module, name)
        )
    return found


def load_app(spec: str, *, broker: str | None = None) -> App:
    """Find an app as `find_app` does, and make it ready to run tasks: with all its modules.

    Raises:
        AppNotFound: as `find_app`, or a module with tasks cannot be imported.
        ConfigError: its settings cannot be used.
    """
    app = find_app(spec)
    app.use(broker=broker)
    for name in app.task_modules():
        _import(name, "")
    return app


def _import(name: str, attribute: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(name, attribute, error.name) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _no_module(name: str, attribute: str, missing: str) -> AppNotFound:
    near = nearest(name, sorted(_modules_here()))
    advice = (
        f"-A {near}:{attribute or 'app'}"
        if near
        else "run the command in the folder of the module, or set PYTHONPATH"
    )
    return AppNotFound(f"there is no module {missing!r}", advice=advice)


def _modules_here() -> set[str]:
    """The modules that a user may mean: those in the folders of the path, not installed ones."""
    names: set[str] = set()
    for folder in sys.path:
        path = Path(folder or ".")
        if not path.is_dir() or "site-packages" in path.parts or (path / "tokenize.py").exists():
            continue
        names |= {entry.stem for entry in path.glob("*.py") if entry.stem.isidentifier()}
        names |= {
            f"{entry.parent.name}.{entry.stem}"
            for entry in path.glob("*/*.py")
            if entry.stem.isidentifier()
        }
    return {name.removesuffix(".__init__") for name in names}


def _no_attribute(module: ModuleType, name: str, attribute: str) -> AppNotFound:
    apps = _apps(module)
    near = nearest(
        attribute, apps or [item for item in vars(module) if item[0] != "_"], cutoff=0.3
    ) or (apps[0] if apps else None)
    return AppNotFound(
        f"module {name!r} has no attribute {attribute!r}",
        advice=f"-A {name}:{near}" if near else _MAKE_ONE,
    )


def _only_app(module: ModuleType) -> App:
    apps = _apps(module)
    if len({id(getattr(module, item)) for item in apps}) == 1:
        found: App = getattr(module, apps[0])
        return found
    name = module.__name__
    if not apps:
        raise AppNotFound(
            f"there is no App in module {name!r}",
            advice=_MAKE_ONE,
        )
    raise AppNotFound(
        f"module {name!r} has several apps: {', '.join(apps)}", advice=f"-A {name}:{apps[0]}"
    )


def _apps(module: ModuleType) -> list[str]:
    return [item for item, value in vars(module).items() if isinstance(value, App)]


def _suggest(module: ModuleType, name: str) -> str:
    apps = _apps(module)
    return f"-A {name}:{apps[0]}" if apps else _MAKE_ONE


def _broken(name: str, error: BaseException) -> AppNotFound:
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}"
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "importlib" not in frame.filename
        ]
        ours = f"{Path(__file__).parents[1]}/"
        frames = [frame for frame in frames if not frame.filename.startswith(ours)]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else name
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    return AppNotFound(
        f"the module {name!r} cannot be imported",
        f"{type(error).__name__}: {text} ({where})",
        _remedy(name, error),
        "".join(traceback.format_exception(error)),
    )


def _remedy(name: str, error: BaseException) -> str:
    if isinstance(error, QueueCoreError):
        return ""  # its text has it
    lacking = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if lacking in _INSTEAD:
        return _INSTEAD[lacking]
    if lacking and lacking != name.partition(".")[0]:
        return f"pip install {lacking}"
    return f"python -c 'import {name}'"
