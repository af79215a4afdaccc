"""What the settings of an app make of each task that is sent: its options and its queue.

Used where tasks are sent, and in the worker, which sends what follows a task that could not even
fail. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from queue_core import Queue
from queue_core.worker.routes import Options, QueueBook, Routed, Router, merged
from queue_core.worker.settings import Settings
from queue_core.worker.signature import Signature

Own = Callable[[str], Mapping[str, Any]]
"""The options that stand at the task of this name."""


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
        self.queues = QueueBook(settings, queues)
        self._own = own
        self._routed: dict[str, Routed | None] = {}
        said = {
            "priority": settings.task_default_priority,
            "compression": settings.task_compression,
        }
        self._base = {name: value for name, value in said.items() if value is not None}

    def route(self, signature: Signature[Any]) -> Routed | None:
        """Return what ``task_routes`` says of a task; None: nothing."""
        name = signature.task
        if not self.router.rules:
            return None
        if not self.router.static:
            return self.router.find(name, signature.args, signature.kwargs, signature.options)
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

    def queue(self, _name: str, options: Options) -> Queue:
        """Return the queue that a task with these options needs; raises UsageError."""
        return self.queues.find(options.get("queue"))
