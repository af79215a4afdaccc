"""From outcomes to settlements: the one place where the worker acks, gives back and gives up.

- A result is certain before its message is acked: stored before, or sent in the same step.
- A message that can never run (unknown task, unreadable body, a third crash) is copied to the dead
  letters of its queue, or to ``<queue>.dlq``, with the reason in the header ``qc-error``, and acked
  in the same step. Whoever waits for it gets a failure.
- While the broker or the result store is away, messages wait here with what became of them; what
  cannot be settled for another reason is delivered again. No message is kept for ever.
- What was not started goes back uncounted; what was cut off in the middle goes back counted.

Settling may block for round trips, so it happens on a few threads of its own and neither the pool
nor the consumer waits for it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from queue_core import (
    Backoff,
    Connection,
    DecodeError,
    Message,
    Properties,
    Publication,
    PublishError,
    Queue,
    QueueCoreError,
    StaleDelivery,
    TopologyMismatch,
    TransportError,
)
from queue_core.worker.outcome import Abandoned, Crashed, Done, Failed, Outcome, Rejected, Returned
from queue_core.worker.protocol import Failure
from queue_core.worker.results.base import Deliverer
from queue_core.worker.trace import failure_reply

logger = logging.getLogger(__name__)

THREADS = 4
MAX_CRASHES = 3
CRASHES_HEADER = "qc-crashes"
ERROR_HEADER = "qc-error"
QUEUE_HEADER = "qc-queue"
_PATIENCE = Backoff(base=0.2, cap=5.0)
_TRIES = 8
_FINISH = 15.0
_RETURN_DELAY = 30.0


class Settler:
    """Settles messages according to outcomes. Thread-safe; owns `THREADS` threads until `close`."""

    def __init__(
        self, connection: Connection, deliverer: Deliverer, queues: Mapping[str, Queue]
    ) -> None:
        """``queues`` tells where the dead letters of each queue go; it may be replaced later."""
        self._connection = connection
        self._producer = connection.producer()
        self._deliverer = deliverer
        self.queues = queues
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="settler")
        self._closing = threading.Event()
        self._away = False  # the last try found nobody
        self._settling: set[Message] = set()
        self.counts: Counter[str] = Counter()

    @property
    def idle(self) -> bool:
        """Whether everything that was to be settled is."""
        return not self._settling

    @property
    def can_delay(self) -> bool:
        """Whether the broker can hold a message back."""
        return self._connection.features.delay

    def settle(self, message: Message, outcome: Outcome) -> None:
        """Settle now if that cannot block, else soon. Never raises."""
        self.counts[type(outcome).__name__.lower()] += 1
        self._settling.add(message)
        if isinstance(outcome, Returned | Abandoned):
            self._apply(message, outcome)
        else:
            self._threads.submit(self._apply, message, outcome)

    def close(self, *, patient: bool = True) -> None:
        """Finish what was begun; what finds the broker away goes back with the consumer's end.

        It is waited for some seconds; not at all if not ``patient``.
        """
        limit = threading.Timer(_FINISH if patient else 0.0, self._closing.set)
        limit.daemon = True
        limit.start()
        self._threads.shutdown(wait=True)
        limit.cancel()

    def _apply(self, message: Message, outcome: Outcome) -> None:
        try:
            self._try(message, outcome)
        finally:
            self._settling.discard(message)

    def _try(self, message: Message, outcome: Outcome) -> None:
        for attempt in itertools.count():
            last = attempt >= _TRIES - 1
            if self._closing.is_set() and self._away:
                logger.error("%s stays unsettled and is delivered again", _label(message))
                return
            try:
                self._step(message, outcome, last=last)
                self._away = False
                return
            except StaleDelivery as error:
                logger.warning("%s: what it did may be done twice: %s", _label(message), error)
                return
            except Exception as error:
                self._away = isinstance(error, TransportError) and error.retryable
                if last and not self._away:
                    logger.exception("%s cannot be settled and is delivered again", _label(message))
                    _put_back(message, _RETURN_DELAY if self.can_delay else 0.0)
                    return
                level = logging.WARNING if attempt == _TRIES - 1 else logging.DEBUG
                logger.log(level, "settling %s is tried again: %s", _label(message), error)
                self._closing.wait(_PATIENCE.delay(attempt))

    def _step(self, message: Message, outcome: Outcome, *, last: bool) -> None:
        """Settle one message by one outcome, once."""
        if isinstance(outcome, Done | Failed):
            try:
                message.ack(then=self._reply(message, outcome.reply))
            except PublishError as error:
                if not last:
                    raise
                logger.error("the result of %s cannot be sent: %s", _label(message), error)
                message.ack()
        elif isinstance(outcome, Rejected):
            logger.error("%s is given up: %s", _label(message), outcome.reason)
            self._give_up(message, outcome.reason, outcome.reply)
        elif isinstance(outcome, Crashed):
            self._crashed(message, outcome.how)
        else:  # what was cut off in the middle did begin, and the next run shall know
            message.requeue(counted=isinstance(outcome, Abandoned))

    def _reply(self, message: Message, reply: bytes | None) -> Sequence[Publication]:
        """Make the result certain, or return what the ack must send with it."""
        if reply is None or _properties(message).headers.get("ignore_result"):
            return ()
        return self._deliverer.deliver(message, task_id(message), reply)

    def _crashed(self, message: Message, how: str) -> None:
        """A child died while it ran this message: once more, unless it did so too often."""
        counted = self._connection.features.attempts
        known = message.headers.get(CRASHES_HEADER)
        crashes = message.attempts if counted else (known if isinstance(known, int) else 0) + 1
        if crashes >= MAX_CRASHES:
            reason = f"crash loop: the process that ran it died {crashes} times ({how})"
            logger.error("%s is given up: %s", _label(message), reason)
            what = Failure("WorkerLost", __name__, [reason])
            reply = failure_reply(task_id(message), task_name(message), what)
            self._give_up(message, reason, reply)
            return
        logger.warning("%s goes back: the process that ran it died (%s)", _label(message), how)
        if counted:
            message.requeue()
        else:
            again = self._copy(message, "", message.queue, {CRASHES_HEADER: crashes})
            message.ack(then=[again])

    def _give_up(self, message: Message, reason: str, reply: bytes | None) -> None:
        headers = {ERROR_HEADER: reason[:1000], QUEUE_HEADER: message.queue}
        queue = self.queues.get(message.queue)
        target = None if queue is None else queue.dead_letter_target
        if queue is not None and target is not None:
            key = queue.dead_letter_routing_key
            key = message.routing_key if key is None else key
            dead = self._copy(message, target, key, headers)
        else:
            name = f"{message.queue[:250]}.dlq"
            with contextlib.suppress(TopologyMismatch):  # it is there, and used as it is
                self._connection.declare(Queue(name))
            dead = self._copy(message, "", name, headers)
        message.ack(then=[*self._reply(message, reply), dead])

    def _copy(
        self, message: Message, exchange: str, key: str, headers: Mapping[str, object]
    ) -> Publication:
        properties = _properties(message)
        return self._producer.prepare(
            message.body,
            key,
            exchange=exchange,
            headers={**properties.headers, **headers},
            priority=properties.priority,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            message_id=properties.message_id,
            type=properties.type,
            app_id=properties.app_id,
            content_type=properties.content_type or "application/octet-stream",
            content_encoding=properties.content_encoding,
        )


def _put_back(message: Message, delay: float) -> None:
    try:
        message.requeue(delay)
    except QueueCoreError as error:
        logger.debug("%s went back by itself: %s", _label(message), error)


def _properties(message: Message) -> Properties:
    """Return the properties, or empty ones if they are damaged: a message is kept all the same."""
    try:
        return message.properties
    except DecodeError:
        return Properties()


def task_id(message: Message) -> str:
    """Return the id of the task that the message asks for, or an empty string."""
    properties = _properties(message)
    known = properties.headers.get("id")
    return known if isinstance(known, str) else properties.correlation_id or ""


def task_name(message: Message) -> str:
    """Return the name of the task that the message asks for, or an empty string."""
    known = _properties(message).headers.get("task")
    return known if isinstance(known, str) else ""


def _label(message: Message) -> str:
    return f"{task_name(message) or 'message'} {task_id(message)[:8]} from {message.queue}"
