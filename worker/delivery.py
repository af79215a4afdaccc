"""One message in flight, as the worker's own process sees it.

An `ActiveRequest` is made for a message by its task's strategy (`queue_core.worker.strategy`), is
handed to the pool, and ends with an outcome, which it logs and passes on to the settler. It decodes
nothing but a few headers; what is in the message only the process that runs the task knows. A task
may have a class of its own, which changes what happens at each of these moments.

Its state is ``arrived``, then ``reserved`` while the pool has it, and ``ended`` with its outcome.
Where the broker cannot hold it back until its time, it is ``scheduled`` before and waits here.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from queue_core import Closed, Consumer, Message, StaleDelivery, TransportError, UsageError
from queue_core.worker.messages import properties_of
from queue_core.worker.outcome import (
    Crashed,
    Done,
    Failed,
    Job,
    Outcome,
    Rejected,
    Retried,
    Returned,
    Skipped,
    TaskInfo,
    Terminated,
    TimedOut,
)
from queue_core.worker.pools.base import Pool, Running
from queue_core.worker.results.wire import state as encode_state
from queue_core.worker.timestamps import LONGEST, seconds_until

if TYPE_CHECKING:
    from queue_core.worker.in_flight import InFlight

logger = logging.getLogger(__name__)

READ: Final = ("task", "id", "eta", "expires")
"""The headers that the worker's own process looks at."""
State = Literal["arrived", "scheduled", "reserved", "ended"]


