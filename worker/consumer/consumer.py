"""The consumer: takes messages from queues and gives each to the strategy of its task.

It is made of steps, which are stopped and started again, all of them, when messages cannot be taken
any more: a queue was deleted, the broker refuses something. Tasks that run go on meanwhile. (A
connection that breaks is opened again by `queue_core.Connection`, which knows what was declared and
subscribed to; nothing here repeats that.)
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from queue_core import (
    AccessRefused,
    Backoff,
    Closed,
    Connection,
    Consumer,
    DecodeError,
    Message,
    Queue,
    QueueCoreError,
    StaleDelivery,
    TransportError,
    UsageError,
)
from queue_core.worker.blueprint import Blueprint, load
from queue_core.worker.consumer.intake import Intake
from queue_core.worker.delivery import READ, ActiveRequest
from queue_core.worker.in_flight import InFlight, same
from queue_core.worker.outcome import Rejected, TaskInfo
from queue_core.worker.pools.base import check_task
from queue_core.worker.rates import Bucket, OwnBucket, SharedBucket
from queue_core.worker.routes import QueueDefinitions
from queue_core.worker.runner import Worker
from queue_core.worker.settler import Settler
from queue_core.worker.strategy import DEFAULT, Strategy, announcing
from queue_core.worker.trace import unknown_task

logger = logging.getLogger(__name__)

STEPS: Final = tuple(
    f"queue_core.worker.consumer.{path}"
    for path in ("connection:Connection", "control:Control", "tasks:Tasks", "loop:Loop")
)
"""The consumer's own steps; an app may add others with ``app.steps["consumer"].add(...)``."""

SETTLING: Final = 10.0
"""Seconds in which the last settlements must be certain."""


