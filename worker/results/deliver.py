"""Which way results take, decided once per worker."""

from __future__ import annotations

from collections.abc import Sequence

from queue_core import Connection, Message, Publication
from queue_core.worker.results.base import Deliverer
from queue_core.worker.results.chords import Chords, KeyValueChords
from queue_core.worker.results.key_value import KeyValueDeliverer
from queue_core.worker.results.rpc import RpcDeliverer


class _AsAsked:
    """To the queue that the message names, else into the broker's own key-value store."""

    def __init__(self, rpc: Deliverer, stored: Deliverer) -> None:
        self._rpc = rpc
        self._stored = stored

    def deliver(self, message: Message, task_id: str, reply: bytes) -> Sequence[Publication]:
        """Let the message decide."""
        way = self._rpc if message.properties.reply_to else self._stored
        return way.deliver(message, task_id, reply)


def choose_deliverer(
    connection: Connection, backend: Connection | None, *, rpc_only: bool, ttl: float
) -> Deliverer:
    """Return how a worker on ``connection`` delivers results.

    Args:
        connection: to the broker.
        backend: where the app wants its results; None if it did not say.
        rpc_only: the app wants them by rpc.
        ttl: seconds for which stored results are kept.

    Raises:
        Unsupported: ``backend`` has no key-value store.
    """
    if backend is not None:
        return KeyValueDeliverer(backend, ttl)
    rpc = RpcDeliverer(connection.producer())
    if rpc_only or not connection.features.key_value:
        return rpc
    return _AsAsked(rpc, KeyValueDeliverer(connection, ttl))


def choose_chords(
    connection: Connection, backend: Connection | None, *, ttl: float
) -> Chords | None:
    """Return where a worker on ``connection`` counts the parts of chords; None: nowhere.

    In ``backend`` if there is one, else in the broker if it has a key-value store.
    """
    store = connection if backend is None else backend
    return KeyValueChords(store, ttl) if store.features.key_value else None