class ActiveRequest:
    """One message that is here: from its arrival to its outcome.

    Attributes:
        message: as it was taken.
        headers: those of `READ` that it has.
        task: what is known of its task.
        in_flight: where it belongs.
        received: when it came, on the monotonic clock.
        state: ``scheduled`` waits for its time; ``reserved`` is with the pool, and perhaps running.
        revoked: somebody does not want it to run, or to go on.
        signal: what the process gets that runs it, if it shall not go on.
        over: its outcome was passed on.
        acknowledged: it was acked before its run.
        due: when it may start, in seconds since 1970, if it is scheduled.
        taker: what took it.
        ticket: the number by which the pool knows it.
    """

    __slots__ = (
        "acknowledged",
        "due",
        "headers",
        "in_flight",
        "message",
        "over",
        "received",
        "revoked",
        "signal",
        "state",
        "taker",
        "task",
        "ticket",
    )

    def __init__(
        self, message: Message, headers: Mapping[str, Any], task: TaskInfo, in_flight: InFlight
    ) -> None:
        """Nothing happens yet."""
        self.message = message
        self.headers = headers
        self.task = task
        self.in_flight = in_flight
        self.received = time.monotonic()
        self.state: State = "arrived"
        self.revoked = False
        self.signal = 0
        self.over = False
        self.acknowledged = False
        self.due = 0.0
        self.taker: Consumer | None = None
        self.ticket = next(in_flight.tickets)

    # --- what it is -------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The task's id; empty if the message does not say."""
        known = self.headers.get("id")
        if isinstance(known, str):
            return known
        return properties_of(self.message).correlation_id or ""

    @property
    def name(self) -> str:
        """The task's name; empty if the message does not say."""
        known = self.headers.get("task")
        return known if isinstance(known, str) else ""

    def job(self) -> Job:
        """Return what the pool gets."""
        message = self.message
        delivery = message.delivery
        task = self.task
        return Job(
            self.ticket,
            self.name,
            delivery.queue,
            delivery.attempts,
            delivery.redelivered,
            delivery.raw,
            delivery.reader.home,
            delivery.body,
            task.soft_limit,
            task.hard_limit,
            task.track_started,
        )

    def info(self, running: Running | None = None) -> dict[str, Any]:
        """Return what ``inspect active`` and its like say, in celery's words."""
        properties = properties_of(self.message)
        headers = properties.headers
        now, monotonic = time.time(), time.monotonic()
        return {
            "id": self.id,
            "name": self.name,
            "args": headers.get("argsrepr"),
            "kwargs": headers.get("kwargsrepr"),
            "type": self.name,
            "hostname": self.in_flight.hostname,
            "time_start": None if running is None else now - (monotonic - running.since),
            "acknowledged": self.acknowledged,
            "delivery_info": {
                "exchange": self.message.exchange,
                "routing_key": self.message.routing_key,
                "priority": properties.priority,
                "redelivered": self.message.redelivered,
                "queue": self.message.queue,
                "attempts": self.message.attempts,
            },
            "worker_pid": None if running is None else running.pid,
        }

    def wait(self) -> float:
        """Return how many seconds it must not start yet."""
        return seconds_until(self.headers.get("eta"), "eta", self.in_flight.zone) or 0.0

    def expired(self, after: float = 0.0) -> bool:
        """Whether it came too late to be worth running, or will be so ``after`` some seconds."""
        left = seconds_until(self.headers.get("expires"), "expires", self.in_flight.zone)
        return left is not None and left <= after

    # --- what is done with it ---------------------------------------------------------------------

    def execute_using_pool(self, pool: Pool) -> None:
        """Hand it to the pool, unless it was revoked; acknowledge it first if it must be early."""
        self.state = "reserved"
        self.in_flight.add(self)  # before we look: who revokes it from now on finds it there
        if self.in_flight.revoked and self.id in self.in_flight.revoked:
            self.revoked = True
        if not (self.revoked or self.task.acks_late):
            self.acknowledge()
        if self.revoked:
            self.skip("revoked")
            return
        if self.task.track_started:
            self.tell("RECEIVED")
        pool.submit(self.job())
        self._reconsider(pool)

    def _reconsider(self, pool: Pool) -> None:
        """Who revoked it may have looked into the pool before that had it."""
        if self.revoked:
            with contextlib.suppress(UsageError):  # it runs, in a pool that ends nothing
                self._leave(pool)

    def acknowledge(self) -> None:
        """Ack before the run, which so happens at most once; blocks until the ack is certain.

        What is given back later, since it was not started after all, is sent again.

        Raises:
            StaleDelivery: its session has ended; it is delivered again. If an ack was on its way
                then, and the broker has heard of it, it is not: that is logged.
            Closed: so has the connection.
        """
        if not self.acknowledged and self.message.stale:
            raise StaleDelivery(f"the session of {self} has ended; it is delivered again")
        while not self.acknowledged:
            try:
                self.message.ack(then=())
                self.acknowledged = True
            except TransportError as error:
                if not error.retryable:
                    raise
                logger.warning("the ack of %s before its run is not certain yet: %s", self, error)
            except (StaleDelivery, Closed):
                logger.error(
                    "%s does not run here: its session ended while it was acked before its run. It "
                    "runs when it is delivered again; if the broker has heard of its ack, it never "
                    "runs",
                    self,
                )
                raise

    def reject(self, reason: str) -> None:
        """Give it up: it goes to the dead letters."""
        self.end(Rejected(reason))

    def skip(self, reason: Literal["revoked", "expired"]) -> None:
        """Do not run it, and tell whoever waits for it."""
        self.end(Skipped(reason))

    def terminate(self, pool: Pool, number: int) -> bool:
        """Do not let it start or, if it runs, go on; return whether there was anything to do.

        ``number`` is the signal that the process which runs it gets.
        """
        self.signal = number or self.signal
        self.revoked = True
        if self.state == "scheduled":
            if mine := self.in_flight.remove(self):
                self.conclude(Skipped("revoked"))
            return mine
        return self._leave(pool)

    def _leave(self, pool: Pool) -> bool:
        """Take it out of the pool, if that has it."""
        return pool.withdraw(self.ticket) or (
            self.signal > 0 and pool.terminate(self.ticket, self.signal)
        )

    # --- how it ended, on the pool's threads ------------------------------------------------------

    def conclude(self, outcome: Outcome) -> None:
        """It has ended; whatever its class makes of that, the message is settled."""
        try:
            self.on_outcome(outcome)
        except Exception:
            logger.exception("what is to be done at the end of %s failed; it is settled", self)
        self.settle(outcome)

    def on_outcome(self, outcome: Outcome) -> None:
        """Choose the handler for what the pool says."""
        if isinstance(outcome, Done):
            self.on_success(outcome)
        elif isinstance(outcome, Failed):
            self.on_failure(outcome)
        elif isinstance(outcome, Retried):
            self.on_retry(outcome)
        elif isinstance(outcome, TimedOut):
            self.on_timeout(outcome)
        elif isinstance(outcome, Skipped):
            self.on_skip(outcome)
        elif isinstance(outcome, Terminated) or (
            self.revoked and isinstance(outcome, Returned | Crashed)
        ):
            self.on_skip(Skipped("revoked"))
        elif isinstance(outcome, Rejected):
            self.on_reject(outcome)
        else:
            self.settle(outcome)

    def on_accepted(self, pid: int) -> None:
        """It begins to run, in this process. Called only for tasks with ``track_started``."""
        self.tell("STARTED", {"pid": pid, "hostname": self.in_flight.hostname})

    def tell(self, status: str, info: object = None) -> None:
        """Have its state noted where its result will be, unless nobody wants that."""
        self.note(encode_state(self.id, status, info))

    def note(self, state: bytes) -> None:
        """Do that with an encoded one."""
        if not (self.task.ignore_result or self.message.headers.get("ignore_result")):
            self.in_flight.settler.note(self.message, state)

    def on_success(self, outcome: Done) -> None:
        """It returned."""
        if logger.isEnabledFor(logging.INFO):
            logger.info("done   %s  %.0f ms", self, outcome.seconds * 1000)
        self.settle(outcome)

    def on_failure(self, outcome: Failed) -> None:
        """It raised."""
        level = logging.INFO if outcome.expected else logging.ERROR
        logger.log(level, "failed %s: %s", self, outcome.error)
        logger.debug("%s", outcome.trace)
        self.settle(outcome)

    def on_retry(self, outcome: Retried) -> None:
        """It wants to run again."""
        logger.warning("retry  %s: %s  next in %.1f s", self, outcome.error, outcome.delay)
        self.settle(outcome)

    def on_timeout(self, outcome: TimedOut) -> None:
        """It ran for longer than its hard limit, and its process was killed."""
        logger.error("failed %s: killed after %g s, its time limit", self, outcome.seconds)
        self.settle(outcome)

    def on_skip(self, outcome: Skipped) -> None:
        """It was not run, or not to its end: revoked or expired."""
        logger.warning("%s %s", outcome.reason, self)
        self.in_flight.hooks.revoked.tell(self, outcome.reason)
        self.settle(outcome)

    def on_reject(self, outcome: Rejected) -> None:
        """Its message cannot be run, and never will be; the settler says so."""
        self.settle(outcome)

    def settle(self, outcome: Outcome) -> None:
        """Pass the outcome on, once; after this the message is not ours any more."""
        if not self.over:
            self.over = True
            self.in_flight.settler.settle(self.message, outcome)

    def end(self, outcome: Outcome) -> None:
        """End it here, without the pool."""
        self.conclude(outcome)
        self.in_flight.remove(self)

    def give_back(self, seconds: float = 0.0) -> None:
        """Return the message to its queue, uncounted, for so many seconds, or as many as can be."""
        if not self.in_flight.remove(self) and self.state == "scheduled":
            return  # somebody else has dealt with it
        try:
            self.message.requeue(min(seconds, LONGEST), counted=False)
        except (StaleDelivery, Closed) as error:
            logger.debug("%s went back by itself: %s", self, error)

    def __str__(self) -> str:
        """Name and short id, for the log."""
        return f"{self.name or 'message'} {self.id[:8]}"
