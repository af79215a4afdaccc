"""Deliveries as the consumer shall see them: copies as they were published, failures as attempts.

Runs in the consumer's thread. Property bytes that hold no copy's mark stay undecoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from queue_core.errors import DecodeError, UsageError
from queue_core.message import Delivery
from queue_core.topology import Queue
from queue_core.transports.amqp.copies import MARK, Note, restored
from queue_core.transports.amqp.properties import decode_properties, encode_properties


class Arrivals:
    """What is done to each delivery on its way up."""

    def __init__(
        self,
        known: Mapping[str, Queue],
        now: Callable[[], int],
        expired: Callable[[Delivery], None],
    ) -> None:
        """Keep the queues that this session declared, the clock, and who gets what is too late.

        ``now()`` is in milliseconds since 1970.
        """
        self._known = known
        self._now = now
        self._expired = expired

    def opened(self, found: Sequence[Delivery]) -> Sequence[Delivery]:
        """Restore copies, tell attempts where they are counted, leave out what has expired."""
        # The search for one byte is ten times faster, and mostly enough.
        first = MARK[:1]
        marked = [item for item in found if first in item.raw and MARK in item.raw]
        if not marked and not self._limited():
            return found
        for delivery in marked:
            self._restore(delivery)
        kept = []
        for delivery in found:
            note: Note = delivery.token[2]
            if note.deadline is not None and note.deadline <= self._now():
                self._expired(delivery)
                continue
            queue = self._known.get(delivery.queue)
            if queue is not None and queue.max_deliveries is not None:
                delivery.attempts = note.deliveries + 1
            kept.append(delivery)
        return kept

    def _limited(self) -> bool:
        return any(queue.max_deliveries is not None for queue in list(self._known.values()))

    def _restore(self, delivery: Delivery) -> None:
        try:
            properties, exchange, note = restored(
                decode_properties(delivery.raw), delivery.exchange
            )
            raw = encode_properties(properties)
        except (DecodeError, UsageError):
            return  # bytes that nobody can read are for whoever asks for them
        epoch, tag, _ = delivery.token
        delivery.raw, delivery.exchange, delivery.token = raw, exchange, (epoch, tag, note)
        delivery.redelivered = delivery.redelivered or note.deliveries > 0
