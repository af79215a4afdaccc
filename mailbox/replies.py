"""Where a process hears answers: one queue, whoever asks.

There is no thread for it, unless somebody starts one with `Replies.serve`. A caller that waits
takes answers from the queue for everybody; the others wait until their own arrived, or until it is
their turn to take. So an idle mailbox costs nothing, and a single caller gets its answer without
being woken by another thread.

The queue is declared by the first call of a process, and again after a fork: each process has its
own queue, and locks that nobody else ever held. An answer whose ticket nobody waits for is dropped
and counted: it came late, or somebody guesses.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from queue_core import (
    Closed,
    Connection,
    ConnectTimeout,
    Deadline,
    Message,
    MessageError,
    PerProcess,
    Queue,
    QueueCoreError,
    SystemClock,
    process_id,
)
from queue_core.mailbox.inbox import PATIENCE, Inbox
from queue_core.mailbox.serving import serve
from queue_core.mailbox.wire import Malformed

logger = logging.getLogger(__name__)

R = TypeVar("R")

PREFETCH: Final = 50
"""How many answers may be here at once. Strangers decide how large they are."""
_TURN: Final = 0.25
"""Seconds after which a waiting caller looks whether nobody takes answers any more."""
_GRACE: Final = 0.1
"""Seconds after a deadline in which a broker still can say that there was nothing."""
_POLL: Final = 4.0
"""Seconds of one wait for answers: two of those that a broker lets last."""


class Ticket(Generic[R]):
    """The answers that came for one question, and were not looked at yet.

    Whoever waits keeps it: when it is dropped, so are its answers.
    """

    __slots__ = ("__weakref__", "arrived", "late", "name", "open", "wakes")

    def __init__(self, name: str) -> None:
        """Nothing arrived yet."""
        self.name = name
        self.open = True
        self.arrived: deque[R] = deque()
        self.late = 0
        self.wakes: list[Callable[[], None]] = []


class _Own(Generic[R]):
    """What one process has: made by it, so that no lock is held by a thread of its parent's."""

    def __init__(self) -> None:
        self.opening = threading.Lock()
        self.turn = threading.Condition(threading.Lock())
        self.taking = False
        self.tickets: weakref.WeakValueDictionary[str, Ticket[R]] = weakref.WeakValueDictionary()
        self.inbox: Inbox | None = None


