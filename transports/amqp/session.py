"""The `Session` of the AMQP transport: two connections, one for publishing, one for the rest.

An alarm of the broker (memory, disk) stops every connection that publishes; acks on another one go
on. The consuming connection is made by ``open``, the publishing one by the first publish.

The session is over when the consuming connection is: then all deliveries are back in their queues,
and ``closed`` is True. The loss of the publishing connection alone makes outstanding publications
unknown, and the next publish connects again. Whoever recovers opens a new session; nothing here
retries.

In a forked child the session is closed: the first call lets go of the inherited sockets and raises
ConnectionLost.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Literal

from msgspec.structs import replace

from queue_core.errors import (
    Closed,
    ConnectionLost,
    QueueNotFound,
    StaleDelivery,
    Unsupported,
)
from queue_core.message import Delivery, Publication, Settlement
from queue_core.process import process_id
from queue_core.topology import Binding, Entity, Queue
from queue_core.transport import Durability, Features, KeyValue, Outcome, QueueInfo, SessionOptions
from queue_core.transports.amqp.administration import Administration
from queue_core.transports.amqp.arrivals import Arrivals
from queue_core.transports.amqp.consuming import Consuming
from queue_core.transports.amqp.delaying import Delaying
from queue_core.transports.amqp.durability import of_broker, of_queue
from queue_core.transports.amqp.errors import translate
from queue_core.transports.amqp.io import Link
from queue_core.transports.amqp.options import Settings
from queue_core.transports.amqp.publishing import Publisher
from queue_core.transports.amqp.returning import Returning
from queue_core.transports.amqp.settling import Settling
from queue_core.transports.amqp.topology import FEATURES, need


class AmqpSession:
    """One connection's dealings with a RabbitMQ. Thread-safe; made by the transport's ``open``."""

    def __init__(self, settings: Settings, options: SessionOptions) -> None:
        """Connect; raises what `Transport.open` names."""
        self._pid = process_id()
        self._options = options
        self._closing = threading.Lock()
        self._closed = False
        self._lost: BaseException | None = None
        self._consuming: Consuming | None = None
        self._link = Link(settings, "consuming", on_lost=self._on_lost)
        self._publisher = Publisher(lambda: Link(settings, "publishing"))
        self._link.open(options.connect_timeout)
        self._administration = Administration(self._link, lambda: Link(settings, "asking"))
        self._settling = Settling(self._link)
        self._declared: dict[str, Queue] = {}
        self._consuming = Consuming(
            self._link, self._settling, self._is_private, again=options.again
        )
        self._delaying = Delaying(self._administration, self._declared, options.clock)
        self._returning = Returning(
            self._settling,
            self._delaying,
            self._publisher.publish,
            self._declared,
            user=settings.user,
            timeout=options.timeout,
        )
        self._arrivals = Arrivals(self._declared, self._delaying.now, self._returning.expired)
        if self._link.ended:
            self._consuming.lost(self._link.failure("open"))

    @property
    def closed(self) -> bool:
        """It was closed, its consuming connection is over, or this is a forked child."""
        return (
            self._closed or self._lost is not None or self._link.ended or process_id() != self._pid
        )

    @property
    def holds(self) -> bool:
        """See `Session.holds`."""
        return self._link.awake and not self.closed

    @property
    def features(self) -> Features:
        """What this transport can do."""
        return FEATURES

    # topology

    def declare(self, entity: Entity, *, passive: bool = False, timeout: float = 10.0) -> str:
        """Create an exchange, queue or binding unless it is there; see `Session.declare`.

        Of a queue that is declared, passively too, ``max_deliveries`` and dead-letter exchange are
        remembered: AMQP does not tell them.
        """
        self._enter("declare")
        name = self._administration.declare(entity, passive=passive, timeout=timeout)
        if isinstance(entity, Queue) and not passive:
            self._declared[name] = entity
        elif isinstance(entity, Queue) and entity.max_deliveries is not None:
            # Nobody checked its other arguments: it may refuse messages.
            self._declared.setdefault(name, replace(entity, overflow="reject-publish"))
        return name

    def delete(
        self,
        entity: Entity,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float = 10.0,
    ) -> bool:
        """Delete; for a binding True means that both ends exist, since AMQP does not tell more."""
        consuming = self._enter("delete")
        deadline = monotonic() + timeout
        existed = self._administration.delete(
            entity, if_unused=if_unused, if_empty=if_empty, timeout=timeout
        )
        if not isinstance(entity, Binding):
            kind: Literal["queue", "exchange"] = "queue"
            if isinstance(entity, Queue):
                self._declared.pop(entity.name, None)
                consuming.deleted(entity.name)
            else:
                kind = "exchange"
            self._delaying.deleted(kind, entity.name, deadline)
        return existed

    def inspect(self, queue: str, *, timeout: float = 10.0) -> QueueInfo:
        """Count ready messages and consumers; the broker does not tell about others."""
        self._enter("inspect")
        return self._administration.inspect(queue, timeout=timeout)

    def durability(self, queue: str = "") -> Durability:
        """Return what is known of the server, or of one queue; see `Detector.durability`.

        Without a queue it does not block; with one it makes a connection for the question.
        """
        self._enter("durability")
        broker = of_broker(self._link.connection.server_properties)
        if not queue:
            return broker
        kind = self._administration.kind_of(queue, timeout=self._options.timeout)
        return replace(of_queue(kind, queue), broker=broker.broker, notes=broker.notes)

    def purge(self, queue: str, *, timeout: float = 10.0) -> int:
        """Delete the messages that wait."""
        self._enter("purge")
        return self._administration.purge(queue, timeout=timeout)

    # publishing

    def publish(
        self,
        publications: Sequence[Publication],
        *,
        timeout: float = 10.0,
        transaction: object | None = None,
    ) -> Sequence[Outcome]:
        """Send all, wait for each one's confirm; see `Session.publish`.

        What is delayed is confirmed once the first level of the ladder has it. The first delayed
        message on a broker takes a third of a second more.
        """
        self._enter("publish")
        if transaction is not None:
            need("transactions")
        if any(publication.delay > 0 for publication in publications):
            return self._publish_delayed(publications, timeout)
        return self._publisher.publish(publications, timeout)

    def _publish_delayed(
        self, publications: Sequence[Publication], timeout: float
    ) -> Sequence[Outcome]:
        deadline = monotonic() + timeout
        found = self._delaying.sendable(publications, deadline)
        sendable = [item for item in found if isinstance(item, Publication)]
        try:
            outcomes = iter(self._publisher.publish(sendable, max(0.0, deadline - monotonic())))
        except QueueNotFound:
            self._delaying.forget()
            raise
        return [next(outcomes) if isinstance(item, Publication) else item for item in found]

    # consuming

    def subscribe(self, consumer: str, queue: str, *, prefetch: int, timeout: float = 10.0) -> None:
        """Begin to take messages, on a channel of its own."""
        self._enter("subscribe").subscribe(consumer, queue, prefetch, monotonic() + timeout)

    def cancel(self, consumer: str, queue: str | None = None, *, timeout: float = 10.0) -> None:
        """End subscriptions; unsettled deliveries are back in their queues when this returns."""
        consuming = self._enter("cancel")
        deadline = monotonic() + timeout
        self._returning.settle_down(monotonic() + timeout / 2, consumer)
        consuming.cancel(consumer, queue, deadline)

    def receive(
        self, consumer: str, *, limit: int = 1000, wait: float = 1.0, timeout: float = math.inf
    ) -> Sequence[Delivery]:
        """Return what is there for the consumer.

        ``attempts`` is told for queues with ``max_deliveries`` that this session declared, and
        counts failures (counted requeues), not crashes; elsewhere it is 0.
        """
        consuming = self._enter("receive")
        return self._arrivals.opened(
            consuming.receive(consumer, limit, wait, min(timeout, self._options.timeout))
        )

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Record what becomes of deliveries; it leaves within a few milliseconds.

        Acks from an exclusive queue leave when half the window is used, or a ``receive`` has waited
        for nothing; nobody can see the difference, but for the broker's count of unacked ones.

        What must be copied first (see ``returning``) takes the time of a publication. A delay is
        at most 2**32 milliseconds, some 49 days.
        """
        if process_id() != self._pid:
            self._enter("settle")
        if rest := self._returning.take(settlements):
            self._settling.settle(rest)

    def settle_then(
        self, delivery: Delivery, then: Sequence[Publication], *, timeout: float = 10.0
    ) -> Sequence[Outcome]:
        """Publish ``then``, wait for the confirms, then ack; blocks until both are certain."""
        self._enter("settle")
        deadline = monotonic() + timeout
        ids = tuple(publication.id for publication in then)
        tried = self._settling.tried(delivery)
        if tried == ids:  # they were confirmed then
            self._settling.settle_certainly(delivery, ids, deadline)
            return [Outcome("confirmed")] * len(then)
        if tried is None and (self._returning.has(delivery) or not self._settling.held(delivery)):
            raise StaleDelivery(
                f"the delivery from queue {delivery.queue!r} was settled or has gone back"
            )
        outcomes = self.publish(then, timeout=timeout)
        if all(outcome.status == "confirmed" for outcome in outcomes):
            self._settling.settle_certainly(delivery, ids, deadline)
        return outcomes

    def flush(self, consumer: str, *, timeout: float = 10.0) -> None:
        """Block until the broker has processed every settlement recorded for the consumer."""
        self._enter("flush")
        deadline = monotonic() + timeout
        try:
            self._returning.wait(consumer, deadline)
        finally:
            self._settling.flush(consumer, deadline)

    def stop(self, consumer: str) -> None:
        """Take nothing more for the consumer; what it has not received goes back."""
        if self._consuming is not None and process_id() == self._pid:
            self._consuming.stop(consumer)

    def wake(self, consumer: str) -> None:
        """End a ``receive`` of this consumer early."""
        if self._consuming is not None and process_id() == self._pid:
            self._consuming.wake(consumer)

    def key_value(self, *, timeout: float = 10.0) -> KeyValue:
        """Raise Unsupported: AMQP has no keys and values."""
        need("key_value")
        raise Unsupported("key_value", "amqp")

    # the end

    def close(self, *, timeout: float = 10.0) -> None:
        """Write recorded settlements, give the rest back, end connections and threads."""
        if process_id() != self._pid:
            self._abandon()
            return
        deadline = monotonic() + timeout
        with self._closing:
            if not self._closed:
                self._returning.settle_down(monotonic() + timeout / 2)
            self._closed = True
            self._returning.stop()
            if self._consuming is not None:
                self._settling.finish(monotonic() + min(timeout / 2, 1.0))
            closer = threading.Thread(
                target=self._publisher.close, args=(timeout,), name="queue-core-closing"
            )
            closer.start()
            self._link.close(timeout)
            closer.join(max(0.1, deadline - monotonic()))
            self._returning.close(max(0.1, deadline - monotonic()))

    def cut(self) -> None:
        """Drop both connections without a word, as the end of the process would; for tests."""
        self._link.cut()
        self._publisher.cut()

    def _enter(self, doing: str) -> Consuming:
        """Check that the session can be used, and return its consuming side."""
        if process_id() != self._pid:
            self._abandon()
            raise ConnectionLost(
                f"{doing}: the connection belongs to the parent process; open a new session"
            )
        if self._lost is not None:
            raise translate(self._lost, doing)
        if self._closed:
            raise Closed(f"{doing}: the session is closed")
        if self._link.ended:
            raise self._link.failure(doing)
        assert self._consuming is not None
        return self._consuming

    def _is_private(self, queue: str) -> bool:
        """Whether this connection alone can use the queue, which ends with it."""
        declared = self._declared.get(queue)
        return declared is not None and declared.exclusive

    def _abandon(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.abandon()
            self._publisher.abandon()

    def _on_lost(self, error: BaseException) -> None:
        if not self._closed:
            self._lost = error
        if self._consuming is not None:
            self._consuming.lost(error)
