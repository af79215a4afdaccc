"""Steps that depend on one another, and the order in which they start and stop.

A worker is two blueprints: the worker's own (timer, pool, state, consumer) and, inside its last
step, the consumer's (connection, control, tasks, loop). Users add steps of their own to either with
``app.steps["worker"].add(...)``. Nothing here knows what the steps do.

The life of a step::

    include_if - create - start - (stop - start)* - close - stop or terminate - shutdown

- Steps start in the order of what they require, and end in reverse; one that fails to start takes
  those that were started down with it.
- ``close`` is heard by all before the first one stops: take nothing new. It must not block.
- ``stop`` blocks until it is true. The consumer's steps are also stopped when the connection is
  lost, and started again.
- ``shutdown`` comes last and once, when every step has stopped: it lets go of what the others still
  needed to stop. So a pool can finish its tasks while the connection is still there to ack them.
- Each of these may be called twice, and without ``start``.
"""

from __future__ import annotations

import graphlib
import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from queue_core import ConfigError, Consumer, Message
from queue_core.worker.suggestions import did_you_mean

logger = logging.getLogger(__name__)


class Step:
    """Something that a blueprint makes in its order, such as an object that later steps need.

    Attributes:
        name: unique in its blueprint; the name of the class if empty.
        requires: the steps that must have started before, as classes, names, or ``"module:Name"``.
            It is about order only: one that is left out by its ``include_if`` is not missed.
        last: after all that are not.
    """

    name: ClassVar[str] = ""
    requires: ClassVar[Sequence[type[Step] | str]] = ()
    last: ClassVar[bool] = False

    def __init__(self, parent: Any) -> None:
        """``parent`` is the worker, or its consumer. Do nothing that must be undone."""

    def include_if(self, parent: Any) -> bool:
        """Whether this step takes part."""
        return True

    def create(self, parent: Any) -> None:
        """Make what later steps find on ``parent``. All steps create before the first one starts.

        Nothing is running yet, and nothing will undo it.
        """

    def info(self, parent: Any) -> Mapping[str, Any]:
        """Plain values for ``queue-core inspect stats``."""
        return {}


class StartStopStep(Step):
    """A step that runs something."""

    def start(self, parent: Any) -> None:
        """Start; return when it runs. What it raises ends the worker."""

    def close(self, parent: Any) -> None:
        """Take nothing new; does not block."""

    def stop(self, parent: Any) -> None:
        """End; blocks until it has."""

    def terminate(self, parent: Any) -> None:
        """End without waiting for work that is under way."""
        self.stop(parent)

    def shutdown(self, parent: Any) -> None:
        """Let go of what other steps needed until they had stopped."""


Handler = Callable[[Message], object]


class ConsumerStep(StartStopStep):
    """A step of the consumer's blueprint that takes messages of its own.

    Each of its consumers gets a thread, which calls the handler with one message after the other.
    An exception does what `queue_core.Consumer.run` says; one that ends that ends the worker, too,
    unless the broker is the cause: then the consumer starts anew.
    """

    requires: ClassVar[Sequence[type[Step] | str]] = ("Connection",)

    def __init__(self, parent: Any) -> None:
        """Nothing is consumed yet."""
        super().__init__(parent)
        self._running: list[tuple[Consumer, threading.Thread]] = []

    def get_consumers(self, parent: Any) -> Iterable[tuple[Consumer, Handler]]:
        """Return new consumers, made with ``parent.connection.consumer(...)``, and their handlers.

        Called at each start.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no get_consumers")

    def start(self, parent: Any) -> None:
        """Consume."""
        for consumer, handler in self.get_consumers(parent):
            consumer.start()
            thread = threading.Thread(
                target=self._run,
                args=(consumer, handler, parent),
                name=step_name(type(self)),
                daemon=True,
            )
            self._running.append((consumer, thread))
            thread.start()

    def _run(self, consumer: Consumer, handler: Handler, parent: Any) -> None:
        try:
            consumer.run(handler)
        except Exception as error:
            logger.exception("step %s takes no more messages", step_name(type(self)))
            parent.trouble(error)

    def close(self, parent: Any) -> None:
        """Take nothing more."""
        for consumer, _ in self._running:
            consumer.stop()

    def stop(self, parent: Any) -> None:
        """Wait for the messages in hand, and close the consumers."""
        self.close(parent)
        while self._running:
            consumer, thread = self._running.pop()
            thread.join()
            consumer.close()


Given = type[Step] | str
"""A step's class, or ``module:Name`` of one."""


class Steps:
    """The steps that an app adds to a blueprint, and those that it leaves out, as given."""

    def __init__(self) -> None:
        """None yet."""
        self._given: list[Given] = []

    def add(self, *steps: Given) -> None:
        """Add steps. The worker's process imports their modules, so keep tasks out of these."""
        for step in steps:
            if step not in self._given:
                self._given.append(step)

    def discard(self, *steps: Given) -> None:
        """Take back steps that were added, if they were."""
        self._given = [step for step in self._given if step not in steps]

    def __iter__(self) -> Iterator[Given]:
        """Iterate in the order of their addition."""
        return iter(list(self._given))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._given)

    @property
    def paths(self) -> list[str]:
        """Each as ``module:Name``, which another process can import.

        Raises ConfigError for a class that cannot be found by its name.
        """
        return [step if isinstance(step, str) else importable_path(step) for step in self._given]


