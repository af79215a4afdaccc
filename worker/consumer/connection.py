"""The step that connects to the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_core import ConfigError
from queue_core import Connection as BrokerConnection
from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.variables import URL_VARIABLE


class Connection(StartStopStep):
    """One connection for everything that the worker does on its broker."""

    def create(self, parent: TaskConsumer) -> None:
        """Check the URL, and that the pool can work with such a broker."""
        options, settings = parent.worker.options, parent.worker.info.settings
        url = options.broker or settings.broker_url
        if not url:
            raise ConfigError(f"the worker has no broker: pass -b URL, or set {URL_VARIABLE}")
        connection = BrokerConnection(
            url,
            lease=parent.worker.lease,
            node=options.node,
            connect_timeout=settings.broker_connection_timeout,
        )
        if parent.worker.pool.separate and not connection.features.shared:
            raise ConfigError(
                f"{connection.url} exists in one process only, and this pool runs tasks in others; "
                "use -P threads, or a broker such as sqlite:///queue.db"
            )
        parent.connection = connection

    def start(self, parent: TaskConsumer) -> None:
        """Connect, unless it is connected."""
        parent.connection.connect()

    def shutdown(self, parent: TaskConsumer) -> None:
        """Leave the broker."""
        parent.connection.close()

    def info(self, parent: TaskConsumer) -> Mapping[str, Any]:
        """Where it is connected to."""
        return {"url": parent.connection.url}
