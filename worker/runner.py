"""The worker: takes messages, hands them to a pool, and settles them by what the pool says.

Three parties, each on threads of its own: a consumer thread that takes messages and never blocks
on tasks; the pool (`queue_core.worker.pools`) that runs them; and the settler
(`queue_core.worker.settler`) that turns outcomes into acks. The thread that calls `Worker.run` only
waits for signals.

Stopping, on the first SIGTERM or SIGINT: take nothing more, give back what was not started, wait
for what runs up to ``drain`` seconds, settle, leave. The second signal ends the waiting. At no
point is a message acked that was not run.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from queue_core import (
    AccessRefused,
    Backoff,
    Closed,
    ConfigError,
    Connection,
    ConnectionLost,
    Consumer,
    DecodeError,
    Message,
    Queue,
    QueueCoreError,
    QueueNotFound,
    StaleDelivery,
    TransportError,
)
from queue_core.worker.app import RPC, URL_VARIABLE, plain_queue
from queue_core.worker.outcome import AppInfo, Done, Failed, Job, Outcome, Rejected
from queue_core.worker.pools.base import Pool
from queue_core.worker.results.deliver import choose_deliverer
from queue_core.worker.settler import Settler, task_id, task_name

logger = logging.getLogger(__name__)

DRAINED, FORCED = 0, 9
_RECEIVE = 0.5
_SETTLING = 10.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs.

    Attributes:
        broker: replaces the app's broker if not None.
        queues: names of the queues to take from; the app's default queue if empty.
        name: for people, and in the log.
        node: for the broker: a worker that starts under the node name of a dead one gets its
            messages at once. Empty: none.
        prefetch: messages to hold at once, over all queues; None lets the pool decide.
        drain: seconds to wait for running tasks when stopping.
        lease: seconds after which others may have this worker's messages if it dies.
    """

    broker: str | None = None
    queues: Sequence[str] = ()
    name: str = "worker"
    node: str = ""
    prefetch: int | None = None
    drain: float = 30.0
    lease: float = 30.0


