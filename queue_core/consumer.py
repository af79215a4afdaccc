"""Consuming: take messages, hand them out one by one, settle them.

A consumer is used by one thread; its messages may be settled from any. The loop is: take what the
session has, decode, hand out. Settlements go to the session at once and travel with its next round
trip; `Consumer.flush` waits for them.

A message that cannot be decoded, or whose content type is not accepted, is never handed out and
never lost: `queue_core.aside` copies it to the dead letters of its queue. While that fails it comes
again and again, with a minute between, and keeps no other message from its turn.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from queue_core.arguments import check_kind, need_count, need_seconds
from queue_core.aside import set_aside
from queue_core.errors import (
    Closed,
    ConnectionLost,
    MessageError,
    QueueCoreError,
    QueueNotFound,
    SessionLost,
    StaleDelivery,
    TransportError,
)
from queue_core.message import Delivery, Message, Settlement
from queue_core.policy import Backoff, Deadline, is_retryable
from queue_core.process import process_id
from queue_core.recovery import Recovery
from queue_core.serialization import DEFAULT_CODECS, DEFAULT_LIMITS, Codecs, Limits
from queue_core.settling import UNCERTAIN, SessionSettler
from queue_core.topology import Queue, queue_name
from queue_core.transport import Session

logger = logging.getLogger(__name__)

MAX_PREFETCH = 65535
"""What AMQP has room for."""
MAX_WAIT = 2.0
"""Seconds that one `Session.receive` may wait: not every transport can be woken."""
_LOOK = 0.05
"""Seconds after which it looks again whether what it has fetched is certainly its own."""
SET_ASIDE_AGAIN = 60.0
"""Seconds until it is tried again to set aside what could not be."""
HANDLER_BACKOFF = Backoff(base=1.0, cap=60.0)


class Consumer:
    """Takes messages from one or more queues. Made by `Connection.consumer`; a context manager."""

    def __init__(
        self,
        recovery: Recovery,
        queues: Sequence[Queue | str],
        *,
        prefetch: int = 100,
        accept: Sequence[str] | None = None,
        decode: bool = True,
        codecs: Codecs = DEFAULT_CODECS,
        limits: Limits = DEFAULT_LIMITS,
        timeout: float = 10.0,
    ) -> None:
        """Keep the settings; the first `receive` (or ``with``) subscribes."""
        check_kind(
            "the first argument of Consumer()",
            recovery,
            Recovery,
            "for a connection to give; write connection.consumer(queue, ...)",
        )
        for queue in queues:
            check_kind("what consumer(*queues) takes", queue, Queue | str, "queues, or their names")
        need_count("prefetch", prefetch, 1, MAX_PREFETCH)
        self._recovery = recovery
        self._queues = {name: queue for queue in queues for name in [queue_name(queue)]}
        self._prefetch = prefetch
        self._accept = None if accept is None else codecs.accepting(accept)
        self._decode = decode
        self._codecs = codecs
        self._limits = limits
        self._timeout = timeout
        self._tag = f"c-{os.urandom(8).hex()}"
        self._buffer: deque[Delivery] = deque()
        self._settler: SessionSettler | None = None
        self._unflushed_lost = False
        self._started = 0
        self._stopping = threading.Event()
        self._closed = threading.Event()
        self.set_aside = 0
        """How many messages could not be decoded and were copied to a dead-letter queue."""

    # --- taking -----------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None, *, patience: float = 1.0) -> Message | None:
        """Return the next message, or None if none came within ``timeout`` seconds.

        Without a timeout it waits for ever. After `stop` it returns None at once. While the broker
        is away it goes on trying to reconnect within the same timeout. A broker that says nothing
        is given up ``patience`` seconds after the timeout; what it had handed out by then comes
        with the next receive.

        Raises:
            QueueNotFound: a queue that it consumes does not exist, or was deleted; a next call goes
                on with the others.
            Closed: the consumer or its connection is closed.
            ConnectionLost, AccessRefused: the first connection failed.
        """
        deadline: Deadline | None = None
        while True:
            if self._closed.is_set():
                raise Closed("the consumer is closed")
            while self._may_hand_out() and (delivery := self._next()) is not None:
                message = self._open_message(delivery)
                if message is not None:
                    return message
            if self._stopping.is_set():
                self._give_back()
                return None
            if deadline is None:  # what is at hand costs no look at the clock
                need_seconds("patience", patience, zero=True)
                deadline = Deadline.after(timeout, self._recovery.options.clock)
            elif deadline.expired:
                return None  # whether nothing came, or nothing that can be read
            self._fetch(deadline, patience)

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until `stop` or `close` is called, by this thread or another."""
        while not self._stopping.is_set():
            try:
                message = self.receive()
            except Closed:
                return
            if message is not None:
                yield message

    def run(self, handler: Callable[[Message], object]) -> None:
        """Call ``handler(message)`` for each message until `stop` or `close` is called.

        A message that the handler did not settle is acked after it.

        If the handler raises, the message goes back: counted and with a growing delay if its queue
        has ``max_deliveries``, so that a bad message ends as a dead letter; otherwise uncounted,
        the consumer closes and the error is raised. A message is never acked because of an error.
        One whose session ended meanwhile is delivered again, which is logged and no error.
        """
        for message in self:
            try:
                handler(message)
            except Exception as error:
                self._handler_failed(message, error)
            else:
                if not message.settled:
                    self._settle(message.ack)

    def start(self) -> None:
        """Subscribe now instead of at the first `receive`.

        May be called twice. Blocks at most the connection's timeout per queue. Raises what is wrong
        with the first queue that cannot be subscribed to, once all others are, and is then done
        with it; if there are no others, the next call tries again.
        """
        if self._closed.is_set():
            raise Closed("the consumer is closed")
        pid = process_id()
        if self._started != pid:  # not yet, or by the process that we were forked from
            failed = self._subscribe()
            if len(failed) < len(self._queues) or not failed:
                self._started = pid
                for name, error in failed.items():
                    logger.error("queue %s is not consumed: %s", name, error)
                    del self._queues[name]
            if self._closed.is_set():  # meanwhile, by a thread that could not know of it
                self._leave(self._timeout)
                raise Closed("the consumer was closed while it subscribed")
            if self._stopping.is_set():  # likewise
                self.stop()
            for error in failed.values():
                raise error

    def _subscribe(self) -> dict[str, QueueCoreError]:
        """Subscribe to each queue; return those where it failed, and waiting cannot help."""
        failed: dict[str, QueueCoreError] = {}
        for name in list(self._queues):
            try:
                self._recovery.subscribe(self._tag, name, self._prefetch, timeout=self._timeout)
            except QueueCoreError as error:
                if isinstance(error, Closed) or is_retryable(error):
                    raise
                failed[name] = error
        return failed

    def add_queue(self, queue: Queue | str) -> None:
        """Consume from one more queue. Raises QueueNotFound."""
        self._queues[queue_name(queue)] = queue
        if self._started:
            self._recovery.subscribe(
                self._tag, queue_name(queue), self._prefetch, timeout=self._timeout
            )

    def cancel_queue(self, queue: Queue | str) -> None:
        """Stop consuming from a queue.

        Its unsettled messages go back uncounted; settling them later has no effect, and `flush`
        says so.
        """
        name = queue_name(queue)
        self._queues.pop(name, None)
        self._recovery.unsubscribe(self._tag, name)
        self._buffer = deque(delivery for delivery in self._buffer if delivery.queue != name)
        session = self._recovery.session
        if session is not None:
            session.cancel(self._tag, name, timeout=self._timeout)

    # --- ending -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take nothing more: end `run`, iteration and `receive` after the message in hand.

        Messages that `receive` returned stay with the consumer, to be settled or, by `close`, given
        back. Those that it only had fetched go back to their queues at once, uncounted. From any
        thread, and from a handler; does not block, and may be called twice.
        """
        self._stopping.set()
        self._recovery.unsubscribe(self._tag, None)
        session = self._recovery.session
        if session is not None and self._started:
            session.stop(self._tag)
        self._give_back()

    def _give_back(self) -> None:
        """Return what was fetched and not handed out."""
        settler = self._settler
        while settler is not None and (delivery := self._next()) is not None:
            try:
                settler.settle(Settlement(delivery, "requeue", counted=False))
            except (Closed, StaleDelivery, TransportError) as error:
                logger.debug("a message was not given back, its session ended: %s", error)

    def _may_hand_out(self) -> bool:
        """Whether what was fetched is still ours; it is forgotten when it is another's for sure."""
        settler = self._settler
        if self._stopping.is_set() or settler is None:
            return False
        if not self._buffer or settler.holds:
            return True
        if settler.over:
            self._note_over(settler)
        return False

    def _next(self) -> Delivery | None:
        try:
            return self._buffer.popleft() if self._buffer else None
        except IndexError:
            return None  # `stop` took it, in another thread

    def flush(self, timeout: float | None = None) -> None:
        """Block until every ack, reject and requeue so far is certain.

        An acked message never comes again.

        Raises:
            StaleDelivery: some came too late; their messages were given to somebody else.
            ConnectTimeout: not within ``timeout`` seconds (the connection's timeout if None).
        """
        deadline = self._deadline(timeout)
        settler = self._settler
        if settler is not None and settler.over:
            self._note_over(settler)
        if self._unflushed_lost:
            self._unflushed_lost = False
            raise StaleDelivery(UNCERTAIN)
        if settler is not None and settler.unflushed:
            # Before the call: what another thread settles meanwhile is for the next flush.
            settler.unflushed = False
            try:
                self._recovery.call(
                    lambda session, left: settler.flush(session, self._tag, left),
                    timeout=deadline,
                )
            except StaleDelivery:
                raise
            except BaseException:  # Ctrl-C, say: the next flush must not take it for certain
                settler.unflushed = True
                raise

    def close(self, timeout: float | None = None) -> None:
        """Stop: settlements are sent, everything unsettled goes back uncounted.

        May be called twice, and from any thread.

        Blocks at most ``timeout`` seconds (the connection's if None); what the broker did not hear
        by then returns with the connection's end, or with its lease.
        """
        deadline = self._deadline(timeout)
        if self._closed.is_set():
            return
        self._closed.set()
        self._stopping.set()
        if self._started:
            self._leave(deadline.remaining())

    def _deadline(self, timeout: float | None) -> Deadline:
        seconds = self._timeout if timeout is None else timeout
        return Deadline.after(seconds, self._recovery.options.clock)

    def _leave(self, timeout: float) -> None:
        self._recovery.unsubscribe(self._tag, None)
        session = self._recovery.session
        if session is None:
            return
        session.wake(self._tag)
        if timeout <= 0:
            return
        try:
            session.cancel(self._tag, timeout=timeout)
        except QueueCoreError as error:
            logger.debug("cancelling consumer %s failed: %s", self._tag, error)

    def __enter__(self) -> Self:
        """Subscribe."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    # --- inside -----------------------------------------------------------------------------------

    def _fetch(self, deadline: Deadline, patience: float) -> None:
        """Ask the session once, within the deadline."""
        self.start()
        if (lost := self._recovery.take_lost(self._tag)) is not None:
            raise lost
        wait = _LOOK if self._buffer else MAX_WAIT
        try:
            batch = self._recovery.call(
                lambda session, left: self._take(session, min(wait, left), left + patience),
                timeout=deadline,
            )
        except QueueNotFound as error:
            if error.ended is not None:
                self._recovery.unsubscribe(self._tag, error.ended)
            raise
        except (ConnectionLost, SessionLost):
            if self._settler is None or deadline.remaining() > MAX_WAIT:
                raise
            return  # the deadline came before a new session; recovery has logged it
        self._buffer.extend(batch)

    def _take(self, session: Session, wait: float, timeout: float) -> Sequence[Delivery]:
        if self._settler is None or self._settler.session is not session:
            self._describe(session)
            if self._settler is not None:
                self._note_over(self._settler)
            self._settler = SessionSettler(self._recovery, session, self._timeout)
        return session.receive(self._tag, wait=wait, timeout=timeout)

    def _describe(self, session: Session) -> None:
        """Tell a session that cannot find out by itself how many deliveries its queues allow."""
        if session.features.attempts or not session.features.max_deliveries:
            return
        for queue in list(self._queues.values()):
            if isinstance(queue, Queue) and queue.max_deliveries:
                try:
                    session.declare(queue, passive=True, timeout=self._timeout)
                except QueueNotFound:
                    logger.debug("queue %s is gone; the subscription tells", queue.name)

    def _note_over(self, settler: SessionSettler) -> None:
        """The session ended: its messages are delivered again, to us or to others."""
        self._buffer.clear()
        self._unflushed_lost |= settler.unflushed
        settler.unflushed = False

    def _open_message(self, delivery: Delivery) -> Message | None:
        """Wrap a delivery, or set it aside and return None."""
        assert self._settler is not None, "deliveries come after the first fetch"
        message = Message(
            delivery, self._settler, accept=self._accept, codecs=self._codecs, limits=self._limits
        )
        if self._decode:
            try:
                message.payload  # noqa: B018 - decodes
            except MessageError as error:
                try:
                    self._set_aside(message, error)
                except StaleDelivery as stale:
                    logger.debug("a message that cannot be read comes again: %s", stale)
                except BaseException:
                    self._buffer.appendleft(delivery)  # it is tried again by the next receive
                    raise
                return None
        return message

    def _settle(self, how: Callable[[], object]) -> bool:
        """Settle a message, unless its session has ended: then it is delivered again."""
        try:
            how()
        except (Closed, SessionLost, StaleDelivery) as error:
            logger.warning("a message that was handled is delivered again: %s", error)
            return False
        return True

    def _handler_failed(self, message: Message, error: Exception) -> None:
        queue = self._queues.get(message.queue)
        if message.settled:
            pass
        elif isinstance(error, MessageError):
            self._settle(lambda: self._set_aside(message, error))
            return
        elif isinstance(queue, Queue) and queue.max_deliveries:
            delay = HANDLER_BACKOFF.delay(message.attempts) if self._can_delay() else 0.0
            logger.exception(
                "the handler of queue %s failed; delivery %d goes back for %.1f s",
                message.queue,
                message.attempts,
                delay,
            )
            self._settle(lambda: message.requeue(delay))
            return
        elif not self._settle(lambda: message.requeue(counted=False)) and isinstance(
            error, StaleDelivery
        ):
            return  # the handler settled it by itself, in vain
        self.close()
        raise error

    def _can_delay(self) -> bool:
        assert self._settler is not None, "a handler runs after the first fetch"
        return self._settler.session.features.delay

    def _set_aside(self, message: Message, error: MessageError) -> None:
        """Copy a message that nobody can read to where a person finds it; ack it in one step.

        If that is refused, or fails in some other way, it goes back for a while: the others must
        have their turn.
        """
        queue = self._queues.get(message.queue, message.queue)
        try:
            set_aside(self._recovery, message, queue, error, self._timeout)
        except (Closed, StaleDelivery):
            raise
        except QueueCoreError as failed:
            delay = SET_ASIDE_AGAIN if self._can_delay() else 0.0
            message.requeue(delay, counted=False)
            logger.error(
                "%r cannot be set aside, and goes back for %g seconds: %s", message, delay, failed
            )
        else:
            self.set_aside += 1
