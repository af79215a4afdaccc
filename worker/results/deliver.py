"""Which way results take, decided once per worker."""

from __future__ import annotations

from collections.abc import Sequence

from queue_core import Connection, Publication
from queue_core.worker.results.base import Deliverer, Reply
from queue_core.worker.results.chords import Chords, KeyValueChords
from queue_core.worker.results.key_value import KeyValueDeliverer
from queue_core.worker.results.options import ResultOptions
from queue_core.worker.results.rpc import RpcDeliverer


class _ByReplyTo:
    """To the queue that the message names, else into the broker's own key-value store."""

    def __init__(self, rpc: Deliverer, stored: Deliverer) -> None:
        self._rpc = rpc
        self._stored = stored

    def deliver(self, replies: Sequence[Reply]) -> list[Publication]:
        """Let each message decide."""
        sent = [reply for reply in replies if reply.message.properties.reply_to]
        stored = [reply for reply in replies if not reply.message.properties.reply_to]
        found = self._stored.deliver(stored) if stored else []
        return found + self._rpc.deliver(sent)

    def note(self, state: Reply) -> list[Publication]:
        """Let the message decide."""
        way = self._rpc if state.message.properties.reply_to else self._stored
        return way.note(state)


def choose_deliverer(
    connection: Connection, backend: Connection | None, *, rpc_only: bool, options: ResultOptions
) -> Deliverer:
    """Return how a worker on ``connection`` delivers results.

    Args:
        connection: to the broker.
        backend: where the app wants its results; None if it did not say.
        rpc_only: the app wants them by rpc.
        options: how they are kept.

    Raises:
        Unsupported: ``backend`` has no key-value store.
    """
    producer = connection.producer()
    if backend is not None:
        return KeyValueDeliverer(backend, producer, options)
    rpc = RpcDeliverer(producer)
    if rpc_only or not connection.features.key_value:
        return rpc
    return _ByReplyTo(rpc, KeyValueDeliverer(connection, producer, options))


def choose_chords(
    connection: Connection, backend: Connection | None, *, ttl: float | None
) -> Chords | None:
    """Return where a worker on ``connection`` counts the parts of chords; None: nowhere.

    In ``backend`` if there is one, else in the broker if it has a key-value store.
    """
    store = connection if backend is None else backend
    return KeyValueChords(store, ttl) if store.features.key_value else None
