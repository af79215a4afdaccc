"""The step that declares the queues, and takes and settles their messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from queue_core import ConfigError, Connection, TransportError
from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.composing import composer_of
from queue_core.worker.consumer.consumer import SETTLING, TaskConsumer, no_store
from queue_core.worker.results.deliver import choose_chords, choose_deliverer
from queue_core.worker.results.options import result_options
from queue_core.worker.sending import RPC
from queue_core.worker.sequel import Sequel
from queue_core.worker.settler import Settler

logger = logging.getLogger(__name__)


class Tasks(StartStopStep):
    """Subscribes to the queues."""

    requires = ("Connection", "Control")

    def __init__(self, parent: TaskConsumer) -> None:
        """Nothing yet."""
        super().__init__(parent)
        self._backend: Connection | None = None
        self._settler: Settler | None = None

    def start(self, parent: TaskConsumer) -> None:
        """Declare what is not there, and subscribe."""
        for task in parent.tasks.values():
            if task.rate_shared and not parent.connection.features.key_value:
                raise ConfigError(no_store(task.name))
            if task.strategy or task.request_class:
                parent.strategy(task.name)  # what cannot be imported is said now
        if self._settler is None:
            self._settler = parent.settler = self._make_settler(parent)
            parent.in_flight.settler = self._settler
            parent.intake.open(parent.connection, self._settler)
        parent.intake.renew()

    def _make_settler(self, parent: TaskConsumer) -> Settler:
        info = parent.worker.info
        settings = info.settings
        backend = settings.result_backend
        if backend not in (None, *RPC) and self._backend is None:
            self._backend = Connection(backend)
            self._reach(self._backend, must=parent.worker.options.check)
        options = result_options(settings)
        deliverer = choose_deliverer(
            parent.connection, self._backend, rpc_only=backend in RPC, options=options
        )
        sequel = Sequel(
            parent.connection,
            deliverer,
            composer=composer_of(info),
            chords=choose_chords(parent.connection, self._backend, ttl=options.ttl),
            accept=settings.accept_content,
            keep_errors={task.name for task in info.tasks if task.store_errors},
        )
        return Settler(parent.connection, sequel, dict(parent.queues), fail=parent.worker.fail)

    def _reach(self, backend: Connection, *, must: bool) -> None:
        """Connect to where results are kept; unless they ``must``, it may come later."""
        try:
            backend.connect()
        except TransportError as error:
            if must or not error.retryable:
                raise
            logger.warning("no task can end before its result can be kept: %s", error)

    def close(self, parent: TaskConsumer) -> None:
        """Take nothing more; what waits here for its time goes back."""
        parent.intake.stop(ever=True)
        for request in parent.worker.in_flight.all("scheduled"):
            request.give_back()

    def stop(self, parent: TaskConsumer) -> None:
        """Take nothing more. What was taken can still be settled."""
        parent.intake.stop()

    def shutdown(self, parent: TaskConsumer) -> None:
        """Settle what is not settled, and give back the rest."""
        if self._settler is not None:
            self._settler.close(patient=parent.worker.clean)
        parent.intake.close(SETTLING)
        if self._backend is not None:
            self._backend.close()

    def info(self, parent: TaskConsumer) -> Mapping[str, Any]:
        """What became of messages, by outcome."""
        return {"ended": parent.ended(), **parent.counts}
