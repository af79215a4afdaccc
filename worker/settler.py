"""From outcomes to settlements: the one place where the worker acks, gives back and gives up.

- A result is certain before its message is acked: stored or sent before, or in the same step.
- Results that nothing else goes with are stored or sent together, as many as there are when those
  before are certain.
- What follows a task - links, the next of its chain, its retry, its error links - is sent in one
  step with the ack: neither happens without the other.
- A task that did not fail by itself, since it was killed or not run at all, has error links and a
  chain too: they are read here, by the same rules, without running anything of the user's.
- What follows a task and goes to an exchange that is not there, or to no queue, is set aside in its
  stead, after some tries: among the dead letters of the task's queue. Whoever waits for it gets a
  failure.
- A message that can never run (unknown task, unreadable body, a third crash) is copied to the dead
  letters of its queue, or to ``<queue>.dlq``, with the reason in the header ``qc-error``, and acked
  in the same step. Whoever waits for it gets a failure.
- While the broker or the result store is away, messages wait here with what became of them; what
  cannot be settled for another reason is delivered again. No message is kept for ever.
- What was not started goes back uncounted; what was cut off in the middle goes back counted.

Settling may block for round trips, so it happens on a few threads of its own and neither the pool
nor the consumer waits for it. What cannot be settled now takes none of them until its next try, and
what may need the result store has threads apart: neither keeps the others waiting.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

from queue_core import (
    Backoff,
    Closed,
    Connection,
    Message,
    MessageError,
    Publication,
    PublishError,
    Queue,
    QueueCoreError,
    QueueNotFound,
    StaleDelivery,
    TransportError,
)
from queue_core.worker.dead_letters import DeadLetters, copied
from queue_core.worker.guarding import Fail, guarded, unheard
from queue_core.worker.messages import label, properties_of
from queue_core.worker.outcome import (
    Abandoned,
    Crashed,
    Done,
    Failed,
    Outcome,
    Rejected,
    Retried,
    Returned,
    Skipped,
    TimedOut,
)
from queue_core.worker.sequel import Sequel, replies_only
from queue_core.worker.timer import Timer

logger = logging.getLogger(__name__)

THREADS = 4
TOGETHER = 500
TOGETHER_BYTES = 1_000_000
MAX_CRASHES = 3
CRASHES_HEADER = "qc-crashes"
_PATIENCE = Backoff(base=0.2, cap=5.0)
_TRIES = 8
_FINISH = 15.0
_RETURN_DELAY = 30.0

_NAMES = {kind: kind.__name__.lower() for kind in get_args(Outcome)}
_Replying = tuple[Message, Outcome, bytes]


class Settler:
    """Settles messages according to outcomes. Thread-safe; owns some threads until `close`."""

    def __init__(
        self,
        connection: Connection,
        sequel: Sequel,
        queues: Mapping[str, Queue],
        *,
        fail: Fail = unheard,
    ) -> None:
        """``queues`` tells where the dead letters of each queue go; it may be replaced later.

        ``fail`` is told of what should not happen, after which no more may be settled.
        """
        self._fail = fail
        self._connection = connection
        self._producer = connection.producer()
        self._sequel = sequel
        self.queues = queues
        self._dead_letters = DeadLetters(connection, sequel, lambda: self.queues)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="settler")
        self._storing = ThreadPoolExecutor(THREADS, thread_name_prefix="results")
        self._notes = ThreadPoolExecutor(1, thread_name_prefix="states")
        self._lock = threading.Lock()
        self._replies: list[_Replying] = []
        self._states: dict[Message, bytes] = {}
        self._sending = False
        self._closing = threading.Event()
        self._away = False  # the last try found nobody
        self._settling: set[Message] = set()
        self._timer = Timer(fail=fail)
        self._resting: dict[Message, tuple[Outcome, int]] = {}  # with how often they were tried
        self._ending = False  # what cannot be settled now is waited for
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
        """Settle now if that cannot block, else soon; after `close` now, if the connection lasts.

        Never raises.
        """
        with self._lock:
            self.counts[_NAMES[type(outcome)]] += 1
        if _only_acks(outcome) and not message.settled:
            try:
                message.ack()
                return
            except QueueCoreError as error:
                logger.debug("settling %s is tried again: %s", label(message), error)
        self._settling.add(message)
        if isinstance(outcome, Returned | Abandoned) and not message.settled:
            self._apply(message, outcome)
        elif reply := replies_only(outcome):
            with self._lock:
                self._replies.append((message, outcome, reply))
                begin, self._sending = not self._sending, True
            if begin:
                self._soon(self._storing, self._send_replies)
        else:
            self._apply_soon(message, outcome)

    def _apply_soon(self, message: Message, outcome: Outcome, tried: int = 0) -> None:
        threads = self._storing if _may_store(outcome) else self._threads
        self._soon(threads, self._apply, message, outcome, tried)

    def _soon(
        self, threads: ThreadPoolExecutor, call: Callable[..., None], *arguments: object
    ) -> None:
        """Have one of these threads call it; after `close`, when there are none, do so now."""
        guarded_call = guarded(call, self._fail)
        try:
            threads.submit(guarded_call, *arguments)
        except RuntimeError:
            guarded_call(*arguments)

    def _send_replies(self) -> None:
        """Send what there is until there is nothing; one thread at a time does that."""
        while True:
            with self._lock:
                some = self._next_replies()
                self._sending = bool(some)
            if not some:
                return
            try:
                self._send_together(some)
            except Exception as error:
                logger.debug("%d results are sent one by one: %s", len(some), error)
                for message, outcome, _ in some:
                    self._apply_soon(message, outcome)
            else:
                self._settling.difference_update(message for message, _, _ in some)

    def _next_replies(self) -> list[_Replying]:
        """Take some out, no more than are good for one step."""
        size = 0
        for count, (_, _, reply) in enumerate(self._replies):
            size += len(reply)
            if count >= TOGETHER or size > TOGETHER_BYTES:
                some = self._replies[: count or 1]
                break
        else:
            some = self._replies
        self._replies = self._replies[len(some) :]
        return some

    def _send_together(self, some: Sequence[_Replying]) -> None:
        """Make results certain and ack their messages: one in one step, many before the acks."""
        then = self._sequel.of_replies((message, reply) for message, _, reply in some)
        if len(some) == 1:
            self._ack(some[0][0], then)
            return
        if then:
            self._producer.publish_many(then)
        for message, _, _ in some:
            try:
                self._ack(message, ())
            except StaleDelivery as error:
                logger.warning("%s: what it did may be done twice: %s", label(message), error)

    def note(self, message: Message, state: bytes) -> None:
        """Tell who asks for the task that it has come so far, soon and in this order.

        What was not told yet is replaced. Never raises; if that cannot be told, it is not.
        """
        with self._lock:
            behind = message in self._states
            self._states[message] = state
        if not behind:
            with contextlib.suppress(RuntimeError):  # we close, and its end is what counts
                self._notes.submit(self._note, message)

    def _note(self, message: Message) -> None:
        with self._lock:
            state = self._states.pop(message)
        try:
            if then := self._sequel.of_state(message, state):
                self._producer.publish_many(then)
        except QueueCoreError as error:
            logger.debug("the state of %s is not told: %s", label(message), error)

    def close(self, *, patient: bool = True) -> None:
        """Finish what was begun; what finds the broker away goes back with the consumer's end.

        It is waited for some seconds; not at all if not ``patient``.
        """
        limit = threading.Timer(_FINISH if patient else 0.0, self._closing.set)
        limit.daemon = True
        limit.start()
        with self._lock:
            self._ending = True
            resting, self._resting = self._resting, {}
        self._timer.stop()
        for message, (outcome, tried) in resting.items():
            self._apply_soon(message, outcome, tried)
        self._notes.shutdown(wait=True, cancel_futures=True)
        self._threads.shutdown(wait=True)
        self._storing.shutdown(wait=True)
        limit.cancel()

    def _apply(self, message: Message, outcome: Outcome, tried: int = 0) -> None:
        rests = False
        try:
            while not rests and (pause := self._try(message, outcome, tried)) is not None:
                tried += 1
                rests = self._rest(message, outcome, tried, pause)
                if not rests:
                    self._closing.wait(pause)
        finally:
            if not rests:
                self._settling.discard(message)

    def _rest(self, message: Message, outcome: Outcome, tried: int, seconds: float) -> bool:
        """Have it tried again later, without a thread until then; return False if we close."""
        with self._lock:
            if self._ending:
                return False
            self._resting[message] = outcome, tried
            self._timer.start()
        self._timer.call_later(seconds, lambda: self._wake(message))
        return True

    def _wake(self, message: Message) -> None:
        with self._lock:
            rested = self._resting.pop(message, None)
        if rested is not None:  # else `close` was there first
            self._apply_soon(message, *rested)

    def _try(self, message: Message, outcome: Outcome, tried: int) -> float | None:
        """Settle it, or give it up; else return for how many seconds to wait with the next try."""
        last = tried >= _TRIES - 1
        if self._closing.is_set() and self._away:
            logger.error("%s stays unsettled and is delivered again", label(message))
            return None
        try:
            self._step(message, outcome, last=last)
            self._away = False
        except (StaleDelivery, Closed) as error:
            logger.warning("%s: what it did may be done twice: %s", label(message), error)
        except Exception as error:
            self._away = isinstance(error, TransportError) and error.retryable
            if not last or self._away:
                level = logging.WARNING if tried == _TRIES - 1 else logging.DEBUG
                logger.log(level, "settling %s is tried again: %s", label(message), error)
                return _PATIENCE.delay(tried)
            logger.exception("%s cannot be settled and is delivered again", label(message))
            _put_back(message, _RETURN_DELAY if self.can_delay else 0.0)
        return None

    def _step(self, message: Message, outcome: Outcome, *, last: bool) -> None:
        """Settle one message by one outcome, once."""
        sequel = self._sequel
        if isinstance(outcome, Done):
            keep = bool(outcome.letters or outcome.chord)
            then, over = sequel.of_done(message, outcome)
            self._finish(message, then, keep=keep, last=last)
            if over and outcome.chord is not None:
                sequel.over(outcome.chord)
        elif isinstance(outcome, Failed):
            keep = bool(outcome.letters or outcome.chord)
            self._finish(message, sequel.of_failed(message, outcome), keep=keep, last=last)
        elif isinstance(outcome, Retried):
            self._finish(message, sequel.of_retried(message, outcome), keep=True, last=last)
        elif isinstance(outcome, Skipped):
            then = sequel.of_unfinished(message, "TaskRevokedError", outcome.reason, skipped=True)
            self._finish(message, then, keep=False, last=last)
        elif isinstance(outcome, TimedOut):
            reason = f"the task ran for more than {outcome.seconds:g} s"
            then = sequel.of_unfinished(message, "TimeLimitExceeded", reason)
            self._finish(message, then, keep=True, last=last)
        elif isinstance(outcome, Rejected):
            self._rejected(message, outcome, last=last)
        elif isinstance(outcome, Crashed):
            self._crashed(message, outcome.how, last=last)
        elif isinstance(outcome, Abandoned):
            self._cut_off(message, "its worker had to end", last=last)
        else:
            self._give_back(message, counted=False)

    # --- what goes with the ack -------------------------------------------------------------------

    def _finish(self, message: Message, then: list[Publication], *, keep: bool, last: bool) -> None:
        """Ack, and send ``then`` in the same step; if it is no more than a result, without it.

        The task has failed if ``then`` is too large for the broker: it never will be taken.
        """
        try:
            self._ack(message, then, last=last)
        except MessageError as error:
            logger.error("what follows %s cannot be sent: %s", label(message), error)
            name = type(error).__name__
            then = self._sequel.of_unfinished(message, name, str(error))
            self._ack(message, then, last=last)
        except PublishError as error:
            if keep or not last:
                raise
            logger.error("the result of %s cannot be sent: %s", label(message), error)
            self._ack(message, ())

    def _ack(
        self,
        message: Message,
        then: Sequence[Publication],
        dead: Sequence[Publication] = (),
        *,
        last: bool = False,
    ) -> None:
        """Ack and send in one step; at the ``last`` try what goes nowhere joins the ``dead``."""
        then, dead = list(then), list(dead)
        while True:
            try:
                self._ack_and_send(message, [*then, *dead])
                return
            except (PublishError, QueueNotFound) as error:
                self._sequel.doubt()  # perhaps somebody deleted a queue
                if not (last and self._dead_letters.set_aside(message, error, then, dead)):
                    raise

    def _ack_and_send(self, message: Message, then: Sequence[Publication]) -> None:
        """In one step; only send what was acked before its run."""
        if not message.settled:
            message.ack(then=then or None)
        elif then:
            self._producer.publish_many(list(then))

    def _give_back(self, message: Message, *, counted: bool) -> None:
        """Return the message to its queue; what was acked before its run is sent again."""
        if message.settled:
            self._ack(message, [_again(message, {})])
        else:
            message.requeue(counted=counted)

    # --- what did not run, or did not come back ---------------------------------------------------

    def _rejected(self, message: Message, outcome: Rejected, *, last: bool) -> None:
        if outcome.requeue:
            logger.warning("%s goes back, as it asked for: %s", label(message), outcome.reason)
            self._give_back(message, counted=True)
            return
        logger.error("%s is given up: %s", label(message), outcome.reason)
        self._give_up(message, outcome.type_name, outcome.reason, last=last)

    def _cut_off(self, message: Message, why: str, *, last: bool) -> None:
        """It began and did not end: once more, unless it was acked before, to run at most once."""
        if message.settled:
            then = self._sequel.of_unfinished(message, "WorkerLostError", why)
            self._ack(message, then, last=last)
        else:
            message.requeue(counted=True)

    def _crashed(self, message: Message, how: str, *, last: bool) -> None:
        """A child died while it ran this message: once more, unless it did so too often."""
        if message.settled:
            self._cut_off(message, f"the process that ran it died ({how})", last=last)
            return
        counted = self._connection.features.attempts
        known = message.headers.get(CRASHES_HEADER)
        crashes = message.attempts if counted else (known if isinstance(known, int) else 0) + 1
        if crashes >= MAX_CRASHES:
            reason = f"crash loop: the process that ran it died {crashes} times ({how})"
            logger.error("%s is given up: %s", label(message), reason)
            self._give_up(message, "WorkerLostError", reason, last=last)
            return
        logger.warning("%s goes back: the process that ran it died (%s)", label(message), how)
        if counted:
            message.requeue()
        else:
            self._ack(message, [_again(message, {CRASHES_HEADER: crashes})])

    def _give_up(self, message: Message, type_name: str, reason: str, *, last: bool) -> None:
        """To the dead letters, with the reason; whoever waits gets a failure."""
        dead = self._dead_letters.bury(message, properties_of(message), message.body, reason)
        then = self._sequel.of_unfinished(message, type_name, reason)
        self._ack(message, then, [dead], last=last)


def _again(message: Message, more: Mapping[str, object]) -> Publication:
    """The message once more, for its own queue."""
    return copied(properties_of(message), message.body, "", message.queue, more)


def _only_acks(outcome: Outcome) -> bool:
    """Whether there is nothing to do but to ack, which does not block."""
    return isinstance(outcome, Done) and not (outcome.reply or outcome.letters or outcome.chord)


def _may_store(outcome: Outcome) -> bool:
    """Whether a result may have to be stored, or a part of a chord counted."""
    if isinstance(outcome, Done | Failed):
        return bool(outcome.reply or outcome.chord)
    if isinstance(outcome, Retried):
        return bool(outcome.reply)
    return not isinstance(outcome, Crashed | Returned | Abandoned)


def _put_back(message: Message, delay: float) -> None:
    try:
        message.requeue(delay)
    except QueueCoreError as error:
        logger.debug("%s went back by itself: %s", label(message), error)