class Worker:
    """One worker process's work. `run` blocks; `stop` may be called from any thread."""

    def __init__(self, pool: Pool, options: WorkerOptions) -> None:
        """Nothing is started; the pool belongs to the worker from `run` on."""
        self._pool = pool
        self._options = options
        self._tickets = itertools.count(1)
        self._flying: dict[int, Message] = {}
        self._held: list[tuple[float, int, Message]] = []
        self._stopping = threading.Event()
        self._signals = 0
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_out, False)
        self._failure: Exception | None = None
        self._settler: Settler | None = None
        self.ready = threading.Event()
        """Set when the worker takes messages."""

    def run(self) -> int:
        """Work until stopped; return `DRAINED`, or `FORCED` if running tasks were cut off.

        In the main thread SIGTERM and SIGINT stop the worker.

        Raises:
            AppNotFound: the app cannot be imported.
            ConfigError, AccessRefused, TopologyMismatch, Unsupported: the broker cannot be used
                this way. A broker that is away is waited for.
        """
        restore = self._catch_signals()
        began = time.monotonic()
        try:
            info = self._pool.start(self._on_outcome)
            with self._connect(info) as connection:
                queues = [_definition(info, name) for name in self._names(info)]
                return self._work(connection, info, queues, began)
        finally:
            self._pool.stop(0.0)
            restore()
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_out = -1

    def stop(self) -> None:
        """Begin to stop, as the first signal does; called again, do not wait for running tasks."""
        self._signals += 1
        if self._signals > 1:
            self._pool.abort()
        self._stopping.set()
        self._wake()

    # --- the calling thread ----------------------------------------------------------------------

    def _work(
        self, connection: Connection, info: AppInfo, queues: Sequence[Queue], began: float
    ) -> int:
        if not self._prepare(connection, queues):
            return DRAINED
        backend = Connection(info.backend) if info.backend not in (None, *RPC) else None
        try:
            deliverer = choose_deliverer(
                connection, backend, rpc_only=info.backend in RPC, ttl=info.result_ttl
            )
            settler = Settler(connection, deliverer, {queue.name: queue for queue in queues})
            self._settler = settler
            total = self._options.prefetch or self._pool.ahead
            consumer = connection.consumer(
                *queues, prefetch=max(1, total // len(queues)), decode=False
            )
            self._announce(connection, info, queues, time.monotonic() - began)
            thread = threading.Thread(
                target=self._consume,
                args=(connection, consumer, queues),
                name="consumer",
                daemon=True,
            )
            thread.start()
            self._wait_for_stop()
            return self._shut_down(consumer, settler, thread)
        finally:
            if backend is not None:
                backend.close()

    def _connect(self, info: AppInfo) -> Connection:
        url = self._options.broker or info.broker or os.environ.get(URL_VARIABLE)
        if not url:
            raise ConfigError(f"the worker has no broker: pass -b URL, or set {URL_VARIABLE}")
        connection = Connection(url, lease=self._options.lease, node=self._options.node)
        if self._pool.separate and not connection.features.shared:
            raise ConfigError(
                f"{connection.url} exists in one process only, and this pool runs tasks in others; "
                "use -P threads, or a broker such as sqlite:///queue.db"
            )
        return connection

    def _names(self, info: AppInfo) -> Sequence[str]:
        return tuple(dict.fromkeys(self._options.queues)) or (info.default_queue,)

    def _prepare(self, connection: Connection, queues: Sequence[Queue]) -> bool:
        """Declare the queues, waiting for a broker that is away; False if stopped meanwhile."""
        backoff = Backoff()
        for attempt in itertools.count():
            try:
                for queue in queues:
                    connection.declare(queue)
                return True
            except ConnectionLost as error:
                if attempt == 0:
                    logger.warning("waiting for the broker: %s", error)
                if self._signalled_within(backoff.delay(attempt)):
                    return False
        return False

    def _announce(
        self, connection: Connection, info: AppInfo, queues: Sequence[Queue], seconds: float
    ) -> None:
        logger.info("worker %s  pid %d", self._options.name, os.getpid())
        logger.info("broker   %s  lease %g s", connection.url, self._options.lease)
        logger.info("queues   %s", "  ".join(queue.name for queue in queues))
        logger.info("tasks    %s", "  ".join(task.name for task in info.tasks) or "none")
        logger.info("ready in %.2f s", seconds)

    def _wait_for_stop(self) -> None:
        while not self._signalled_within(None):
            pass
        self._stopping.set()

    def _signalled_within(self, seconds: float | None) -> bool:
        """Wait for a signal or `stop`; an event would not do, a signal handler cannot set one."""
        if not self._signals and select.select([self._wake_in], [], [], seconds)[0]:
            os.read(self._wake_in, 4096)
        return self._signals > 0

    def _shut_down(self, consumer: Consumer, settler: Settler, thread: threading.Thread) -> int:
        consumer.stop()  # else what is given back would come again, to us
        running = len(self._flying)
        if running:
            logger.info(
                "stopping: %d messages here, up to %g s for those that run (a second signal "
                "gives them back now)",
                running,
                self._options.drain,
            )
        clean = self._pool.stop(self._options.drain)
        thread.join(_SETTLING if clean else 2 * _RECEIVE)
        settler.close(patient=clean)
        try:
            consumer.flush(_SETTLING)
        except QueueCoreError as error:
            logger.warning("some settlements are not certain: %s", error)
        consumer.close()
        said = ", ".join(f"{count} {name}" for name, count in sorted(settler.counts.items()))
        logger.info("stopped %s: %s", "clean" if clean else "by force", said or "nothing done")
        if self._failure is not None:
            raise self._failure
        return DRAINED if clean else FORCED

    # --- signals ---------------------------------------------------------------------------------

    def _catch_signals(self) -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        # The handler runs once the main thread does something. If another thread got the signal, or
        # it came just before the main thread began to wait, only this ends the waiting.
        woken = signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)

        def restore() -> None:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _on_signal(self, _number: int, _frame: object) -> None:
        """Run between two instructions of the main thread: takes no lock that it may hold."""
        self._signals += 1
        if self._signals > 1:
            self._pool.abort()
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_out, b"s")
        except OSError:  # full: it is awake; closed: it is over
            return

    # --- the consumer's thread -------------------------------------------------------------------

    def _consume(self, connection: Connection, consumer: Consumer, queues: Sequence[Queue]) -> None:
        """Take messages until told to stop; an error that cannot be waited out ends the worker."""
        backoff, failures = Backoff(), 0
        try:
            while not self._stopping.is_set():
                self.ready.set()
                try:
                    message = consumer.receive(timeout=_RECEIVE)
                    failures = 0
                except (TransportError, StaleDelivery) as error:
                    if isinstance(error, AccessRefused):
                        raise
                    logger.warning("no messages for now: %s", error)
                    self._stopping.wait(backoff.delay(failures))
                    failures += 1
                    if isinstance(error, QueueNotFound):
                        _restore(connection, consumer, queues)
                    continue
                if message is not None:
                    self._accept(message)
                self._release_held()
        except Closed:
            logger.debug("the consumer is closed")
        except Exception as error:
            self._failure = error
        finally:
            if not self._stopping.is_set():
                self.stop()
            self._return_held()

    def _accept(self, message: Message) -> None:
        """Give a message to the pool, unless it is unreadable or not due."""
        ticket = next(self._tickets)
        self._flying[ticket] = message
        try:
            job = _job(ticket, message)
            wait = _seconds_until(message.headers.get("eta"))
        except DecodeError as error:
            self._on_outcome(ticket, Rejected(f"DecodeError: {error}"))
            return
        if wait > 0:
            self._hold(ticket, message, wait)
        else:
            self._pool.submit(job)

    def _hold(self, ticket: int, message: Message, seconds: float) -> None:
        """Celery's programs send tasks early with an ``eta``; the broker keeps them if it can."""
        assert self._settler is not None
        if self._settler.can_delay:
            del self._flying[ticket]
            with contextlib.suppress(StaleDelivery):
                message.requeue(seconds, counted=False)
        else:
            heapq.heappush(self._held, (time.monotonic() + seconds, ticket, message))

    def _return_held(self) -> None:
        """Give back what waits for its time, for those who are not stopping."""
        for _, ticket, message in self._held:
            del self._flying[ticket]
            with contextlib.suppress(StaleDelivery, Closed):
                message.requeue(counted=False)
        self._held.clear()

    def _release_held(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            _, ticket, message = heapq.heappop(self._held)
            self._pool.submit(_job(ticket, message))

    # --- the pool's threads ----------------------------------------------------------------------

    def _on_outcome(self, ticket: int, outcome: Outcome) -> None:
        message = self._flying.pop(ticket)
        assert self._settler is not None, "outcomes follow messages"
        if isinstance(outcome, Failed):
            logger.error(
                "failed %s %s: %s", task_name(message), task_id(message)[:8], outcome.error
            )
            logger.debug("%s", outcome.trace)
        elif isinstance(outcome, Done) and logger.isEnabledFor(logging.INFO):
            logger.info(
                "done   %s %s  %.0f ms",
                task_name(message),
                task_id(message)[:8],
                outcome.seconds * 1000,
            )
        self._settler.settle(message, outcome)


def _restore(connection: Connection, consumer: Consumer, queues: Sequence[Queue]) -> None:
    """Declare and consume again what somebody deleted."""
    for queue in queues:
        try:
            try:
                connection.inspect(queue)
            except QueueNotFound:
                connection.declare(queue)
                consumer.cancel_queue(queue)  # the subscription that has ended
                consumer.add_queue(queue)
                logger.warning("queue %s is declared again", queue.name)
        except QueueCoreError as error:
            logger.warning("queue %s cannot be restored for now: %s", queue.name, error)


def _definition(info: AppInfo, name: str) -> Queue:
    for queue in info.queues:
        if queue.name == name:
            return queue
    return plain_queue(name)


def _job(ticket: int, message: Message) -> Job:
    return Job(
        ticket,
        task_name(message),
        message.queue,
        message.attempts,
        message.redelivered,
        message.delivery.raw,
        message.delivery.reader.home,
        message.body,
    )


def _seconds_until(eta: object) -> float:
    """Return how long to wait for an ISO 8601 time; 0 if it is over, absent or not understood."""
    if not isinstance(eta, str):
        return 0.0
    try:
        due = datetime.fromisoformat(eta)
    except ValueError:
        logger.warning("the eta %.60r of a task is no ISO 8601 time; the task runs now", eta)
        return 0.0
    due = due if due.tzinfo is not None else due.replace(tzinfo=UTC)
    return max(0.0, (due - datetime.now(UTC)).total_seconds())
