"""The worker: takes messages, hands them to a pool, and settles them by what the pool says.

It is made of steps (`queue_core.worker.blueprint`). The worker's own are the timer, the pool, what
it remembers across restarts, and the consumer, which is made of steps itself
(`queue_core.worker.consumer`): connection, remote control, tasks, and the loop that takes messages.
The pool runs tasks and the settler acks them, each on threads of its own. The thread that calls
`Worker.run` starts and stops the steps, and waits for signals in between.

Stopping, on the first SIGTERM or SIGINT: take nothing more, give back what was not started, wait
for what runs up to ``drain`` seconds, settle, leave. The second signal ends the waiting. At no
point is a message acked that was not run, or that asked for that.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from queue_core import ConfigError, QueueCoreError, counted
from queue_core.mailbox import LamportClock
from queue_core.worker.absent import NotStarted
from queue_core.worker.blueprint import Blueprint, load
from queue_core.worker.flags import WorkerOptions, expand
from queue_core.worker.hooks import WorkerHooks
from queue_core.worker.in_flight import InFlight
from queue_core.worker.outcome import AppInfo
from queue_core.worker.pools.base import Pool
from queue_core.worker.revoked import Revoked
from queue_core.worker.settings import DEFAULTS
from queue_core.worker.signals import Signals
from queue_core.worker.timer import Timer
from queue_core.worker.timestamps import zone_of

logger = logging.getLogger(__name__)

DRAINED, FORCED = 0, 9

STEPS: Final = tuple(
    f"queue_core.worker.steps.{path}"
    for path in ("timer:Timer", "pool:Pool", "state:StateDB", "consumer:Consumer")
)
"""The worker's own steps; an app may add others with ``app.steps["worker"].add(...)``."""
CONSUMER_STEPS: Final = "queue_core.worker.consumer.consumer:STEPS"
"""Where those of the consumer stand."""


