"""What the settings of an app make of each task that is sent: its options and its queue.

Used where tasks are sent, and in the worker, which sends what follows a task that could not even
fail. Thread-safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from queue_core import ConfigError, Queue
from queue_core.worker.configuration import Given
from queue_core.worker.outcome import TaskInfo
from queue_core.worker.routes import Options, QueueDefinitions, Routed, Router, merged
from queue_core.worker.settings import Settings
from queue_core.worker.signature import Signature

logger = logging.getLogger(__name__)

Own = Callable[[str], Mapping[str, Any]]
"""The options that stand at the task of this name."""


_SETTINGS: Final = {
    "queue": "task_default_queue",
    "priority": "task_default_priority",
    "compression": "task_compression",
}
"""Option -> the setting for tasks of which nothing else says it."""


class Explained(NamedTuple):
    """One option of a task, and who says so."""

    option: str
    value: Any
    because: str

    @property
    def shown(self) -> str:
        """The value for people."""
        return repr(self.value.name if isinstance(self.value, Queue) else self.value)


class Rules:
    """The settings, ready to be asked.

    Attributes:
        settings: all of them.
        router: ``task_routes``.
        queues: the definitions of queues.
    """

    def __init__(self, settings: Settings, own: Own, queues: Iterable[Queue] = ()) -> None:
        """Raises ConfigError for routes that are none."""
        self.settings = settings
        self.router = Router(settings.task_routes)
        self.queues = QueueDefinitions(settings, queues)
        self._own = own
        self._routed: dict[str, Routed | None] = {}
        said = {option: getattr(settings, name) for option, name in _SETTINGS.items()}
        said.pop("queue")  # who says nothing gets it anyway
        self._base = {name: value for name, value in said.items() if value is not None}

    def route(self, signature: Signature[Any]) -> Routed | None:
        """Return what ``task_routes`` says of a task; None: nothing.

        Raises ConfigError for a queue with arguments that no worker can know.
        """
        name = signature.task
        if not self.router.rules:
            return None
        if not self.router.static:
            routed = self.router.find(name, signature.args, signature.kwargs, signature.options)
            return self._known(name, routed)
        if name not in self._routed:
            self._routed[name] = self.router.find(name)
        return self._routed[name]

    def options(self, signature: Signature[Any]) -> Options:
        """Return the options with which a task is sent unless the call says otherwise."""
        own = self._own(signature.task)
        routed = self.route(signature)
        if routed is None:
            return {**self._base, **own} if self._base else own
        return merged({**self._base, **routed.options}, own)

    def explain(self, signature: Signature[Any], origins: Mapping[str, Given]) -> list[Explained]:
        """Say of each option with which a task is sent who says so, the queue first.

        Options that nobody mentions are left out, but for the queue.
        """
        routed = self.route(signature)
        usual = {"queue": self.settings.task_default_queue, **self._base}
        sources: list[tuple[Options, str]] = [
            ({option: value}, _named(_SETTINGS[option], origins)) for option, value in usual.items()
        ]
        if routed is not None:
            words = _placed(routed.rule.words, "task_routes", origins)
            sources.append((routed.options, words))
        sources.append((self._own(signature.task), "the task's own options"))
        found: dict[str, Explained] = {}
        for options, because in sources:
            fresh = {name: Explained(name, value, because) for name, value in options.items()}
            found = merged(found, fresh)
        return sorted(found.values(), key=lambda one: (one.option != "queue", one.option))

    def _known(self, name: str, routed: Routed | None) -> Routed | None:
        queue = None if routed is None else routed.options.get("queue")
        if routed is None or not isinstance(queue, Queue) or queue in self.router.queues():
            return routed
        if queue not in (self.asked(name), self.queues.find(queue.name)):
            raise ConfigError(
                f"{routed.rule.words}: queue {queue.name!r} has arguments, and workers know only "
                "those that are returned for a task without arguments; put it in task_queues"
            )
        return routed

    def asked(self, name: str) -> Queue | str | None:
        """Return the queue that functions among the routes name for a task; None: they do not.

        They are asked as for a call without arguments; one that cannot answer is left out.
        """
        if self.router.static:
            return None
        try:
            routed = self.router.find(name)
        except Exception as error:
            logger.debug("a route of %s cannot be asked without arguments: %s", name, error)
            return None
        return None if routed is None else routed.options.get("queue")

    def placed(self, task: TaskInfo) -> TaskInfo:
        """Return it with the queue that functions among the routes name for it.

        The worker's own process, which sends what follows tasks that could not even fail, does not
        run them.
        """
        if task.queue is not None or self.router.static:
            return task
        queue = self.asked(task.name)
        name = queue.name if isinstance(queue, Queue) else queue
        return msgspec.structs.replace(task, queue=name)

    def queue(self, _name: str, options: Options) -> Queue:
        """Return the queue that a task with these options needs; raises UsageError."""
        return self.queues.find(options.get("queue"))


def _placed(words: str, name: str, origins: Mapping[str, Given]) -> str:
    return f"{words} ({origins[name].where})" if name in origins else words


def _named(name: str, origins: Mapping[str, Given]) -> str:
    return _placed(name, name, origins) if name in origins else f"{name}, by default"
