"""Where the settings of an app come from, and which word counts.

Five levels, each stronger than the one before: defaults, the program (``config_from_object``, and
above it the arguments of ``App``), a file, the environment, the command line. On one level the last
word counts. Each value keeps where it was said, so that ``queue-core config show --origin`` can
tell, and so that a mistake is found where it stands.

The file is the one that ``QUEUE_CORE_CONFIG`` names, else ``queue-core.toml`` or a table
``[tool.queue-core]`` of ``pyproject.toml`` in the current folder. In the environment a setting is
called as in the file, in upper case and after ``QUEUE_CORE_``; ``QUEUE_CORE_URL`` is the broker.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from queue_core import ConfigError, nearest
from queue_core.worker.blueprint import load
from queue_core.worker.celery_settings import known_name, nearest_name, refusal
from queue_core.worker.settings import DEFAULTS, FIELDS, STRUCTURED, Settings, read_setting
from queue_core.worker.variables import FILE_VARIABLE, URL_VARIABLE

T = TypeVar("T")

_VARIABLE: Final = "QUEUE_CORE_"


class Level(enum.IntEnum):
    """How strong a word is."""

    DEFAULT = 0
    OBJECT = 1
    APP = 2
    FILE = 3
    VARIABLE = 4
    FLAG = 5


class Given(NamedTuple):
    """One setting as somebody said it.

    Attributes:
        name: today's.
        value: in its own type; of a setting that is not needed here, as it was given.
        where: for people: a file and line, a variable ...
    """

    name: str
    value: Any
    where: str


class Configuration:
    """What was said on each level, and what follows from it."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._said: dict[Level, dict[str, Given]] = {}

    def say(self, level: Level, given: Iterable[Given]) -> None:
        """Add to what was said on a level."""
        self._said[level] = {**self._said.get(level, {}), **{one.name: one for one in given}}

    def winners(self) -> dict[str, Given]:
        """Return what counts, by name; settings that nobody mentioned are left out."""
        found: dict[str, Given] = {}
        for level in sorted(self._said):
            found.update(self._said[level])
        return found

    def settings(self) -> Settings:
        """Return the settings that follow."""
        given = {one.name: one.value for one in self.winners().values() if one.name in FIELDS}
        return msgspec.structs.replace(DEFAULTS, **given)

    def needless(self) -> list[Given]:
        """Return what was said and is not needed here."""
        return [one for one in self.winners().values() if one.name not in FIELDS]


# --- sources -------------------------------------------------------------------------------------


def from_mapping(values: Mapping[str, Any], where: str, *, namespace: str = "") -> list[Given]:
    """Read a dict of settings, each of which must be one.

    With a namespace only the names that begin with it and ``_`` are settings.

    Raises:
        ConfigError: an unknown name, with the nearest one, or a wrong value; a line for each.
    """
    return _read(_inside(values, namespace), lambda _name: where)


def from_object(found: object, *, namespace: str = "") -> list[Given]:
    """Read the attributes of a module, a class or any object.

    What is no setting there - imports, functions, other constants - is left alone, unless it looks
    like a misspelt setting. Raises ConfigError as `from_mapping`.
    """
    values = {name: getattr(found, name) for name in dir(found) if not name.startswith("_")}
    path = getattr(found, "__file__", None)
    label = path or getattr(found, "__qualname__", None) or type(found).__qualname__
    if not namespace:
        values = {name: value for name, value in values.items() if _is_meant(name, value)}
    return _read(_inside(values, namespace), _Places(label))


def from_file(path: Path | str) -> list[Given]:
    """Read a TOML file: its top level, or the table ``tool.queue-core`` of a ``pyproject.toml``.

    Raises:
        ConfigError: it cannot be read, is no TOML, or as `from_mapping`.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        values = load("tomllib:loads")(text)  # few have a file, and it takes a while to import
    except (OSError, ValueError) as error:
        raise ConfigError(f"the settings in {path} cannot be read: {error}") from error
    if path.name == "pyproject.toml":
        values = values.get("tool", {}).get("queue-core", {})
    return _read(_inside(values, ""), _Places(str(path)))


def from_environment(environ: Mapping[str, str]) -> list[Given]:
    """Read the variables that are settings. Raises ConfigError with a line for each wrong value."""
    values = {}
    if environ.get(URL_VARIABLE):
        values["broker_url"] = (URL_VARIABLE, environ[URL_VARIABLE])
    for name, kind in FIELDS.items():
        variable = _VARIABLE + name.upper()
        if variable in environ and kind not in STRUCTURED:
            values[name] = (variable, environ[variable])

    def read(item: tuple[str, tuple[str, str]]) -> Given:
        name, (variable, value) = item
        return _given(name, name, value, f"${variable}")

    return _each(values.items(), read)


def find_file(environ: Mapping[str, str], folder: Path) -> Path | None:
    """Return the file with settings; None: there is none."""
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    own = folder / "queue-core.toml"
    if own.is_file():
        return own
    project = folder / "pyproject.toml"
    if project.is_file() and b"[tool.queue-core" in project.read_bytes():
        return project
    return None


def surroundings() -> tuple[list[Given], list[Given]]:
    """Return what this process's file and its environment say. Raises ConfigError."""
    path = find_file(os.environ, Path())
    return ([] if path is None else from_file(path)), from_environment(os.environ)


