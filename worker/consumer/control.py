"""The step that takes part in remote control: the worker's nodes in its mailboxes.

A worker is a node of the namespace ``queue-core``, of the one that its app's own commands go to,
and on RabbitMQ of celery's, where programs of celery find it. It answers on threads of its own,
however busy the pool is, and until it has settled the last task. What a node learns from the
journal when it comes - revoked ids - it knows before the first task is taken.

A name that another node has, a command queue that may not be declared: no reason not to work. It is
logged, and tried again in the background.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import Final

from queue_core import Closed, ConfigError, QueueCoreError
from queue_core.mailbox import Mailbox, Node, Panel, SigningKey
from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.control import asking, telling
from queue_core.worker.control.client import CELERY, NAMESPACE, key_of
from queue_core.worker.control.registry import registered

logger = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""Seconds for which taking tasks waits for the node."""
TAKEN: Final = 60.0
"""Seconds for which a name may be another's."""


class Control(StartStopStep):
    """Answers commands."""

    requires = ("Connection",)

    def __init__(self, parent: TaskConsumer) -> None:
        """Nothing is there yet."""
        super().__init__(parent)
        self._panel: Panel | None = None
        self._key: SigningKey | None = None
        self._boxes: list[Mailbox] = []
        self._nodes: list[Node] = []
        self._joining: list[threading.Thread] = []

    def include_if(self, parent: TaskConsumer) -> bool:
        """Unless it is switched off, or a worker only looks whether it could work."""
        return parent.worker.controlled and not parent.worker.options.check

    def create(self, parent: TaskConsumer) -> None:
        """Collect the commands. Raises ConfigError for one that cannot be added, or a bad key."""
        self._key = key_of(parent.worker.info.settings)
        for module in parent.worker.info.commands:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ConfigError(
                    f"the commands in module {module!r} cannot be imported: {error}"
                ) from error
        self._panel = Panel(asking.panel, telling.panel)
        for handler, options in registered():
            self._panel.register(handler, **options)

    def start(self, parent: TaskConsumer) -> None:
        """Come, if it is not there; wait for that for a moment."""
        if self._boxes:
            return
        worker = parent.worker
        namespaces = [NAMESPACE, worker.info.settings.control_exchange]
        if parent.connection.url.startswith("amqp"):
            namespaces.append(CELERY)
        labels = {"app": worker.info.name, "pool": worker.pool.abilities.kind}
        for namespace in dict.fromkeys(namespaces):
            box = Mailbox(
                namespace,
                parent.connection,
                clock=worker.clock,
                key=self._key,
                keys=worker.options.keys,
            )
            self._boxes.append(box)
            node = box.node(worker.options.name, parent, panel=self._panel, labels=labels)
            self._nodes.append(node)
            thread = threading.Thread(target=self._join, args=(node,), name="control", daemon=True)
            thread.start()
            self._joining.append(thread)
        for thread in self._joining:
            thread.join(PATIENCE)

    def _join(self, node: Node) -> None:
        try:
            node.start(TAKEN)
        except Closed:
            logger.debug("the connection closed before node %s was there", node.name)
        except QueueCoreError as error:
            logger.warning("node %s takes no part in remote control: %s", node.name, error)

    def shutdown(self, parent: TaskConsumer) -> None:
        """Go, once what was asked is answered."""
        for box in self._boxes:
            box.close()
        self._boxes.clear()