class Worker:
    """One worker process's work. `run` blocks; `stop` may be called from any thread.

    Attributes:
        pool: runs the tasks.
        options: how it runs.
        info: what the app says of itself; known once the pool has started.
        in_flight: the messages that are here.
        revoked: ids of tasks that shall not run.
        clock: the logical clock that remote control shares.
        timer: calls functions later.
        hooks: functions of the app that hear what happens here.
        consumer: the `queue_core.worker.consumer.consumer.TaskConsumer`.
        ready: set when the worker takes messages.
        clean: every task that ran could finish.
    """

    def __init__(self, pool: Pool, options: WorkerOptions) -> None:
        """Nothing is started; the pool belongs to the worker from `run` on."""
        self.pool = pool
        self.options = options
        self.revoked = Revoked()
        self.in_flight = InFlight(self.revoked, options.name)
        self.clock = LamportClock()
        self.timer = Timer(fail=self.fail)
        self.hooks = WorkerHooks()
        self.consumer: Any = None
        self.ready = threading.Event()
        self.clean = True
        self.began = time.time()
        self._info: AppInfo | None = None
        self._blueprint: Blueprint | None = None
        self._signals = Signals(now=pool.abort, hang_up=self.restart_children)
        self._failure: Exception | None = None
        self._failing = threading.Lock()

    @property
    def info(self) -> AppInfo:
        """What the app says of itself."""
        assert self._info is not None, "the pool tells it when it starts"
        return self._info

    @property
    def drain(self) -> float:
        """Seconds to wait for running tasks when stopping."""
        given = self.options.drain
        return self.info.settings.worker_drain if given is None else given

    @property
    def lease(self) -> float:
        """Seconds after which others may have this worker's messages if it dies."""
        given = self.options.lease
        return self.info.settings.worker_lease if given is None else given

    @property
    def prefetch(self) -> int | None:
        """Messages to hold at once, over all queues; None: the pool decides."""
        settings = self.info.settings
        each = settings.worker_prefetch_multiplier
        given = self.options.prefetch or settings.worker_prefetch
        return given if given or not each else each * self.pool.info().size

    @property
    def statedb(self) -> str:
        """The file that keeps what must survive a restart; empty: none."""
        given = self.options.statedb
        return expand((self.info.settings.worker_state_db or "") if given is None else given)

    @property
    def controlled(self) -> bool:
        """Whether it takes part in remote control."""
        given = self.options.control
        return self.info.settings.worker_enable_remote_control if given is None else given

    @property
    def blueprint(self) -> Blueprint:
        """The worker's steps."""
        assert self._blueprint is not None, "made when the app is known"
        return self._blueprint

    def run(self) -> int:
        """Work until stopped; return `DRAINED`, or `FORCED` if running tasks were cut off.

        In the main thread SIGTERM and SIGINT stop the worker.

        Raises:
            AppNotFound: the app cannot be imported.
            ConfigError, AccessRefused, TopologyMismatch, Unsupported: the broker cannot be used
                this way. A broker that is away is waited for.
            Exception: whatever else the worker cannot go on after, such as the failure of one of
                its threads.
        """
        restore = self._signals.catch()
        began = time.monotonic()
        try:
            loading = threading.Thread(target=_load_steps, name="imports", daemon=True)
            loading.start()
            self._info = self._start_pool()
            loading.join()
            self._check_kind(self._info.settings.worker_pool)
            self.hooks = self.in_flight.hooks = WorkerHooks(self._info.hooks)
            self.in_flight.zone = zone_of(self._info.settings.timezone)
            self._blueprint = Blueprint("worker", [*STEPS, *self.info.steps.get("worker", ())])
            try:
                self.blueprint.start(self)
                if not self.stopping:
                    logger.info("ready in %.2f s", time.monotonic() - began)
                    self.ready.set()
                    self.hooks.worker_ready.tell(self)
                if not self.options.check:
                    self._signals.wait()
            finally:
                self._end()
                self.hooks.worker_shutdown.tell(self)
            if self._failure is not None:
                raise self._failure
            return DRAINED if self.clean else FORCED
        except NotStarted:
            return DRAINED
        finally:
            self.pool.stop(0.0)
            restore()
            self._signals.close()

    def _start_pool(self) -> AppInfo:
        """Start the pool; raises NotStarted if the worker is stopped meanwhile."""
        self._signals.patient = False
        try:
            if self.stopping:
                raise NotStarted
            return self.pool.start(self.in_flight.report, self.in_flight.hear, self.fail)
        finally:
            self._signals.patient = True

    def _check_kind(self, wanted: str) -> None:
        """Raise ConfigError if the app wants another pool than it was imported in."""
        if self.options.pool is None and wanted not in (
            self.pool.abilities.kind,
            DEFAULTS.worker_pool,
        ):
            raise ConfigError(
                f"the app wants worker_pool = {wanted!r}, which must be known before it is "
                f"imported; say -P {wanted}, or put it into queue-core.toml"
            )

    # --- from any thread --------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether the worker should end."""
        return self._signals.stopping

    def stop(self) -> None:
        """Begin to stop, as the first signal does; called again, do not wait for running tasks."""
        self._signals.stop()

    def fail(self, error: BaseException) -> None:
        """Stop because of an error, which `run` raises in the end; what runs may finish."""
        if not isinstance(error, Exception):  # somebody wanted to leave, in the wrong thread
            error = RuntimeError(f"a thread of the worker was ended by {error!r}")
        with self._failing:  # several at once: a second `stop` would cut off what runs
            if self._failure is None:
                self._failure = error
                logger.error("the worker ends: %s", error)
            if not self.stopping:
                self.stop()

    def post(self, call: Callable[[], None]) -> None:
        """Have the thread of `run` call this soon, unless the worker ends before."""

        def guarded() -> None:
            try:
                call()
            except Exception as error:
                self.fail(error)

        self._signals.post(guarded)

    def pause(self, seconds: float) -> bool:
        """Wait, on the thread of `run`, for that long or a signal; return whether to end."""
        deadline = time.monotonic() + seconds
        while not self.stopping and (left := deadline - time.monotonic()) > 0:
            if self._signals.pause(left):
                break
        return self.stopping

    def restart_children(self) -> None:
        """Replace the pool's processes, if it has any, each when its task has ended."""
        try:
            self.pool.restart()
            logger.info("the children are replaced, one after the other")
        except QueueCoreError as error:
            logger.warning("%s", error)

    # --- the end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        self.blueprint.close(self)
        if here := len(self.in_flight):
            logger.info(
                "stopping: %s here, up to %g s for what runs (a second signal gives it back now)",
                counted(here, "message"),
                self.drain,
            )
        self.blueprint.stop(self, now=self._signals.urgent)
        self.blueprint.shutdown(self)


def work(pool: Pool, options: WorkerOptions) -> int:
    """Run a worker, see `Worker.run`."""
    return Worker(pool, options).run()


def _load_steps() -> None:
    """Import what the steps need, while the first child imports the app."""
    with contextlib.suppress(ConfigError):  # the blueprints will say so
        for path in (*STEPS, *load(CONSUMER_STEPS)):
            load(path)
