"""A queue that one process alone takes from, as long as it lives, and that comes back when lost.

It belongs to its connection and goes with it: on RabbitMQ when the connection breaks, on stores
when the lease of its session ends. Whoever merely lost it (a machine that stood still for a while,
a broker that was started anew, somebody who deleted it) declares it again under the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from queue_core import Connection, Consumer, Exchange, Message, Queue, QueueNotFound, StaleDelivery

logger = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds that nobody waits for; to give up a broker that is only slow makes it slower."""

UNUSED: Final = 300.0
"""Seconds after which a queue that nobody uses goes, where it cannot belong to a connection."""


def private_queue(
    connection: Connection,
    name: str,
    *,
    exchange: Exchange | None = None,
    ttl: float | None = None,
    priorities: int | None = None,
) -> Queue:
    """Return a queue that only this connection consumes and that goes with it.

    Args:
        connection: connects, if it has not yet.
        name: the queue's name.
        exchange: what it is bound to, with an empty key; None is nothing.
        ttl: seconds that a message waits in it at most; None is as long as the queue lives.
        priorities: the highest that counts, where the broker knows any.
    """
    features = connection.connect().features
    return Queue(
        name,
        exchange=exchange,
        durable=False,
        exclusive=features.exclusive,
        expires=None if features.exclusive else UNUSED,
        message_ttl=ttl if features.message_ttl else None,
        max_priority=priorities if features.priority else None,
        queue_type="classic",
    )


class Inbox:
    """Takes from one queue. `receive` is for one thread at a time, the rest for any."""

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        *,
        prefetch: int,
        accept: Sequence[str] | None = None,
    ) -> None:
        """Declare the queue and subscribe. Blocks for some round trips.

        Args:
            connection: stays the caller's.
            queue: what to declare.
            prefetch: how many messages may be here at once.
            accept: the serializers that they may come in.

        Raises:
            AccessRefused, TopologyMismatch: another process has a queue of this name.
            TransportError: the broker is away, or refuses.
        """
        self._connection = connection
        self._lost = False
        self.queue = connection.declare(queue)
        self._consumer: Consumer = connection.consumer(
            self.queue, prefetch=prefetch, decode=False, accept=accept
        )
        self._consumer.start()

    def receive(self, timeout: float, *, patience: float = PATIENCE) -> Message | None:
        """Return the next message, undecoded and acked; None if none came in time, or after `stop`.

        A broker that stands still is given up ``patience`` seconds after that. A queue that is gone
        is declared again, and nothing is returned for now.

        Raises:
            AccessRefused, TopologyMismatch: meanwhile another process took its name.
            Closed: the connection, or this, was closed.
            QueueCoreError: the broker is away.
        """
        if self._lost:
            self._restore()  # which failed before: nobody says a second time that it is gone
        try:
            message = self._consumer.receive(timeout, patience=patience)
        except QueueNotFound:
            self._lost = True
            self._restore()
            return None
        if message is not None:
            try:
                message.ack()
            except StaleDelivery as error:
                logger.debug("a message of %s may come twice: %s", self.queue.name, error)
        return message

    def shed(self, limit: int) -> int:
        """Delete what waits if it is more than ``limit``; return how much. Blocks for round trips.

        Raises QueueCoreError.
        """
        if self._connection.inspect(self.queue).ready <= limit:
            return 0
        return self._connection.purge(self.queue)

    def _restore(self) -> None:
        self._connection.declare(self.queue)
        self._consumer.cancel_queue(self.queue)  # the subscription that has ended
        self._consumer.add_queue(self.queue)
        self._lost = False
        logger.warning("queue %s was lost, and is declared again", self.queue.name)

    def stop(self) -> None:
        """Let `receive` return, and take nothing more. Does not block."""
        self._consumer.stop()

    def close(self) -> None:
        """Take nothing more, and leave the queue to its connection. May be called twice."""
        self._consumer.close()

    def delete(self) -> None:
        """Close, and delete the queue. Blocks for round trips. Raises QueueCoreError."""
        self._consumer.close()
        self._connection.delete(self.queue)
