"""Tasks that are coroutine functions, many at once, on the event loop of the worker's own process.

Right for tasks that wait for the network and were written for asyncio: thousands may be in flight.
Soft time limits and terminating reach them where they wait; one that computes without ever waiting
holds up all others, and cannot be ended. Tasks that are plain functions run beside them in threads.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from typing import Any

from queue_core.worker.app import App
from queue_core.worker.guarding import Fail, unheard
from queue_core.worker.limits import SoftTimeLimitExceeded, TaskTerminated
from queue_core.worker.loops import Run, loop_here
from queue_core.worker.outcome import (
    AppInfo,
    Done,
    Hear,
    Job,
    Outcome,
    Report,
    Returned,
    Terminated,
)
from queue_core.worker.pools.base import Abilities, PoolInfo, check_signal, refuse
from queue_core.worker.pools.runs import Runs
from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.trace import job_steps

ASYNCIO = Abilities("asyncio", soft_limits="coroutines", terminate=True, resize=True)
MAX_AHEAD = 1000
_TIDYING = 1.0


class AsyncioPool:
    """Runs up to ``size`` coroutines at once. See `queue_core.worker.pools.base.Pool`."""

    def __init__(self, size: int, app: App, *, soft_limit: float | None = None) -> None:
        """Nothing is started yet. ``soft_limit``: seconds, for jobs that come without one."""
        self._size = size
        self._app = app
        self._soft_limit = soft_limit
        self._runs = Runs()
        self._threads = ThreadPool(size, app, runs=self._runs)
        self._loop = loop_here()
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._stopping = False
        self._coroutines: frozenset[str] = frozenset()  # the names of tasks that the loop runs
        self._flights: dict[int, _Flight] = {}  # changed by the loop's thread alone
        self._empty = threading.Event()

    abilities = ASYNCIO
    separate = False

    @property
    def ahead(self) -> int:
        """As of threads, but no more than a process can take on at once."""
        return min(self._size * self._runs.pace.ahead, max(self._size, MAX_AHEAD))

    def start(self, report: Report, hear: Hear | None = None, fail: Fail = unheard) -> AppInfo:
        """Start the threads; the loop runs already."""
        info = self._runs.open(self._app, ASYNCIO, report, hear, fail)
        self._coroutines = frozenset(task.name for task in info.tasks if task.coroutine)
        self._threads.grow(0)
        return info

    def submit(self, job: Job) -> None:
        """Hand the job to the loop, or to the threads if its task is a plain function."""
        if job.soft_limit is None:
            job.soft_limit = self._soft_limit
        if job.name not in self._coroutines:
            self._threads.submit(job)
            return
        with self._lock:
            if not self._stopping:
                self._jobs.append(job)
                self._loop.call_soon_threadsafe(self._fill)
                return
        self._runs.tell(job.ticket, Returned())

    def stop(self, grace: float) -> bool:
        """Give back what waits, wait for what runs, interrupt what does not end."""
        with self._lock:
            self._stopping = True
            waiting = list(self._jobs)
            self._jobs.clear()
        for job in waiting:
            self._runs.tell(job.ticket, Returned())
        clean = self._threads.stop(grace)  # what runs on the loop is waited for, too
        if not clean:
            self._loop.call_soon_threadsafe(self._interrupt_all)
            self._empty.wait(_TIDYING)
        return clean

    def abort(self) -> None:
        """Do not wait any longer."""
        self._threads.abort()

    def info(self) -> PoolInfo:
        """Say what runs."""
        limits = {} if self._soft_limit is None else {"soft_limit": self._soft_limit}
        return PoolInfo(ASYNCIO.kind, self._size, self._runs.running(), limits=limits)

    def grow(self, count: int = 1) -> int:
        """Let more run at once."""
        self._size = self._threads.grow(count)
        self._loop.call_soon_threadsafe(self._fill)
        return self._size

    def shrink(self, count: int = 1) -> int:
        """Let less run at once; what runs may finish."""
        self._size = self._threads.shrink(count)
        return self._size

    def restart(self) -> None:
        """Raise UsageError: the app was imported by this process, and cannot be again."""
        raise refuse(ASYNCIO, "import the app anew")

    def withdraw(self, ticket: int) -> bool:
        """Take back a job that was not started."""
        return self._forget(ticket, Returned()) or self._threads.withdraw(ticket)

    def return_waiting(self) -> bool:
        """Give back what was not started, if as many as may have run for long."""
        returned = self._runs.return_waiting(self._jobs, self._lock, self._size)
        return self._threads.return_waiting() or returned

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """Raise `TaskTerminated` where the coroutine waits; a plain function cannot be ended."""
        check_signal(number)
        if self._forget(ticket, Terminated()):
            return True
        flight = self._flights.get(ticket)
        if flight is None:
            return self._threads.terminate(ticket, number)
        self._loop.call_soon_threadsafe(flight.terminate)
        return True

    def _forget(self, ticket: int, outcome: Outcome) -> bool:
        return self._runs.forget(self._jobs, self._lock, ticket, outcome)

    # --- the loop's thread -----------------------------------------------------------------------

    def _fill(self) -> None:
        while len(self._flights) < self._size:
            with self._lock:
                if not self._jobs:
                    break
                job = self._jobs.popleft()
                flight = self._flights[job.ticket] = _Flight(self._loop)
                self._runs.take(job)
            self._runs.begin(job)
            flight.task = self._loop.create_task(self._run(job, flight))

    async def _run(self, job: Job, flight: _Flight) -> None:
        try:
            steps = job_steps(self._app, job, flight, self._runs.say_of(job))
            waiting = next(steps)
            while True:
                value, error = await flight.wait_for(waiting)
                waiting = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as end:
            outcome: Outcome = end.value[0]
        except Exception as error:
            outcome = self._runs.failed(job, error)
        if flight.terminated and not isinstance(outcome, Done):
            outcome = Terminated()
        self._runs.end(job.ticket, outcome)
        del self._flights[job.ticket]
        self._fill()
        self._land()

    def _interrupt_all(self) -> None:
        """Let what runs put things in order; it was reported as abandoned."""
        for flight in self._flights.values():
            flight.terminate()
        self._land()

    def _land(self) -> None:
        if self._stopping and not self._flights:
            self._empty.set()


class _Flight:
    """One coroutine on its way: the guard around it, and what interrupts it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._run: Run[Any] | None = None
        self._soft: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.terminated = False

    async def wait_for(self, awaitable: Any) -> tuple[Any, BaseException | None]:
        """Await it; return its value and what it raised."""
        self._run = Run(awaitable)
        try:
            if self.terminated:
                self._run.interrupt(TaskTerminated())
            return await self._run.result()
        finally:
            self._run = None

    def terminate(self) -> None:
        """End it where it waits."""
        self.terminated = True
        self._interrupt(TaskTerminated())

    def __call__(self, soft: float | None, hard: float | None) -> _Flight:
        """A `queue_core.worker.trace.Guard`."""
        self._soft = soft
        return self

    def __enter__(self) -> None:
        if self._soft is not None:
            error = SoftTimeLimitExceeded(self._soft)
            self._alarm = self._loop.call_later(self._soft, self._interrupt, error)

    def __exit__(self, *_: object) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _interrupt(self, error: BaseException) -> None:
        if self._run is not None:
            self._run.interrupt(error)