def found_around() -> Settings:
    """Return the settings as file and environment alone have them. Raises ConfigError."""
    configuration = Configuration()
    for level, given in zip((Level.FILE, Level.VARIABLE), surroundings(), strict=True):
        configuration.say(level, given)
    return configuration.settings()


def misspelt_variables() -> Iterator[tuple[str, str]]:
    """Yield the variables of the environment that nearly name a setting, and the setting's.

    Others begin with the same word - commands have options there, too - and are none of ours.
    """
    known = {_VARIABLE + name.upper() for name in FIELDS}
    for name in sorted(os.environ):
        if name.startswith(_VARIABLE) and name not in (*known, URL_VARIABLE, FILE_VARIABLE):
            near = nearest(name, known, cutoff=0.9)
            if near is not None:
                yield name, near


# --- reading -------------------------------------------------------------------------------------


def _inside(values: Mapping[str, Any], namespace: str) -> dict[str, tuple[str, Any]]:
    """Return what is in the namespace: name -> the same without the namespace, and its value."""
    prefix = f"{namespace.rstrip('_')}_".upper() if namespace else ""
    size = len(prefix)
    return {
        name: (name[size:], value)
        for name, value in values.items()
        if name.upper().startswith(prefix) and len(name) > size
    }


def _read(values: Mapping[str, tuple[str, Any]], place: Callable[[str], str]) -> list[Given]:
    """Read settings: as they are spelled -> without their namespace, and the value.

    Raises ConfigError with a line for each that cannot be used.
    """
    found: dict[str, tuple[str, Given]] = {}

    def read(item: tuple[str, tuple[str, Any]]) -> Given:
        spelled, (bare, value) = item
        given = _read_one(spelled, bare, value, place(spelled))
        before, known = found.setdefault(given.name, (spelled, given))
        if known.value != given.value:
            raise ConfigError(
                f"{before} and {spelled} are the same setting with different values "
                f"({given.where}); keep one of them"
            )
        return known

    _each(values.items(), read)
    return [given for _, given in found.values()]


def _each(items: Iterable[T], read: Callable[[T], Given]) -> list[Given]:
    """Read them all, or raise ConfigError with a line for each that cannot be read."""
    found, wrong = [], []
    for item in items:
        try:
            found.append(read(item))
        except ConfigError as error:
            wrong.append(error)
    if wrong:
        raise ConfigError("\n".join(map(str, wrong))) from wrong[0].__cause__
    return found


def _read_one(spelled: str, bare: str, value: Any, where: str) -> Given:
    name = known_name(bare)
    if name is None:
        near = nearest_name(bare)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"there is no setting {spelled} ({where}){hint}")
    return _given(name, spelled, value, where)


def _given(name: str, spelled: str, value: Any, where: str) -> Given:
    reason = refusal(name, value)
    if reason is not None:
        raise ConfigError(f"{spelled} ({where}) cannot be honoured; {reason}")
    try:
        return Given(name, read_setting(name, value) if name in FIELDS else value, where)
    except ConfigError as error:
        raise ConfigError(f"{spelled} ({where}): {error}") from error


_MARKS: Final = ("celery", "broker_", "task_", "worker_", "result_")


def _is_meant(name: str, value: object) -> bool:
    """Whether a name in a module is a setting, or a misspelt one."""
    known = known_name(name)
    if isinstance(value, ModuleType) or callable(value):  # imported, such as Django's timezone
        return known is not None and FIELDS.get(known) in STRUCTURED
    if known is not None:
        return True
    return name.lower().startswith(_MARKS) or nearest_name(name, cutoff=0.85) is not None


class _Places:
    """Says the file and the line where a name is said, as far as that can be seen."""

    def __init__(self, label: str) -> None:
        self._label = label
        try:
            self._lines = Path(label).read_text("utf-8").splitlines()
        except (OSError, ValueError):
            self._lines = []

    def __call__(self, name: str) -> str:
        for number, line in enumerate(self._lines, 1):
            if _says(line.strip(), name):
                return f"{self._label}:{number}"
        return self._label


def _says(line: str, name: str) -> bool:
    bare = line.lstrip("[").removeprefix("tool.queue-core.")
    return bare.startswith(name) and bare[len(name) :].lstrip()[:1] in ("=", ":", "]", ".")


def shown(settings: Settings, origins: Mapping[str, Given]) -> Iterator[tuple[str, str, str]]:
    """Yield each setting, its value without passwords, and where it was said, if it was."""
    for name in FIELDS:
        given = origins.get(name)
        yield name, masked(getattr(settings, name)), "" if given is None else given.where


def masked(value: object) -> str:
    """Return a value for people, without the passwords of URLs in it."""
    return without_passwords(repr(value))


def without_passwords(text: str) -> str:
    """Return a text without the passwords of URLs in it."""
    return re.sub(_QUERY, r"\1***", re.sub(_PASSWORD, r"\1:***@", text))


_PASSWORD: Final = r"(://[^:/@;]*):[^;]*@"
_QUERY: Final = r"(?i)([?&][^=&;]*(?:pass|secret|token|key)[^=&;]*=)[^&;]*"