class Replies(Generic[R]):
    """This process's reply queue. Thread-safe."""

    def __init__(
        self,
        connection: Connection,
        queue: Callable[[str], Queue],
        *,
        ticket: Callable[[Message], object],
        read: Callable[[Message], R | None],
        accept: Sequence[str] | None = None,
        prefetch: int = PREFETCH,
    ) -> None:
        """Declare nothing yet.

        Args:
            connection: stays the caller's.
            queue: describes a process's queue, given a word that no other process has.
            ticket: finds in a message what it answers, without decoding its body.
            read: returns what a message says, or None if that is nothing to wait for; raises
                Malformed or MessageError.
            accept: the serializers that answers may come in; None is the safe ones.
            prefetch: how many answers may be here at once.
        """
        self._connection = connection
        self._describe = queue
        self._ticket = ticket
        self._read = read
        self._accept = accept
        self._prefetch = prefetch
        self._own: PerProcess[_Own[R]] = PerProcess(_Own)
        self.dropped = 0
        """How many answers nobody waited for."""
        self.malformed = 0
        """How many messages in the reply queue were no answers."""

    @property
    def queue(self) -> str:
        """The name of this process's reply queue; empty before the first call."""
        inbox = self._own.get().inbox
        return "" if inbox is None else inbox.queue.name

    def open(self, deadline: Deadline) -> Queue:
        """Return the queue of this process; the first call declares it and subscribes.

        Blocks for some round trips the first time.

        Raises:
            ConnectTimeout: another thread is declaring it, and is not done by the deadline.
            TransportError: the broker is away, or refuses.
        """
        own = self._own.get()
        inbox = own.inbox
        if inbox is not None:
            return inbox.queue
        if not own.opening.acquire(timeout=min(deadline.remaining(), threading.TIMEOUT_MAX)):
            raise ConnectTimeout("the reply queue was not declared in time")
        try:
            if own.inbox is None:
                self._connection.connect(deadline.remaining())
                queue = self._describe(f"{process_id()}.{os.urandom(8).hex()}")
                own.inbox = Inbox(
                    self._connection, queue, prefetch=self._prefetch, accept=self._accept
                )
            return own.inbox.queue
        finally:
            own.opening.release()

    def expect(self, name: str) -> Ticket[R]:
        """From now on keep the answers to this ticket, as long as what is returned is kept.

        All who expect the first answer to one name get the same ticket.
        """
        own = self._own.get()
        with own.turn:
            ticket = own.tickets.get(name)
            if ticket is None or ticket.arrived or not ticket.open:
                ticket = own.tickets[name] = Ticket(name)
        return ticket

    def find(self, name: str) -> Ticket[R] | None:
        """Return the ticket of this name if somebody in this process keeps it."""
        own = self._own.get()
        with own.turn:
            return own.tickets.get(name)

    def forget(self, ticket: Ticket[R]) -> None:
        """Answers to this ticket are dropped from now on, and counted as late."""
        ticket.open = False

    def next(self, ticket: Ticket[R], deadline: Deadline, last: Deadline | None = None) -> R | None:
        """Return the next answer to this ticket, or None at the deadline; see `wait`."""
        return ticket.arrived.popleft() if self.wait(ticket, deadline, last) else None

    def wait(self, ticket: Ticket[R], deadline: Deadline, last: Deadline | None = None) -> bool:
        """Block until an answer to this ticket is there, or the deadline; return which it was.

        When the deadline is over already it looks once, unless another thread is looking. While the
        broker is away it goes on trying within the deadline. A broker that says nothing is given up
        a tenth of a second after ``last``, or after ``deadline`` if that is None.

        Raises:
            Closed: the connection was closed.
        """
        own, looked = self._own.get(), False
        while not ticket.arrived:
            with own.turn:
                if ticket.arrived:
                    return True
                if deadline.expired and (looked or own.taking):
                    return False
                if own.taking:
                    own.turn.wait(deadline.bound(_TURN))
                    continue
                own.taking = looked = True
            try:
                longer = 0.0 if last is None else last.remaining() - deadline.remaining()
                self._take(own, deadline, _GRACE + max(0.0, longer))
            finally:
                with own.turn:
                    own.taking = False
                    own.turn.notify_all()
        return True

    def attend(self, ticket: Ticket[R], wake: Callable[[], None]) -> bool:
        """Have ``wake`` called, once, when the next answer is there; return whether one is already.

        It is called on the thread that took the answer, which somebody must do: `serve`.
        """
        with self._own.get().turn:
            if not ticket.arrived and wake not in ticket.wakes:
                ticket.wakes.append(wake)
            return bool(ticket.arrived)

    def serve(self, stopping: threading.Event) -> None:
        """Take answers for everybody until told to stop; for a thread of its own.

        So what nobody waits for is dropped soon, and does not pile up at the broker.
        """
        own = self._own.get()
        with own.turn:
            own.turn.wait_for(lambda: not own.taking)
            own.taking = True

        def step() -> None:
            self._take(own, Deadline.after(_POLL, SystemClock()), PATIENCE)
            with own.turn:
                own.turn.notify_all()

        try:
            serve(step, stopping, "answers cannot be received")
        finally:
            with own.turn:
                own.taking = False
                own.turn.notify_all()

    def _take(self, own: _Own[R], deadline: Deadline, patience: float) -> None:
        """Take one answer, for whomever it is."""
        if own.inbox is None:
            raise Closed("answers are not heard any more")
        message = own.inbox.receive(deadline.remaining(), patience=patience)
        if message is None:
            return
        try:
            ticket = self._find(own, self._ticket(message))
            if ticket is not None and (answer := self._read(message)) is not None:
                with own.turn:
                    ticket.arrived.append(answer)
                    wakes, ticket.wakes = ticket.wakes, []
                for wake in wakes:
                    wake()
        except (Malformed, MessageError) as reason:
            self.malformed += 1
            logger.warning("a message in %s is no answer: %s", message.queue, reason)

    def _find(self, own: _Own[R], name: object) -> Ticket[R] | None:
        """Return the ticket that somebody waits for; a body for nobody is not even decoded."""
        with own.turn:
            ticket = own.tickets.get(name) if isinstance(name, str) else None
        if ticket is not None and ticket.open:
            return ticket
        self.dropped += 1
        if ticket is not None:
            ticket.late += 1
        return None

    def close(self) -> None:
        """Delete the queue. Blocks at most some seconds if the broker is away."""
        own = self._own.take()
        if own is None or own.inbox is None:
            return
        try:
            own.inbox.delete()
        except QueueCoreError as error:
            name = own.inbox.queue.name
            logger.debug("the reply queue %s is left to its expiry: %s", name, error)
