"""Returns that AMQP has no command for: a confirmed copy first, then the ack of the original.

These are

- a requeue with a delay: the copy waits in the ladder and comes back to the same queue
- a counted requeue of a queue with ``max_deliveries``: the copy says how many deliveries failed. It
  goes to the queue's tail.
- the last of these, and a message whose ttl ended while it waited: a dead letter of our own, with
  a history as the broker writes it and the true reason. (A plain reject would say ``rejected``.)
- an uncounted return to such a queue, once the broker's own count has come near its limit: a copy
  begins that count again.

At no moment is a message nowhere; if the process dies between copy and ack there are two of it. If
a copy is not confirmed, the original goes back uncounted, as the broker does it, and the next
``flush`` says so. What was to be requeued goes back after its delay, but within a minute: until
then it keeps its place in the window here. At once it would come again at once, for ever, where a
permission for the ladder is missing, say.

Copies are sent by a thread of their own, begun at the first need, since settling must not block.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import NamedTuple

from queue_core.errors import (
    ConnectTimeout,
    DecodeError,
    QueueCoreError,
    QueueNotFound,
    TransportError,
    counted,
)
from queue_core.message import Delivery, Properties, Publication, Settlement, Token
from queue_core.topology import Queue
from queue_core.transport import Outcome
from queue_core.transports.amqp.copies import Note, buried, returned, returns
from queue_core.transports.amqp.delaying import Delaying
from queue_core.transports.amqp.ladder import rounded
from queue_core.transports.amqp.publishing import PIECE
from queue_core.transports.amqp.settling import Settling
from queue_core.transports.amqp.topology import BACKSTOP, dead_letters_of

logger = logging.getLogger(__name__)

Publish = Callable[[Sequence[Publication], float], Sequence[Outcome]]
"""``publish(publications, timeout)``: without any delay of their own."""

_BATCH = PIECE
"""Then nothing of a batch was sent if something in it cannot be."""
SHORTEST_PAUSE = 1.0
"""Seconds until what was to be requeued goes back, at least, if its copy was not confirmed."""
LONGEST_PAUSE = 60.0
"""Seconds that it is kept for, at most; RabbitMQ takes back what is unacked for too long."""


class Copy(NamedTuple):
    """What is to be sent for a settlement; ``dead`` if it is a dead letter."""

    settlement: Settlement
    publication: Publication
    dead: bool


class Kept(NamedTuple):
    """What goes back at a time of `monotonic`, since its copy was not confirmed."""

    due: float
    settlement: Settlement


class Returning:
    """Settles by copy what cannot be settled otherwise. Thread-safe."""

    def __init__(
        self,
        settling: Settling,
        delaying: Delaying,
        publish: Publish,
        known: Mapping[str, Queue],
        *,
        user: str,
        timeout: float,
    ) -> None:
        """``known`` are the queues that this session declared; ``timeout`` bounds each copy."""
        self._settling = settling
        self._delaying = delaying
        self._publish = publish
        self._known = known
        self._user = user
        self._timeout = timeout
        self._condition = threading.Condition()
        self._jobs: deque[Settlement] = deque()
        self._kept: dict[Token, Kept] = {}
        self._tokens: set[Token] = set()
        self._pending: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()  # of each consumer
        self._first_failure: dict[str, str] = {}
        self._closing = False
        self._thread: threading.Thread | None = None

    # for other threads

    def take(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """Keep what needs a copy, to be done soon, and return the rest. Does not block."""
        quiet = not self._tokens and not self._kept
        if quiet and all(item.action == "ack" for item in settlements):
            return settlements
        rest = []
        for settlement in settlements:
            if self.has(settlement.delivery):
                self._settling.note_stale(settlement.delivery.consumer)
            elif self._needs_copy(settlement):
                self._put(settlement)
            else:
                rest.append(settlement)
        return rest

    def expired(self, delivery: Delivery) -> None:
        """Dead-letter a delivery whose ttl ended while it waited in the ladder."""
        settlement = Settlement(delivery, "reject", reason="expired")
        if self._dead_letters(delivery.queue) is None:
            self._settling.settle([settlement])
        else:
            self._put(settlement)

    def has(self, delivery: Delivery) -> bool:
        """Whether the delivery was settled and is still being worked on, or kept."""
        return delivery.token in self._tokens or delivery.token in self._kept

    def wait(self, consumer: str, deadline: float) -> None:
        """Return when everything of ``consumer`` is done.

        Raises:
            ConnectTimeout: not by the deadline.
            TransportError: some messages go back uncounted, since a copy was not confirmed.
        """
        with self._condition:
            while self._pending[consumer]:
                left = deadline - monotonic()
                if left <= 0:
                    raise ConnectTimeout(
                        f"{counted(self._pending[consumer], 'message')} that consumer "
                        f"{consumer!r} returned: still on the way"
                    )
                self._condition.wait(left)
            failed = self._failures.pop(consumer, 0)
            why = self._first_failure.pop(consumer, "")
        if failed:
            raise TransportError(
                f"{counted(failed, 'message')} that consumer {consumer!r} returned: back in the "
                f"queue within {LONGEST_PAUSE:g} seconds, uncounted: {why}"
            )

    def settle_down(self, deadline: float, consumer: str | None = None) -> None:
        """Wait until everything (of ``consumer``) is done, but never beyond the deadline."""
        with self._condition:
            while self._pending[consumer] if consumer else self._tokens:
                left = deadline - monotonic()
                if left <= 0:
                    return
                self._condition.wait(left)

    def stop(self) -> None:
        """Begin nothing new; what has not begun stays unsettled. Does not block."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()

    def close(self, timeout: float) -> None:
        """End the thread, within ``timeout`` seconds. May be called twice."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout)

    def _limit(self, queue: str) -> int | None:
        known = self._known.get(queue)
        return None if known is None else known.max_deliveries

    def _dead_letters(self, queue: str) -> tuple[str, str | None] | None:
        known = self._known.get(queue)
        return None if known is None else dead_letters_of(known)

    def _needs_copy(self, settlement: Settlement) -> bool:
        if settlement.action != "requeue":
            return False
        if settlement.delay > 0:
            return True
        if self._limit(settlement.delivery.queue) is None:
            return False
        return settlement.counted or _came_back(settlement.delivery) >= BACKSTOP // 2

    def _put(self, settlement: Settlement) -> None:
        delivery = settlement.delivery
        with self._condition:
            self._jobs.append(settlement)
            self._tokens.add(delivery.token)
            self._pending[delivery.consumer] += 1
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="queue-core-returning", daemon=True
                )
                self._thread.start()
            self._condition.notify_all()

    # the thread

    def _run(self) -> None:
        while self._wait_for_work():
            self._end_pauses()
            jobs = [self._jobs.popleft() for _ in range(min(_BATCH, len(self._jobs)))]
            try:
                self._do(jobs)
            except Exception as error:
                # The thread must go on, and who flushes must hear of it.
                for job in jobs:
                    self._give_back(job, _described(error))
            finally:
                with self._condition:
                    self._tokens.difference_update(job.delivery.token for job in jobs)
                    self._pending -= Counter(job.delivery.consumer for job in jobs)
                    self._condition.notify_all()

    def _wait_for_work(self) -> bool:
        """Return True when there is something to do, False at the end."""
        with self._condition:
            while not self._closing:
                due = min((kept.due for kept in self._kept.values()), default=math.inf)
                left = due - monotonic()
                if self._jobs or left <= 0:
                    return True
                self._condition.wait(None if left == math.inf else left)
        return False

    def _end_pauses(self) -> None:
        """Give back what was kept for long enough."""
        now = monotonic()
        due = [kept.settlement for kept in self._kept.values() if kept.due <= now]
        self._settling.settle([item for item in due if self._settling.held(item.delivery)])
        with self._condition:
            for settlement in due:
                del self._kept[settlement.delivery.token]

    def _do(self, jobs: Iterable[Settlement]) -> None:
        """Settle each job: by its copy, or as the broker does it.

        A missing exchange makes everything unknown that is sent with it, so dead letters are sent
        apart.
        """
        groups: dict[str | None, list[Copy]] = {}
        for job in jobs:
            if not self._settling.held(job.delivery):
                self._settling.note_stale(job.delivery.consumer)
                continue
            try:
                copy = self._copied(job)
            except Exception as error:
                self._give_back(job, _described(error))
                continue
            if copy is None:
                self._settling.settle([Settlement(job.delivery, "reject")])
            else:
                group = copy.publication.exchange if copy.dead else None
                groups.setdefault(group, []).append(copy)
        for copies in groups.values():
            self._send(copies)

    def _copied(self, job: Settlement) -> Copy | None:
        """Return the copy; None: a plain reject does it."""
        delivery = job.delivery
        properties: Properties = delivery.reader.properties(delivery.raw)
        note: Note = delivery.token[2]
        limit = self._limit(delivery.queue)
        if job.action == "reject":
            return self._dead_letter(job, properties, job.reason)
        if job.counted and limit is not None and note.deliveries + 1 >= limit:
            return self._dead_letter(job, properties, "delivery_limit")
        wait = rounded(job.delay)
        target = self._delaying.to_queue(delivery.queue, at_once=not wait)
        self._delaying.lead_to(target, monotonic() + self._timeout)
        copy = returned(
            delivery,
            properties,
            note,
            wait=wait,
            target=target,
            now=self._delaying.now(),
            counted=job.counted,
            user=self._user,
            id=os.urandom(16).hex(),
        )
        return Copy(job, copy, dead=False)

    def _dead_letter(self, job: Settlement, properties: Properties, reason: str) -> Copy | None:
        found = self._dead_letters(job.delivery.queue)
        if found is None:
            return None
        exchange, key = found
        letter = buried(
            job.delivery,
            properties,
            exchange=exchange,
            key=key,
            reason=reason,
            user=self._user,
            now=self._delaying.now() / 1000,
            id=os.urandom(16).hex(),
        )
        return Copy(job, letter, dead=True)

    def _send(self, copies: Sequence[Copy]) -> None:
        try:
            outcomes = self._publish([copy.publication for copy in copies], self._timeout)
        except QueueNotFound as error:
            outcomes = [Outcome("unroutable", str(error))] * len(copies)
        except TransportError as error:
            outcomes = [Outcome("unknown", str(error))] * len(copies)
        except QueueCoreError as error:
            self._send_apart(copies, error)
            return
        if any(outcome.status != "confirmed" for outcome in outcomes):
            self._delaying.forget()
        for copy, outcome in zip(copies, outcomes, strict=True):
            delivery = copy.settlement.delivery
            if outcome.status == "confirmed":
                self._settling.settle([Settlement(delivery)])
            elif copy.dead and outcome.status == "unroutable":
                # Nobody wants it: the broker drops such dead letters too.
                self._settling.settle([Settlement(delivery, "reject")])
            else:
                why = f"its copy is {outcome.status}: {outcome.detail}"
                self._give_back(copy.settlement, why)

    def _send_apart(self, copies: Sequence[Copy], error: QueueCoreError) -> None:
        """Send one by one what cannot be sent together, since one of them cannot be carried.

        The broker buries that one by itself, if it is a dead letter: it needs no copy of ours.
        """
        if len(copies) > 1:
            for copy in copies:
                self._send([copy])
        elif copies[0].dead:
            self._settling.settle([Settlement(copies[0].settlement.delivery, "reject")])
        else:
            self._give_back(copies[0].settlement, f"its copy cannot be sent: {error}")

    def _give_back(self, job: Settlement, why: str) -> None:
        """Do it as the broker does: nothing is lost, but delay, count or reason are."""
        consumer, queue = job.delivery.consumer, job.delivery.queue
        settlement = Settlement(job.delivery, job.action, counted=False)
        pause = min(max(job.delay, SHORTEST_PAUSE), LONGEST_PAUSE)
        with self._condition:
            if job.action == "requeue":
                self._kept[job.delivery.token] = Kept(monotonic() + pause, settlement)
            self._failures[consumer] += 1
            first = self._first_failure.setdefault(consumer, why) is why
        if job.action != "requeue":
            self._settling.settle([settlement])
        if first:
            logger.warning("a message of queue %r is returned without a copy: %s", queue, why)


def _described(error: Exception) -> str:
    own = isinstance(error, QueueCoreError)
    return str(error) if own else f"{type(error).__name__}: {error}"


def _came_back(delivery: Delivery) -> int:
    """Return how often the broker itself took this message back, as far as it says."""
    note: Note = delivery.token[2]
    try:
        return max(note.returns, returns(delivery.reader.properties(delivery.raw)))
    except DecodeError:
        return note.returns
