"""Consuming: a channel per subscription, deliveries to the consumer's thread.

A subscription is one consumer on one queue with a prefetch window of its own. What arrives waits in
the consumer's inbox; its token is (epoch, tag, note): the first two are explained in ``settling``,
the third is what ``copies`` notes about a message that waited or failed before.

When the broker ends one channel and not the connection (its ack timeout does that), the unsettled
deliveries are stale and the next ``receive`` subscribes again. It does so too when the broker
cancels the consumer, which from RabbitMQ 4.3 on may have the same reason; then the old channel
stays until what it delivered is settled. A consumer whose queue was deleted is cancelled too, and
``receive`` raises QueueNotFound once.

A quorum queue without a majority does not answer a subscription. Who subscribes to it for the first
time is told. After a reconnect, and in the place of a channel that ended, the subscription is left
as it is: it begins when the queue is there again, and holds up nothing else until then.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

from pika.exceptions import AMQPError, ChannelClosedByBroker, ChannelClosedByClient

from queue_core.errors import (
    ConnectTimeout,
    QueueCoreError,
    QueueNotFound,
    UsageError,
)
from queue_core.message import Delivery, Settlement
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.channel import Channel
from queue_core.transports.amqp.copies import NOTHING
from queue_core.transports.amqp.errors import why_ended
from queue_core.transports.amqp.io import Link, answer
from queue_core.transports.amqp.proof import needs_two, prove
from queue_core.transports.amqp.properties import READER
from queue_core.transports.amqp.settling import Settling
from queue_core.transports.amqp.subscription import Inbox, Subscription
from queue_core.transports.amqp.versions import cancel_means_deleted

logger = logging.getLogger(__name__)


class Consuming:
    """All subscriptions of a session. Methods block at most until their deadline."""

    def __init__(
        self, link: Link, settling: Settling, private: Callable[[str], bool], *, again: bool
    ) -> None:
        """Take what comes over ``link``, which is open; ``settling`` knows what is held.

        ``private(name)`` says whether a queue is this connection's alone and ends with it.
        ``again``: subscriptions come from an earlier session.
        """
        self._link = link
        self._settling = settling
        self._private = private
        self._again = again
        self._epochs = itertools.count(1)
        self._lock = threading.Lock()
        self._inboxes: dict[str, Inbox] = {}
        self._arrived: set[Inbox] = set()
        link.connection.after_read = self._after_read

    # subscriptions

    def subscribe(self, consumer: str, queue: str, prefetch: int, deadline: float) -> None:
        """Begin to take messages; see `Session.subscribe`. A repetition changes nothing."""
        if not 1 <= prefetch <= 65_535:
            raise UsageError(f"prefetch is a number from 1 to 65535, not {prefetch!r}")
        inbox = self._inbox(consumer)
        if inbox.stopped:
            raise UsageError(f"consumer {consumer!r} was stopped; cancel it first")
        present = inbox.subscriptions.get(queue)
        if present is not None and not present.over:
            if present.prefetch != prefetch:
                raise UsageError(
                    f"consumer {consumer!r} has queue {queue!r} with prefetch {present.prefetch}; "
                    "cancel it first"
                )
            return
        self._subscribe(inbox, queue, prefetch, deadline, present)

    def _subscribe(
        self,
        inbox: Inbox,
        queue: str,
        prefetch: int,
        deadline: float,
        former: Subscription | None,
    ) -> None:
        """Take ``former``'s place, unless another thread ends it or takes it meanwhile."""
        doing = f"subscribe to queue {queue!r}"
        subscription = Subscription(
            inbox, queue, prefetch, next(self._epochs), private=self._private(queue)
        )
        reader = frames.ContentReader(on_deliver=partial(self._on_deliver, subscription))
        channel = Channel.open(
            self._link,
            deadline,
            doing,
            reader=reader,
            on_closed=partial(self._on_closed, subscription),
        )
        subscription.channel = channel
        try:
            channel.rpc("basic_qos", deadline, doing, prefetch_count=prefetch)
            self._begin(subscription, deadline, doing, patient=self._again or former is not None)
        except BaseException:
            subscription.ended = True
            channel.close()
            raise
        with inbox.condition:
            over = inbox.cancelled or inbox.stopped
            wanted = not over and inbox.subscriptions.get(queue) is former
            if wanted:
                inbox.subscriptions[queue] = subscription
            if wanted and subscription.over:
                inbox.broken.append(subscription)
        if not wanted:
            channel.close()
        elif former is not None and not former.cancelled:
            former.channel.close()

    def _begin(
        self, subscription: Subscription, deadline: float, doing: str, *, patient: bool
    ) -> None:
        try:
            self._link.call(partial(self._consume, subscription), deadline, doing, "basic_consume")
        except ConnectTimeout:
            if not patient:
                raise
            logger.warning(
                "%s: no answer, though the broker has just answered on the same channel; has the "
                "queue lost its majority? Its messages come when it is there again",
                doing,
            )

    def _consume(self, subscription: Subscription, future: Future[Any]) -> None:
        channel = subscription.channel
        if channel.closed is None:
            self._settling.live[subscription.epoch] = subscription
            channel.raw.add_on_cancel_callback(partial(self._on_cancel, subscription))
        arguments = {
            "queue": subscription.queue,
            "on_message_callback": _ignore,
            "consumer_tag": subscription.tag,
        }
        channel.request("basic_consume", arguments, future)

    def cancel(self, consumer: str, queue: str | None, deadline: float) -> None:
        """End subscriptions; see `Session.cancel`."""
        inbox = self._inboxes.get(consumer)
        if inbox is None:
            return
        if queue is None:
            with self._lock:
                self._inboxes.pop(consumer, None)
        with inbox.condition:
            inbox.cancelled = inbox.cancelled or queue is None
            for name in list(inbox.subscriptions):
                if queue in (None, name):
                    del inbox.subscriptions[name]
            inbox.broken = deque(item for item in inbox.broken if queue not in (None, item.queue))
            inbox.woken = True
            inbox.condition.notify_all()
        self._link.call(partial(self._end, inbox, queue), deadline, f"cancel consumer {consumer!r}")

    def _end(self, inbox: Inbox, queue: str | None, future: Future[Any]) -> None:
        """In the I/O thread: settle what is recorded, then close the channels.

        That gives back what is unsettled. Those whose queue was deleted are among them.
        """
        self._settling.drain()
        ending = [
            item
            for item in self._settling.live.values()
            if item.inbox is inbox and queue in (None, item.queue) and item.channel.closed is None
        ]
        proved: Future[Any] = Future()
        proved.add_done_callback(lambda _: self._close_all(ending, future))
        prove([item for item in ending if needs_two(item)], proved)

    def _close_all(self, ending: Sequence[Subscription], future: Future[Any]) -> None:
        ending = [item for item in ending if item.channel.closed is None]
        left = len(ending)
        if not left:
            answer(future, None)

        def closed(raw: Any, reason: BaseException) -> None:
            nonlocal left
            left -= 1
            if not left:
                answer(future, None)

        for subscription in ending:
            subscription.ended = True
            self._settling.live.pop(subscription.epoch, None)
            subscription.inbox.drop(subscription.epoch)
            subscription.channel.raw.add_on_close_callback(closed)
            subscription.channel.close_now()

    # deliveries

    def receive(self, consumer: str, limit: int, wait: float, timeout: float) -> list[Delivery]:
        """Return what is there; see `Session.receive`.

        ``timeout`` bounds subscribing again after a channel's end.
        """
        inbox = self._inbox(consumer)
        deadline = monotonic() + wait
        with inbox.condition:
            while not (inbox.deliveries or inbox.broken or inbox.woken or self._settling.lost):
                left = deadline - monotonic()
                if left <= 0 or not inbox.condition.wait(left):
                    self._settling.write_what_waits()
                    break
            if inbox.stopped:
                return []
            inbox.woken = False
            # In turns: messages may never end, and what is broken may never be mended.
            inbox.mending = bool(inbox.broken) and not (inbox.mending and inbox.deliveries)
            broken = inbox.broken.popleft() if inbox.mending else None
            if broken is None and inbox.deliveries:
                count = min(limit, len(inbox.deliveries))
                return [inbox.deliveries.popleft() for _ in range(count)]
        if self._settling.lost is not None:
            raise self._settling.failure("receive")
        if broken is not None:
            self._subscribe_again(inbox, broken, monotonic() + timeout)
        return []

    def _subscribe_again(self, inbox: Inbox, broken: Subscription, deadline: float) -> None:
        queue = broken.queue
        if inbox.subscriptions.get(queue) is not broken:
            return  # somebody did it, or cancelled it
        try:
            if broken.gone:
                raise QueueNotFound("the broker had cancelled the consumer")
            self._subscribe(inbox, queue, broken.prefetch, deadline, broken)
        except QueueNotFound as error:
            with inbox.condition:
                inbox.subscriptions.pop(queue, None)
            raise QueueNotFound(
                f"queue {queue!r} was deleted; the subscription to it has ended", ended=queue
            ) from error
        except BaseException:  # the next receive tries again
            with inbox.condition:
                inbox.broken.append(broken)
            raise
        logger.warning("subscribed again to queue %r: %s", queue, broken.why)

    def stop(self, consumer: str) -> None:
        """Take nothing more, and give back what was not received; see `Session.stop`."""
        inbox = self._inboxes.get(consumer)
        if inbox is None:
            return
        with inbox.condition:
            inbox.stopped = inbox.woken = True
            inbox.condition.notify_all()
        with contextlib.suppress(QueueCoreError):
            self._link.submit(partial(self._stop, inbox))

    def _stop(self, inbox: Inbox) -> None:
        """In the I/O thread: end the broker's consumers; the channels stay for settlements."""
        for subscription in self._settling.live.values():
            channel = subscription.channel
            if subscription.inbox is inbox and not subscription.stopped and channel.closed is None:
                subscription.stopped = True
                if subscription.cancelled:
                    continue
                with contextlib.suppress(AMQPError):
                    channel.request("basic_cancel", {"consumer_tag": subscription.tag}, Future())
        with inbox.condition:
            rest, inbox.deliveries = inbox.deliveries, deque()
        self._settling.settle([Settlement(item, "requeue", counted=False) for item in rest])

    def wake(self, consumer: str) -> None:
        """End a ``receive`` early."""
        inbox = self._inbox(consumer)
        with inbox.condition:
            inbox.woken = True
            inbox.condition.notify_all()

    def _on_deliver(
        self,
        subscription: Subscription,
        tag: int,
        redelivered: bool,
        exchange: str,
        key: str,
        raw: bytes,
        body: bytes,
    ) -> None:
        if subscription.ended:
            return
        if subscription.stopped:
            self._link.connection.emit(frames.nack(subscription.channel.number, tag, requeue=True))
            return
        subscription.deliver(tag)
        inbox = subscription.inbox
        inbox.deliveries.append(
            Delivery(
                inbox.consumer,
                subscription.queue,
                exchange,
                key,
                body,
                raw,
                READER,
                (subscription.epoch, tag, NOTHING),
                0,
                redelivered,
            )
        )
        self._arrived.add(inbox)

    def _after_read(self) -> None:
        if self._arrived:
            arrived, self._arrived = self._arrived, set()
            for inbox in arrived:
                inbox.notify()

    def deleted(self, queue: str) -> None:
        """End the subscriptions to a queue that this session deleted; does not wait.

        The broker cancels them too, but not if a quorum queue is declared again at once: then a
        consumer is left that gets nothing [ran: RabbitMQ 3.10].
        """

        def cancelled() -> None:
            for subscription in list(self._settling.live.values()):
                if subscription.queue == queue:
                    self._cancelled(subscription, gone=True)

        with contextlib.suppress(QueueCoreError):
            self._link.submit(cancelled)

    def _on_cancel(self, subscription: Subscription, frame: Any) -> None:
        gone = cancel_means_deleted(self._link.connection.server_properties)
        self._cancelled(subscription, gone=gone)

    def _cancelled(self, subscription: Subscription, *, gone: bool) -> None:
        """Nothing more will come. What was delivered may still be settled."""
        if subscription.over:
            return
        self._settling.drain()  # what was settled does not keep the channel
        subscription.cancelled, subscription.gone = True, gone
        subscription.why = "the broker had cancelled it"
        self._note_broken(subscription)
        if not subscription.unsettled:
            subscription.channel.close_now()

    def _note_broken(self, subscription: Subscription) -> None:
        inbox = subscription.inbox
        with inbox.condition:
            if inbox.subscriptions.get(subscription.queue) is subscription:
                inbox.broken.append(subscription)
            inbox.condition.notify_all()

    def _on_closed(self, subscription: Subscription, reason: BaseException) -> None:
        """The channel is over: unsettled ones went back, what was sent without proof may have."""
        inbox = subscription.inbox
        self._settling.live.pop(subscription.epoch, None)
        unproved = subscription.unproved + len(subscription.acks) + len(subscription.others)
        subscription.acks, subscription.others = [], {}
        subscription.settlements_proved = subscription.settlements
        subscription.unsettled.clear()
        inbox.drop(subscription.epoch)
        if subscription.ended:
            return
        subscription.ended = True
        if isinstance(reason, ChannelClosedByClient):
            return
        if unproved:
            self._settling.note_stale(inbox.consumer, unproved)
        if isinstance(reason, ChannelClosedByBroker):
            subscription.why = why_ended(reason)
        if not subscription.cancelled:
            self._note_broken(subscription)

    # the end

    def lost(self, error: BaseException) -> None:
        """In the I/O thread: the connection is over, and so are all deliveries."""
        self._settling.give_up(error)
        with self._lock:
            inboxes = list(self._inboxes.values())
        for inbox in inboxes:
            with inbox.condition:
                inbox.deliveries.clear()
                inbox.condition.notify_all()

    def _inbox(self, consumer: str) -> Inbox:
        inbox = self._inboxes.get(consumer)
        if inbox is None:
            with self._lock:
                inbox = self._inboxes.setdefault(consumer, Inbox(consumer))
        return inbox


def _ignore(*arguments: Any) -> None:
    """Stand where pika wants a message callback; the reader takes deliveries before it."""