class TaskConsumer:
    """What the consumer's steps share. `take` is the loop's; the rest is thread-safe.

    Attributes:
        worker: whose it is.
        blueprint: its steps.
        connection: to the broker, for any step to use.
        intake: where messages come from.
        settler: acks what was taken.
        restarts: how often the steps were started again.
        counts: messages that were no task: ``unknown message``, ``unknown task``, ``invalid task``.
    """

    def __init__(self, worker: Worker) -> None:
        """Connect nothing; raises ConfigError for steps that do not fit."""
        self.worker = worker
        self.blueprint = Blueprint("consumer", [*STEPS, *worker.info.steps.get("consumer", ())])
        self.tasks = {task.name: task for task in worker.info.tasks}
        self._definitions = QueueDefinitions(worker.info.settings, worker.info.queues)
        self.intake = Intake(worker, [self.definition(name) for name in self._names()])
        self.restarts = 0
        self.counts: Counter[str] = Counter()
        self._connection: Connection | None = None
        self._settler: Settler | None = None
        self._strategies: dict[str, Strategy] = {}
        self._buckets: dict[str, Bucket] = {}
        self._changing = threading.RLock()  # what is known of tasks, and what was made of that
        self._backoff = Backoff()
        self._failures = 0
        self._taker: Consumer | None = None

    # --- what the steps made ----------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The connection to the broker."""
        assert self._connection is not None, "the step Connection makes it"
        return self._connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def settler(self) -> Settler:
        """Who acks."""
        assert self._settler is not None, "the step Tasks makes it"
        return self._settler

    @settler.setter
    def settler(self, settler: Settler) -> None:
        self._settler = settler

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The queues that are consumed, by name."""
        return self.intake.queues

    @property
    def in_flight(self) -> InFlight:
        """The messages that are here."""
        return self.worker.in_flight

    def ended(self) -> Mapping[str, int]:
        """Return how many messages ended in what."""
        return {} if self._settler is None else dict(self._settler.counts)

    # --- starting, on the worker's main thread ----------------------------------------------------

    def start(self) -> None:
        """Start the steps. While the broker is away, try again and again until told to stop.

        A worker that only checks raises what is wrong instead.
        """
        for attempt in itertools.count():
            try:
                self.blueprint.start(self)
                return
            except TransportError as error:
                fatal = not error.retryable or isinstance(error, AccessRefused)
                if fatal or self.worker.options.check:
                    raise
                level = logging.WARNING if attempt == 0 else logging.DEBUG
                logger.log(level, "waiting for the broker: %s", error)
                if self.worker.pause(self._delay()):
                    return

    def trouble(self, error: Exception) -> None:
        """Messages cannot be taken: start all steps again, or end if that cannot help."""
        if not isinstance(error, TransportError | StaleDelivery) or isinstance(
            error, AccessRefused
        ):
            self.worker.fail(error)
            return
        logger.warning("no messages for now: %s", error)
        self.worker.post(self._restart)

    def _restart(self) -> None:
        self.restarts += 1
        self.blueprint.stop(self)
        if not self.worker.pause(self._delay()):
            self.start()

    def _delay(self) -> float:
        delay = self._backoff.delay(self._failures)
        self._failures += 1
        return delay

    # --- queues -----------------------------------------------------------------------------------

    def definition(self, name: str) -> Queue:
        """Return the app's definition of a queue, else that of a plain one.

        Raises UsageError if the settings do not want others.
        """
        return self._definitions.find(name)

    def _names(self) -> list[str]:
        options, info = self.worker.options, self.worker.info
        names = list(options.queues or info.settings.worker_queues)
        if not names:
            names = [info.settings.task_default_queue, *(queue.name for queue in info.queues)]
        for name in set(options.exclude).difference(names):
            logger.warning("-X %s excludes nothing: the queues are %s", name, ", ".join(names))
        names = [name for name in dict.fromkeys(names) if name not in options.exclude]
        if not names:
            raise UsageError("no queue is left to take from; say fewer after -X")
        return names

    # --- messages, on the loop's thread -----------------------------------------------------------

    def take(self, message: Message, taker: Consumer) -> None:
        """Give a message to its task's strategy, and what that returns to the pool.

        Never raises because of what is in the message.
        """
        self._failures, self._taker = 0, taker
        request = None
        try:
            headers = message.find_headers(READ)
            if message.redelivered and self._adopted(message, headers, taker):
                return
            name = headers.get("task")
            strategy = self.strategy(name if isinstance(name, str) else "")
            if strategy is None:
                self.on_unknown_task(message, headers, name)
                return
            request = strategy(message, headers)
            if request is not None:
                request.taker = taker
                request.execute_using_pool(self.worker.pool)
        except DecodeError as error:
            self.on_unknown_message(message, error)
        except Exception as error:
            self._failed(message, request, error)

    def _failed(self, message: Message, request: ActiveRequest | None, error: Exception) -> None:
        """A message could not be given to the pool: it goes back, or is given up."""
        if not isinstance(error, Closed | StaleDelivery | TransportError):
            logger.exception("a message from %s cannot be dealt with", message.queue)
            self.on_invalid_task(message, request, error)
            return
        logger.warning("a message from %s cannot be started now: %s", message.queue, error)
        if request is not None:
            self.in_flight.remove(request)
        if not message.settled:
            with contextlib.suppress(QueueCoreError):  # it went back by itself
                message.requeue(counted=False)

    def _adopted(self, message: Message, headers: Mapping[str, Any], taker: Consumer) -> bool:
        """Whether the message is here already, or was done here, in a session that has ended.

        What waits or runs for it goes on, and settles this delivery of it instead; what was done
        is not done again.
        """
        task_id = str(headers.get("id"))
        for request in self.in_flight.find([task_id]):
            if request.message.stale and same(request.message, message):
                if self.in_flight.adopt(request, message, taker):
                    logger.info("%s is here again; it goes on", request)
                    return True
        outcome = self.in_flight.done(task_id, message)
        if outcome is not None:
            logger.info("%s %s is here again; it was done", headers.get("task"), task_id[:8])
            self.settler.settle(message, outcome)
        return outcome is not None

    def strategy(self, name: str) -> Strategy | None:
        """Return what makes requests of messages for this task; None if there is no such task.

        A message that does not name its task in its headers has the strategy of the name ``""``.
        """
        known = self._strategies.get(name)
        return self._make_strategy(name) if known is None else known

    def _make_strategy(self, name: str) -> Strategy | None:
        with self._changing:
            task = self.tasks.get(name) if name else TaskInfo("")
            if task is None:
                return None
            made: Strategy = load(task.strategy or DEFAULT)(task, self)
            if self.worker.hooks.received:
                made = announcing(made, self.worker.hooks.received)
            self._strategies[name] = made
            return made

    def change_task(self, name: str, **changes: Any) -> TaskInfo:
        """Change what is known of a task, from its next message on.

        Raises UsageError if there is no such task, or the pool or the broker cannot do that.
        """
        with self._changing:
            task = self.tasks.get(name)
            if task is None:
                raise UsageError(unknown_task(name, self.tasks))
            changed = msgspec.structs.replace(task, **changes)
            if changed.rate_shared and not self.connection.features.key_value:
                raise UsageError(no_store(name))
            check_task(self.worker.pool.abilities, changed)
            self.tasks[name] = changed
            if "rate_limit" in changes:
                self._buckets.pop(name, None)
            self._strategies.pop(name, None)
            return changed

    def bucket(self, task: TaskInfo) -> Bucket | None:
        """Return what counts the runs of a task; None if it has no rate limit."""
        if task.rate_limit is None or self.worker.info.settings.worker_disable_rate_limits:
            return None
        bucket = self._buckets.get(task.name)
        if bucket is None:
            if task.rate_shared:
                store = self.connection.key_value()
                bucket = SharedBucket(task.rate_limit, store, task.name)
            else:
                bucket = OwnBucket(task.rate_limit)
            self._buckets[task.name] = bucket
        return bucket

    def hold(self, request: ActiveRequest, seconds: float) -> None:
        """Keep a message away from the pool for so long: at the broker if it can, else here."""
        if self.settler.can_delay:
            request.give_back(seconds)
            return
        request.taker = self._taker
        request.state, request.due = "scheduled", time.time() + seconds
        self.in_flight.add(request)

        def release() -> None:
            if not self.in_flight.remove(request):
                return
            try:
                request.execute_using_pool(self.worker.pool)
            except Exception as error:
                self._failed(request.message, request, error)

        self.worker.timer.call_later(seconds, release)

    # --- messages that are no task ----------------------------------------------------------------

    def on_unknown_message(self, message: Message, error: Exception) -> None:
        """Its headers cannot be read."""
        self.counts["unknown message"] += 1
        self.settler.settle(message, Rejected(f"{type(error).__name__}: {error}"))

    def on_unknown_task(self, message: Message, headers: Mapping[str, Any], name: Any) -> None:
        """There is no such task here."""
        self.counts["unknown task"] += 1
        reason = unknown_task(str(name), self.tasks)
        self.settler.settle(message, Rejected(reason, "NotRegistered"))

    def on_invalid_task(
        self, message: Message, request: ActiveRequest | None, error: Exception
    ) -> None:
        """Its strategy could not deal with it."""
        self.counts["invalid task"] += 1
        outcome = Rejected(f"its strategy failed: {type(error).__name__}: {error}")
        if isinstance(request, ActiveRequest):  # strategies may return anything
            request.end(outcome)
        elif not message.settled:
            self.settler.settle(message, outcome)


def no_store(task: str) -> str:
    """Say why a rate limit for all workers cannot be kept."""
    return (
        f"the rate limit of {task} is for all workers together, which takes a broker with a "
        "key-value store; without 'cluster' it is for each of them"
    )