def importable_path(found: Any) -> str:
    """Return ``module:Name`` of a class or function.

    Raises:
        ConfigError: another process could not find it there.
    """
    path = f"{found.__module__}:{found.__qualname__}"
    if found.__module__ == "__main__" or "<" in path:
        raise ConfigError(
            f"{path} cannot be imported by a worker; define it at the top of a module"
        )
    return path


def load(path: str) -> Any:
    """Import ``module:Name`` and return what it names.

    Raises:
        ConfigError: there is no such thing.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path!r} cannot be imported ({error}); it must be 'module:Name'"
        ) from error
    return found


def step_name(step: type[Step]) -> str:
    """Return what a step is called in its blueprint."""
    return step.name or step.__name__


def arrange(given: Iterable[Given]) -> dict[str, tuple[type[Step], frozenset[str]]]:
    """Return the steps in the order of their start: name -> class and the names that it requires.

    Among those that could start next, the order of ``given`` decides.

    Raises:
        ConfigError: a step is none, is there twice, requires one that is not there, or requires
            itself in the end.
    """
    classes = _by_name(given)
    paths = {f"{step.__module__}:{step.__qualname__}": name for name, step in classes.items()}
    needs: dict[str, frozenset[str]] = {}
    for name, step in classes.items():
        requires = (step.requires,) if isinstance(step.requires, str) else step.requires
        wanted = {_required(name, item, classes, paths) for item in requires}
        if step.last:
            wanted |= {other for other, one in classes.items() if not one.last}
        needs[name] = frozenset(wanted)
    sorter = graphlib.TopologicalSorter(needs)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise ConfigError(
            f"these steps require one another: {' -> '.join(error.args[1])}"
        ) from None
    order: list[str] = []
    place = {name: number for number, name in enumerate(classes)}
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        first = ready.pop(0)
        order.append(first)
        sorter.done(first)
    return {name: (classes[name], needs[name]) for name in order}


def _by_name(given: Iterable[Given]) -> dict[str, type[Step]]:
    classes: dict[str, type[Step]] = {}
    for item in given:
        step = load(item) if isinstance(item, str) else item
        if not (isinstance(step, type) and issubclass(step, Step)):
            raise ConfigError(f"{item!r} is no step: a subclass of Step was expected")
        if classes.setdefault(step_name(step), step) is not step:
            raise ConfigError(
                f"two steps are called {step_name(step)!r}; give one of them another name"
            )
    return classes


def _required(
    name: str, item: Given, classes: Mapping[str, type[Step]], paths: Mapping[str, str]
) -> str:
    wanted = step_name(item) if isinstance(item, type) else paths.get(item, item)
    if wanted not in classes:
        instead = did_you_mean(wanted, classes, f"there are {', '.join(classes)}")
        raise ConfigError(f"step {name!r} requires {wanted!r}, which is not there; {instead}")
    return wanted


class Blueprint:
    """The steps of one parent, made and run. Used by one thread, but for `info`."""

    def __init__(self, name: str, given: Iterable[Given]) -> None:
        """Arrange the steps; raises ConfigError as `arrange` does."""
        self.name = name
        self.arranged = arrange(given)
        self.steps: dict[str, Step] = {}
        self._created = False
        self._started: list[StartStopStep] = []

    def create(self, parent: Any) -> None:
        """Make the steps that take part, once."""
        if self._created:
            return
        self._created = True
        for name, (kind, _) in self.arranged.items():
            step = kind(parent)
            if step.include_if(parent):
                step.create(parent)
                self.steps[name] = step

    def start(self, parent: Any) -> None:
        """Start every step that is not started. If one fails, stop the others and raise."""
        self.create(parent)
        for step in self.steps.values():
            if isinstance(step, StartStopStep) and step not in self._started:
                logger.debug("%s: starting %s", self.name, step_name(type(step)))
                self._started.append(step)
                try:
                    step.start(parent)
                except BaseException:
                    self.stop(parent)
                    raise

    def close(self, parent: Any) -> None:
        """Tell every step that was started to take nothing new, the last one first."""
        self._each(self._started, "close", parent)

    def stop(self, parent: Any, *, now: bool = False) -> None:
        """Stop every step that was started, the last one first; with ``now``, terminate it.

        What a step raises is logged, and the others are stopped all the same.
        """
        started, self._started = self._started, []
        self._each(started, "terminate" if now else "stop", parent)

    def shutdown(self, parent: Any) -> None:
        """Let every step that was made let go, the last one first."""
        made = [step for step in self.steps.values() if isinstance(step, StartStopStep)]
        self._each(made, "shutdown", parent)

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what the steps say of themselves; what one raises is logged."""
        found = {}
        for name, step in self.steps.items():
            try:
                if told := step.info(parent):
                    found[name] = dict(told)
            except Exception:
                logger.exception("%s: step %s: info failed", self.name, name)
        return found

    def _each(self, steps: Sequence[StartStopStep], what: str, parent: Any) -> None:
        for step in reversed(steps):
            logger.debug("%s: %s %s", self.name, what, step_name(type(step)))
            try:
                getattr(step, what)(parent)
            except Exception:
                logger.exception("%s: step %s: %s failed", self.name, step_name(type(step)), what)
