"""From outcomes to settlements: the one place where the worker acks, gives back and gives up.

- A result is certain before its message is acked: stored before, or sent in the same step.
- What follows a task - links, the next of its chain, its retry, its error links - is sent in one
  step with the ack: neither happens without the other.
- A task that did not fail by itself, since it was killed or not run at all, has error links and a
  chain too: they are read here, by the same rules, without running anything of the user's.
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
from datetime import UTC, datetime, timedelta

from queue_core import (
    Backoff,
    Connection,
    DecodeError,
    Message,
    MessageError,
    Properties,
    Publication,
    PublishError,
    Queue,
    QueueCoreError,
    StaleDelivery,
    TopologyMismatch,
    TransportError,
    decode,
)
from queue_core.worker.aftermath import (
    Aftermath,
    after_chord,
    after_failing,
    encode_failure,
    read_message,
)
from queue_core.worker.canvas import freeze, unfold
from queue_core.worker.composing import Composer
from queue_core.worker.failure import Failure
from queue_core.worker.following import children
from queue_core.worker.outcome import (
    Abandoned,
    ChordPart,
    Crashed,
    Done,
    Failed,
    Letter,
    Outcome,
    Rejected,
    Reply,
    Retried,
    Returned,
    Skipped,
    TimedOut,
)
from queue_core.worker.protocol import Call
from queue_core.worker.results.base import RESULT_ENCODING, RESULT_TYPE, Deliverer
from queue_core.worker.results.chords import Chords
from queue_core.worker.results.wire import read_result
from queue_core.worker.signature import as_signature

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
        self,
        connection: Connection,
        deliverer: Deliverer,
        queues: Mapping[str, Queue],
        *,
        composer: Composer,
        chords: Chords | None = None,
        accept: Sequence[str] = ("json", "msgpack"),
    ) -> None:
        """Nothing is settled yet.

        Args:
            connection, deliverer: to the broker, and where results go.
            queues: where the dead letters of each queue go; may be replaced later.
            composer: makes messages of what follows tasks.
            chords: counts their parts; None: nothing can.
            accept: the serializers of messages that may be decoded here.
        """
        self._connection = connection
        self._producer = connection.producer()
        self._deliverer = deliverer
        self.queues = queues
        self._composer = composer
        self._chords = chords
        self._accept = tuple(accept)
        self._declared: set[str] = set()
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
        if _only_acks(outcome) and not message.settled:
            try:
                message.ack()
                return
            except QueueCoreError as error:
                logger.debug("settling %s is tried again: %s", _label(message), error)
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
        if isinstance(outcome, Done):
            then = self._then(message, outcome.reply, outcome.letters)
            part = outcome.chord
            body = self._chord(message, part, outcome.reply)
            self._finish(message, then + body, keep=bool(outcome.letters or part), last=last)
            if body and part is not None and self._chords is not None:
                self._chords.forget(part)
        elif isinstance(outcome, Failed):
            after = Aftermath(outcome.letters, outcome.others, outcome.chord)
            then = self._then(message, outcome.reply, ())
            then += self._after(message, after, outcome.error)
            self._finish(message, then, keep=bool(after.letters or after.chord), last=last)
        elif isinstance(outcome, Retried):
            again = self._again(outcome)
            self._finish(message, self._then(message, outcome.reply, [again]), keep=True, last=last)
        elif isinstance(outcome, Skipped):
            then = self._never_ran(message, "TaskRevokedError", outcome.reason, skipped=True)
            self._finish(message, then, keep=True, last=last)
        elif isinstance(outcome, TimedOut):
            reason = f"the task ran for more than {outcome.seconds:g} s"
            then = self._never_ran(message, "TimeLimitExceeded", reason)
            self._finish(message, then, keep=True, last=last)
        elif isinstance(outcome, Rejected):
            self._rejected(message, outcome)
        elif isinstance(outcome, Crashed):
            self._crashed(message, outcome.how)
        elif isinstance(outcome, Abandoned):
            self._cut_off(message, "its worker had to end")
        else:
            self._give_back(message, counted=False)

    # --- what goes with the ack -------------------------------------------------------------------

    def _finish(self, message: Message, then: list[Publication], *, keep: bool, last: bool) -> None:
        """Ack, and send ``then`` in the same step; if it is no more than a result, without it."""
        try:
            self._ack(message, then)
        except PublishError as error:
            if keep or not last:
                raise
            logger.error("the result of %s cannot be sent: %s", _label(message), error)
            self._ack(message, ())

    def _ack(self, message: Message, then: Sequence[Publication]) -> None:
        """Ack and send in one step; only send what was acked before its run."""
        try:
            if not message.settled:
                message.ack(then=then)
            elif then:
                self._producer.publish_many(list(then))
        except PublishError:
            self._declared.clear()  # perhaps somebody deleted a queue
            raise

    def _give_back(self, message: Message, *, counted: bool) -> None:
        """Return the message to its queue; what was acked before its run is sent again."""
        if message.settled:
            self._ack(message, [self._copy(message, "", message.queue, {})])
        else:
            message.requeue(counted=counted)

    def _then(
        self, message: Message, reply: bytes | None, letters: Sequence[Letter]
    ) -> list[Publication]:
        """Make the result certain or send it too, and declare what the letters need."""
        then = list(self._deliverer.deliver(message, task_id(message), reply)) if reply else []
        for letter in letters:
            self._declare(letter.queue)
            then.append(letter.publication)
        return then

    def _declare(self, queue: Queue | None) -> None:
        if queue is None or queue.name in self._declared:
            return
        with contextlib.suppress(TopologyMismatch):  # it is there, and used as it is
            self._connection.declare(queue)
        self._declared.add(queue.name)

    def _again(self, outcome: Retried) -> Letter:
        """The retry; a broker that holds nothing back gets it at once, with its time in it."""
        letter = outcome.again
        publication = letter.publication
        if not self.can_delay and publication.delay:
            due = datetime.now(UTC) + timedelta(seconds=publication.delay)
            publication.properties.headers["eta"] = due.isoformat()
            publication.delay = 0.0
        return letter

    def _after(self, message: Message, after: Aftermath, error: str) -> list[Publication]:
        """What goes with the ack of a task that did not succeed."""
        then = self._then(message, None, after.letters)
        for reply in after.replies:
            then += self._deliverer.deliver(message, reply.task_id, reply.body)
        part = after.chord
        if part is not None and self._counted(message, part) and self._chords is not None:
            if self._chords.failed(part):
                failure = Failure("Exception", "", [error])
                body = after_chord(self._composer, part, failure, queue=message.queue)
                then += self._after(message, body, error)
        return then

    def _chord(self, message: Message, part: ChordPart | None, reply: bytes) -> list[Publication]:
        """Count a part that succeeded; the last one brings the body."""
        if part is None or not self._counted(message, part) or self._chords is None:
            return []
        replies = self._chords.succeeded(part, reply)
        if replies is None:
            return []
        if len(replies) < part.size:
            reason = f"the results of chord {part.group} have expired"
            after = after_chord(self._composer, part, Failure("ChordError", "", [reason]))
            return self._after(message, after, reason)
        values = [read_result(decode(body, RESULT_TYPE, RESULT_ENCODING)).value for body in replies]
        body, _ = freeze(as_signature(part.body))
        root = _properties(message).headers.get("root_id")
        parent = Call("", task_id(message), [], {}, root_id=root if isinstance(root, str) else None)
        tasks = children(unfold(body, [values]), parent)
        return self._then(message, None, [self._composer.compose(task) for task in tasks])

    def _counted(self, message: Message, part: ChordPart) -> bool:
        if self._chords is not None and part.size > 0 and 0 <= part.index < part.size:
            return True
        why = (
            "there is no store to count its parts in; give the app a backend="
            if self._chords is None
            else "its sender counts its parts elsewhere"
        )
        logger.error("the chord %s of %s cannot go on: %s", part.group, _label(message), why)
        return False

    # --- what did not run, or did not come back ---------------------------------------------------

    def _never_ran(
        self, message: Message, type_name: str, reason: str, *, skipped: bool = False
    ) -> list[Publication]:
        """Return results, error links and the like for a task that could not fail by itself."""
        failure = Failure(type_name, "celery.exceptions", [reason])
        properties = _properties(message)
        try:
            call = read_message(properties, message.body, self._accept)
        except MessageError:
            if not task_id(message):
                return []
            call = Call(task_name(message), task_id(message), [], {})
        reply = encode_failure(call, failure, status="REVOKED" if skipped else "FAILURE")
        after = after_failing(
            self._composer,
            call,
            failure,
            queue=message.queue,
            priority=properties.priority,
            errbacks=not skipped,
        )
        if not call.ignore_result:
            after.replies = [Reply(call.id, reply), *after.replies]
        return self._after(message, after, str(failure))

    def _rejected(self, message: Message, outcome: Rejected) -> None:
        if outcome.requeue:
            logger.warning("%s goes back, as it asked for: %s", _label(message), outcome.reason)
            self._give_back(message, counted=True)
            return
        logger.error("%s is given up: %s", _label(message), outcome.reason)
        self._give_up(message, outcome.type_name, outcome.reason)

    def _cut_off(self, message: Message, why: str) -> None:
        """It began and did not end: once more, unless it was acked before, to run at most once."""
        if message.settled:
            self._ack(message, self._never_ran(message, "WorkerLost", why))
        else:
            message.requeue(counted=True)

    def _crashed(self, message: Message, how: str) -> None:
        """A child died while it ran this message: once more, unless it did so too often."""
        if message.settled:
            self._cut_off(message, f"the process that ran it died ({how})")
            return
        counted = self._connection.features.attempts
        known = message.headers.get(CRASHES_HEADER)
        crashes = message.attempts if counted else (known if isinstance(known, int) else 0) + 1
        if crashes >= MAX_CRASHES:
            reason = f"crash loop: the process that ran it died {crashes} times ({how})"
            logger.error("%s is given up: %s", _label(message), reason)
            self._give_up(message, "WorkerLost", reason)
            return
        logger.warning("%s goes back: the process that ran it died (%s)", _label(message), how)
        if counted:
            message.requeue()
        else:
            again = self._copy(message, "", message.queue, {CRASHES_HEADER: crashes})
            self._ack(message, [again])

    def _give_up(self, message: Message, type_name: str, reason: str) -> None:
        """To the dead letters, with the reason; whoever waits gets a failure."""
        headers = {ERROR_HEADER: reason[:1000], QUEUE_HEADER: message.queue}
        queue = self.queues.get(message.queue)
        target = None if queue is None else queue.dead_letter_target
        if queue is not None and target is not None:
            key = queue.dead_letter_routing_key
            key = message.routing_key if key is None else key
            dead = self._copy(message, target, key, headers)
        else:
            name = f"{message.queue[:250]}.dlq"
            self._declare(Queue(name))
            dead = self._copy(message, "", name, headers)
        self._ack(message, [*self._never_ran(message, type_name, reason), dead])

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


def _only_acks(outcome: Outcome) -> bool:
    """Whether there is nothing to do but to ack, which does not block."""
    return isinstance(outcome, Done) and not (outcome.reply or outcome.letters or outcome.chord)


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
