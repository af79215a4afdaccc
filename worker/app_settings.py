"""What was said about an app, and what follows from it: settings, rules, messages.

Saying something settles nothing: the settings are put together when they are asked for. So an app
may be configured after its tasks were defined, and a file or a variable is read only by a program
that uses its app. They are read once.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from queue_core import ConfigError
from queue_core.worker.blueprint import load
from queue_core.worker.celery_settings import known_name, nearest_name
from queue_core.worker.composing import Composer, composer_by
from queue_core.worker.configuration import (
    Configuration,
    Given,
    Level,
    from_file,
    from_mapping,
    from_object,
    surroundings,
)
from queue_core.worker.rules import Own, Rules
from queue_core.worker.settings import Settings
from queue_core.worker.suggestions import did_you_mean

Packages = Iterable[str] | Callable[[], Iterable[str]]
"""Names of packages, or a function that returns them."""


class NoSettings(ConfigError):
    """There is no module of that name."""


class Settled:
    """What holds until something else is said.

    Attributes:
        settings: complete.
        origins: what somebody said and counts, by name.
        needless: what was said and is not needed here.
        rules: options and queues of tasks.
        composer: makes messages by the rules.
    """

    def __init__(self, configuration: Configuration, own: Own) -> None:
        """Raises ConfigError for settings that cannot be used; says where they stand."""
        self.settings: Settings = configuration.settings()
        self.origins: Mapping[str, Given] = configuration.winners()
        self.needless = configuration.needless()
        with self.explaining("task_routes"):
            self.rules = Rules(self.settings, own)
        with self.explaining("timezone"):
            self.composer: Composer = composer_by(self.rules)

    @contextlib.contextmanager
    def explaining(self, name: str) -> Iterator[None]:
        """Add to a ConfigError where the setting stands."""
        try:
            yield
        except ConfigError as error:
            given = self.origins.get(name)
            where = "" if given is None else f" ({given.where})"
            raise ConfigError(f"{name}{where}: {error}") from error


class AppSettings:
    """What was said about one app. Thread-safe."""

    def __init__(self, own: Own, on_settled: Callable[[Settled], None]) -> None:
        """Nothing was said.

        Args:
            own: the options that stand at a task.
            on_settled: called with each result.
        """
        self._own = own
        self._on_settled = on_settled
        self._configuration = Configuration()
        self._lock = threading.RLock()
        self._settled: Settled | None = None
        self._looked = False
        self._discovered: list[tuple[Packages, str | None]] = []

    @property
    def known(self) -> Settled | None:
        """What follows, if somebody asked for it already."""
        return self._settled

    def say(self, level: Level, where: str, **values: Any) -> None:
        """Say the settings that are not None. Raises ConfigError."""
        said = {name: value for name, value in values.items() if value is not None}
        self._add(level, from_mapping(said, where))

    def take(self, found: object, *, silent: bool = False, namespace: str = "") -> bool:
        """Say what a module or the like says; see `App.config_from_object`."""
        try:
            self._add(Level.OBJECT, given_by(found, namespace=namespace))
        except NoSettings:
            if silent:
                return False
            raise
        return True

    def take_variable(self, variable: str, *, silent: bool = False) -> bool:
        """Say what the module or file says that a variable names."""
        name = os.environ.get(variable)
        if name:
            return self.take(name, silent=silent)
        if silent:
            return False
        raise ConfigError(f"the variable {variable} names no module with settings")

    def _add(self, level: Level, given: Iterable[Given]) -> None:
        with self._lock:
            self._configuration.say(level, given)
            self._settled = None

    def discover(self, packages: Packages, related: str | None) -> None:
        """Look for modules of tasks in packages, when a worker asks for them.

        Raises ConfigError if they are no names.
        """
        if isinstance(packages, str):
            raise ConfigError(f"packages is a list of names; for one write [{packages!r}]")
        if not callable(packages) and not isinstance(packages, Iterable):
            raise ConfigError(f"packages are a list of names, not {packages!r:.60}")
        self._discovered.append((packages, related))

    def task_modules(self) -> Iterator[str]:
        """Yield the names of the modules with tasks."""
        settings = self.settled.settings
        yield from settings.imports
        yield from settings.include
        for packages, related in self._discovered:
            for package in packages() if callable(packages) else packages:
                name = f"{package}.{related}" if related else package
                if importlib.util.find_spec(name) is not None:
                    yield name

    @property
    def settled(self) -> Settled:
        """What follows. Reads file and environment the first time; raises ConfigError."""
        found = self._settled
        return found if found is not None else self._settle()

    def _settle(self) -> Settled:
        with self._lock:
            if not self._looked:
                file, variables = surroundings()
                self._configuration.say(Level.FILE, file)
                self._configuration.say(Level.VARIABLE, variables)
                self._looked = True
            if self._settled is None:
                found = Settled(self._configuration, self._own)
                self._on_settled(found)
                self._settled = found
            return self._settled


def refuse_arguments(unknown: Mapping[str, Any], function: Callable[..., Any]) -> NoReturn:
    """Raise ConfigError for arguments that ``App`` does not have. Their values may be secret.

    Args:
        unknown: them.
        function: what has the arguments that there are.
    """
    name = next(iter(unknown))
    known = [
        parameter.name
        for parameter in list(inspect.signature(function).parameters.values())[1:]
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    usual = f"it has {', '.join(known)}"
    setting = name if known_name(name) is not None else nearest_name(name)
    if setting is not None:
        usual = f"a setting is written settings={{{setting!r}: ...}}"
    raise ConfigError(f"App has no {name!r}; {did_you_mean(name, known, usual)}")


def given_by(found: object, *, namespace: str = "") -> list[Given]:
    """Read settings from whatever ``config_from_object`` takes.

    Raises:
        ConfigError: see `queue_core.worker.configuration`; or there is no such module.
    """
    if type(found).__module__ == "builtins" and not isinstance(
        found, str | Mapping | type | ModuleType
    ):
        raise ConfigError(
            f"settings are a module, its name, the path of a TOML file, an object that has them "
            f"as attributes, or a dict, not {found!r:.60}"
        )
    if isinstance(found, Path) or (isinstance(found, str) and found.endswith(".toml")):
        return from_file(found)
    if isinstance(found, str):
        found = _imported(found)
    if isinstance(found, Mapping):
        return from_mapping(found, "a dict in the program", namespace=namespace)
    return from_object(found, namespace=namespace)


def _imported(name: str) -> object:
    if ":" in name:
        return load(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        parent, _, attribute = name.rpartition(".")
        if parent and error.name == name:
            with contextlib.suppress(ConfigError):
                return load(f"{parent}:{attribute}")
        raise NoSettings(
            f"there is no module {name!r} with settings; it must be in the folder of the program, "
            "or in PYTHONPATH"
        ) from error
