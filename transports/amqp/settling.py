"""Settling: acks and returns of a session's deliveries, coalesced, fenced, and proved on demand.

Settlements are recorded in a deque and written by the I/O thread, all that are there in one send.
Acks up to the lowest unsettled tag leave as one frame with ``multiple``; others one by one, so
that an ack never covers a message that is still being worked on. What is requeued leaves in the
order of delivery: a quorum queue puts returned messages before all others, but in the order in
which they come back.

Waking the I/O thread, a frame and a send are more work than a small message itself. The acks of a
private queue (exclusive: it ends with the connection) tell nobody anything but that there is room
in the window. So they wait until half the window is used, until a ``receive`` finds nothing in its
time, or until anything else is settled.

A channel's delivery tags are numbered from 1, so a token begins with (epoch, tag): the epoch names
one life of one subscription's channel, and a token of an older life is never sent to the broker (an
unknown tag would close the channel and give everybody's messages back). Such a settlement is
*stale*: it has no effect, is counted, and `Settling.flush` tells of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from queue_core.errors import ConnectionLost, QueueCoreError, StaleDelivery, counted
from queue_core.message import Delivery, Settlement, Token
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.errors import translate
from queue_core.transports.amqp.io import Link
from queue_core.transports.amqp.proof import needs_two, prove
from queue_core.transports.amqp.subscription import Subscription


class Settling:
    """The settlements of a session. Methods block at most until their deadline.

    Attributes:
        live: the subscriptions whose channels are open, by epoch; it belongs to the I/O thread.
        lost: why the connection is over, or None.
    """

    def __init__(self, link: Link) -> None:
        """Begin without subscriptions."""
        self.live: dict[int, Subscription] = {}
        self.lost: BaseException | None = None
        self._link = link
        self._lock = threading.Lock()
        self._outbox: deque[Settlement] = deque()
        self._scheduled = False
        self._stale: Counter[str] = Counter()
        # Acked, but not for certain yet, with the ids of what was published with it.
        self._tried: dict[Token, tuple[str, ...]] = {}

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Record settlements; does not block."""
        self._outbox.extend(settlements)
        if not self._scheduled and not all(map(self._may_wait, settlements)):
            self._write_soon()

    def write_what_waits(self) -> None:
        """Have the acks written that wait for more; does not block."""
        if self._outbox and not self._scheduled:
            self._write_soon()

    def _may_wait(self, settlement: Settlement) -> bool:
        """Whether it does no harm to write a settlement together with later ones.

        A message of a private queue is not delivered again to anybody, acked or not: the queue
        ends with this connection. So its ack only has to make room in the window.
        """
        subscription = self.live.get(settlement.delivery.token[0])
        return (
            subscription is not None
            and subscription.private
            and settlement.action == "ack"
            and 2 * len(self._outbox) < subscription.prefetch
        )

    def _write_soon(self) -> None:
        self._scheduled = True
        try:
            self._link.submit(self.drain)
        except QueueCoreError:
            self._scheduled = False
            self._count_rest()
        except BaseException:  # Ctrl-C, say: the next one must not rely on this wake-up
            self._scheduled = False
            raise

    def held(self, delivery: Delivery) -> bool:
        """Whether the delivery can still be settled, as far as is known here."""
        epoch, tag, _ = delivery.token
        subscription = self.live.get(epoch)
        return subscription is not None and tag in subscription.unsettled

    def tried(self, delivery: Delivery) -> tuple[str, ...] | None:
        """Return the ids with which `settle_certainly` has failed to become certain of it.

        None if it has not been called; else it may be called again.
        """
        return self._tried.get(delivery.token)

    def note_stale(self, consumer: str, count: int = 1) -> None:
        """Let the next ``flush`` tell of settlements that had no effect."""
        with self._lock:
            self._stale[consumer] += count

    def drain(self) -> None:
        """In the I/O thread: write everything that is recorded."""
        self._scheduled = False
        touched: set[Subscription] = set()
        outbox, live = self._outbox, self.live
        while outbox:
            settlement = outbox.popleft()
            epoch, tag, _ = settlement.delivery.token
            subscription = live.get(epoch)
            if subscription is None or tag not in subscription.unsettled:
                self.note_stale(settlement.delivery.consumer)
                continue
            subscription.unsettled.discard(tag)
            touched.add(subscription)
            if settlement.action == "ack":
                subscription.acks.append(tag)
            else:
                frame = _returned(subscription.channel.number, tag, settlement)
                subscription.others[tag] = frame
        connection = self._link.connection
        for subscription in touched:
            if subscription.channel.closed is None:
                connection.emit(subscription.written())
                if subscription.cancelled and not subscription.unsettled:
                    subscription.channel.close_now()

    def settle_certainly(self, delivery: Delivery, ids: tuple[str, ...], deadline: float) -> None:
        """Ack one delivery and wait until that is certain; raise StaleDelivery if it is not.

        ``ids`` are those of what was published with it. After a TransportError it may be called
        again.
        """
        if self.tried(delivery) is None:
            self.settle([Settlement(delivery)])
        self._tried[delivery.token] = ids
        self._wait_proved(delivery.consumer, deadline)
        self._tried.pop(delivery.token, None)
        if delivery.token[0] not in self.live:
            raise StaleDelivery(
                f"the channel of the delivery from queue {delivery.queue!r} ended before its ack "
                "was certain; it may be delivered again"
            )

    def flush(self, consumer: str, deadline: float) -> None:
        """Prove that what was settled has reached the broker; see `Session.flush`."""
        self._wait_proved(consumer, deadline)
        with self._lock:
            stale = self._stale.pop(consumer, 0)
        if stale:
            raise StaleDelivery(
                f"{counted(stale, 'settlement')} of consumer {consumer!r} came too late: settled "
                "before, or the channel ended, and what it held went back to its queues"
            )

    def _wait_proved(self, consumer: str, deadline: float) -> None:
        if self.lost is not None:
            raise self.failure("flush")
        doing = f"flush the settlements of consumer {consumer!r}"
        self._link.call(partial(self._prove, consumer), deadline, doing)

    def _prove(self, consumer: str, future: Future[Any]) -> None:
        self.drain()
        live = self.live.values()
        prove([s for s in live if s.inbox.consumer == consumer and s.unproved], future)

    def finish(self, deadline: float) -> None:
        """Write what is recorded, and see it through where the end of a channel would undo it."""
        with contextlib.suppress(QueueCoreError):
            self._link.call(self._finish, deadline, "write settlements")

    def _finish(self, future: Future[Any]) -> None:
        self.drain()
        prove([s for s in self.live.values() if needs_two(s)], future)

    def give_up(self, error: BaseException) -> None:
        """In the I/O thread: the connection is over, and so are all deliveries."""
        self.lost = error
        self.live.clear()
        self._count_rest()

    def failure(self, doing: str) -> QueueCoreError:
        """Return the error for a call on a lost connection."""
        return translate(self.lost or ConnectionLost("the connection is over"), doing)

    def _count_rest(self) -> None:
        with contextlib.suppress(IndexError):  # at the end, or another thread took the last one
            while True:
                self.note_stale(self._outbox.popleft().delivery.consumer)


def _returned(channel: int, tag: int, settlement: Settlement) -> bytes:
    if settlement.action == "reject":
        return frames.reject(channel, tag, requeue=False)
    if settlement.counted:
        return frames.reject(channel, tag, requeue=True)
    return frames.nack(channel, tag, requeue=True)
