"""Where a process hears the answers to its commands: one queue, whoever asks.

There is no thread for it. A caller that waits takes replies from the queue for everybody; the
others wait until their own arrived, or until it is their turn to take. So an idle mailbox costs
nothing, and a single caller gets its answer without being woken by another thread.

The queue is declared by the first call of a process (and again after a fork) and belongs to its
connection alone: it goes with it, at the latest one lease after its process was killed. A reply
whose ticket nobody waits for is dropped and counted: it came late, or somebody guesses.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final

from queue_core import (
    Connection,
    Consumer,
    Deadline,
    Exchange,
    Message,
    MessageError,
    Queue,
    QueueCoreError,
)
from queue_core.mailbox.clock import LamportClock
from queue_core.mailbox.wire import Malformed, Reply, ReplyAddress, read_reply

logger = logging.getLogger(__name__)

PREFETCH: Final = 500
_TURN: Final = 0.25
"""Seconds after which a waiting caller looks whether nobody takes replies any more."""


def private_queue(
    connection: Connection, name: str, *, exchange: Exchange, routing_key: str = "", ttl: float
) -> Queue:
    """Return a queue that only this connection consumes and that goes with it.

    Args:
        connection: connects, if it has not yet.
        name: the queue's name.
        exchange, routing_key: of its binding.
        ttl: seconds that a message waits in it at most.
    """
    features = connection.connect().features
    return Queue(
        name,
        exchange=exchange,
        routing_key=routing_key,
        durable=False,
        exclusive=features.exclusive,
        expires=None if features.exclusive else ttl,
        message_ttl=ttl if features.message_ttl else None,
        queue_type="classic",
    )


class Ticket:
    """The replies that came for one command, and were not looked at yet."""

    __slots__ = ("__weakref__", "arrived", "late", "name")

    def __init__(self, name: str) -> None:
        """Nothing arrived yet."""
        self.name = name
        self.arrived: deque[Reply] = deque()
        self.late = 0


class Replies:
    """This process's reply queue. Thread-safe."""

    def __init__(
        self,
        connection: Connection,
        exchange: Exchange,
        name: str,
        clock: LamportClock,
        *,
        accept: Sequence[str],
        ttl: float,
    ) -> None:
        """Declare nothing yet.

        Args:
            connection: stays the caller's.
            exchange: where replies are published to.
            name: the end of the queue's name.
            clock: is adjusted by each reply.
            accept: the serializers that replies may come in.
            ttl: seconds that a reply waits at most.
        """
        self._connection = connection
        self._exchange = exchange
        self._name = name
        self._clock = clock
        self._accept = accept
        self._ttl = ttl
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._taking = False
        self._tickets: dict[str, Ticket] = {}
        self._past: weakref.WeakValueDictionary[str, Ticket] = weakref.WeakValueDictionary()
        self._pid = 0
        self._queue: Queue | None = None
        self._consumer: Consumer | None = None
        self._address = ReplyAddress("", "")
        self.dropped = 0
        """How many replies nobody waited for."""
        self.malformed = 0
        """How many messages in the reply queue were no replies."""

    @property
    def queue(self) -> str:
        """The name of this process's reply queue; empty before the first call."""
        queue = self._queue
        return queue.name if queue is not None and self._pid == os.getpid() else ""

    def address(self) -> ReplyAddress:
        """Return where replies reach this process; the first call declares the queue.

        Blocks for some round trips the first time. Raises what `Connection.declare` raises.
        """
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._open()
        return self._address

    def _open(self) -> None:
        """Declare the queue and subscribe; what was inherited through a fork is its parent's."""
        own = f"{os.getpid()}.{os.urandom(8).hex()}"
        queue = self._connection.declare(
            private_queue(
                self._connection,
                f"{own}.{self._name}",
                exchange=self._exchange,
                routing_key=own,
                ttl=self._ttl,
            )
        )
        self._consumer = self._connection.consumer(
            queue, prefetch=PREFETCH, decode=False, accept=self._accept
        )
        self._consumer.start()
        self._queue = queue
        self._address = ReplyAddress(self._exchange.name, own)
        self._tickets, self._taking, self._pid = {}, False, os.getpid()

    def expect(self, name: str) -> Ticket:
        """From now on keep the replies to this ticket."""
        ticket = Ticket(name)
        with self._lock:
            self._tickets[name] = ticket
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Replies to this ticket are dropped from now on."""
        with self._lock:
            self._tickets.pop(ticket.name, None)
            self._past[ticket.name] = ticket

    def next(self, ticket: Ticket, deadline: Deadline) -> Reply | None:
        """Return the next reply to this ticket, or None at the deadline.

        Blocks until one of both. While the broker is away it goes on trying within the deadline.

        Raises:
            Closed: the mailbox or its connection was closed.
        """
        while True:
            with self._lock:
                if ticket.arrived:
                    return ticket.arrived.popleft()
                if self._taking:
                    if deadline.expired:
                        return None
                    self._turn.wait(deadline.bound(_TURN))
                    continue
                if deadline.expired:
                    return None
                self._taking = True
            try:
                self._take(deadline)
            finally:
                with self._lock:
                    self._taking = False
                    self._turn.notify_all()

    def _take(self, deadline: Deadline) -> None:
        """Take one reply, for whomever it is."""
        assert self._consumer is not None, "address() was asked before the command was sent"
        message = self._consumer.receive(timeout=deadline.remaining())
        if message is None:
            return
        message.ack()
        name = self._ticket_of(message)
        if name is None:
            return
        try:
            reply = read_reply(message)
        except Malformed as reason:
            self._note_malformed(message, str(reason))
            return
        self._clock.adjust(reply.clock)
        with self._lock:
            if (ticket := self._tickets.get(name)) is not None:
                ticket.arrived.append(reply)

    def _ticket_of(self, message: Message) -> str | None:
        """Return the ticket that somebody waits for; a body for nobody is not even decoded."""
        try:
            name = message.headers.get("ticket")
        except MessageError as error:
            self._note_malformed(message, str(error))
            return None
        with self._lock:
            if isinstance(name, str) and name in self._tickets:
                return name
            self.dropped += 1
            if isinstance(name, str) and (past := self._past.get(name)) is not None:
                past.late += 1
        return None

    def _note_malformed(self, message: Message, reason: str) -> None:
        self.malformed += 1
        logger.warning("a message in %s is no answer: %s", message.queue, reason)

    def close(self) -> None:
        """Delete the queue. Blocks at most some seconds if the broker is away."""
        with self._lock:
            consumer, self._consumer = self._consumer, None
            queue, self._queue = self._queue, None
            mine, self._pid = self._pid == os.getpid(), 0
        if consumer is None or queue is None or not mine:
            return
        consumer.close()
        try:
            self._connection.delete(queue)
        except QueueCoreError as error:
            logger.debug("the reply queue %s is left to its expiry: %s", queue.name, error)
