"""Tasks in threads of the worker's own process, or one at a time in the thread that consumes.

Threads cost little and share everything, the interpreter lock too: right for tasks that wait for
the network. They cannot be interrupted or killed: no time limits, no terminating; a task that
outlives the grace of `stop` is left behind, and one that crashes the interpreter takes the worker
with it.

Waking a thread costs more than a short task takes, and while it wakes it fights for the interpreter
lock. So while tasks are short a job is left to a thread that has just begun another one, which will
be back soon; one of the idle threads keeps a lookout, and takes the job if that was a mistake.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from typing import Final

from queue_core import UsageError
from queue_core.worker.app import App
from queue_core.worker.guarding import Fail, unheard
from queue_core.worker.outcome import AppInfo, Hear, Job, Report, Returned, Terminated
from queue_core.worker.pools.base import Abilities, PoolInfo, refuse
from queue_core.worker.pools.runs import Runs, Unlimited

THREADS = Abilities("threads", resize=True)
SOLO = Abilities("solo")
SHORT: Final = 0.001
"""Seconds: tasks that take less on average are short, and one that began longer ago is not."""


class ThreadPool:
    """Runs jobs in ``size`` threads. See `queue_core.worker.pools.base.Pool`."""

    def __init__(self, size: int, app: App, *, runs: Runs | None = None) -> None:
        """Nothing is started yet. ``runs``: share it with another pool, and `stop` ends both."""
        self._size = size
        self._app = app
        self._runs = runs or Runs()
        self._guard = Unlimited(THREADS.kind)
        self._threads = 0
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._begun: dict[int, float] = {}  # ticket -> when, the latest at the end
        self._lookout = False
        self._stopping = False

    abilities = THREADS
    separate = False

    @property
    def ahead(self) -> int:
        """Enough for a tenth of a second, which is more the shorter the tasks are."""
        return self._size * self._runs.pace.ahead

    def start(self, report: Report, hear: Hear | None = None, fail: Fail = unheard) -> AppInfo:
        """Start the threads."""
        with self._changed:
            self._hire()
        return self._runs.open(self._app, THREADS, report, hear, fail)

    def submit(self, job: Job) -> None:
        """Put the job where a thread finds it."""
        with self._changed:
            if not self._stopping:
                self._jobs.append(job)
                if not (self._lookout and self._attended()):
                    self._changed.notify()
                return
        self._runs.tell(job.ticket, Returned())

    def stop(self, grace: float) -> bool:
        """Give back what waits, wait for what runs, leave behind what does not end."""
        with self._changed:
            self._stopping = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            self._runs.tell(job.ticket, Returned())
        return self._runs.wait(grace)

    def abort(self) -> None:
        """Do not wait any longer."""
        self._runs.abort()

    def info(self) -> PoolInfo:
        """Say what runs."""
        return PoolInfo(THREADS.kind, self._size, self._runs.running())

    def grow(self, count: int = 1) -> int:
        """Start more threads."""
        with self._changed:
            self._size += count
            self._hire()
            return self._size

    def shrink(self, count: int = 1) -> int:
        """End threads, each when its job has ended."""
        with self._changed:
            if count >= self._size:
                raise UsageError(f"a pool of {self._size} cannot shrink by {count}: one must stay")
            self._size -= count
            self._changed.notify_all()
            return self._size

    def restart(self) -> None:
        """Raise UsageError: the app was imported by this process, and cannot be again."""
        raise refuse(THREADS, "import the app anew")

    def withdraw(self, ticket: int) -> bool:
        """Take back a job that no thread has taken."""
        return self._runs.forget(self._jobs, self._changed, ticket, Returned())

    def return_waiting(self) -> bool:
        """Give back what no thread has taken, if all have been busy with one job for long."""
        return self._runs.return_waiting(self._jobs, self._changed, self._size)

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """End a job that no thread has taken; raise UsageError for one that runs."""
        if self._runs.forget(self._jobs, self._changed, ticket, Terminated()):
            return True
        if any(running.ticket == ticket for running in self._runs.running()):
            raise refuse(THREADS, "end a task that runs")
        return False

    def _hire(self) -> None:
        while self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name="task thread", daemon=True).start()

    def _work(self) -> None:
        job: Job | None = None
        while (job := self._next(job)) is not None:
            self._runs.run(self._app, job, self._guard)

    def _next(self, ended: Job | None) -> Job | None:
        """Wait for a job, after another one has ended in this thread; None: the thread shall."""
        with self._changed:
            if ended is not None:
                del self._begun[ended.ticket]
            at_once = ended is not None
            while not self._stopping and self._threads <= self._size:
                if self._jobs and (at_once or not self._attended()):
                    job = self._jobs.popleft()
                    self._begun[job.ticket] = time.monotonic()
                    self._runs.take(job)
                    if self._jobs and not self._lookout:
                        self._changed.notify()
                    return job
                self._rest()
                at_once = False
            self._threads -= 1
            self._changed.notify()  # it may have been woken for a job
            return None

    def _attended(self) -> bool:
        """Whether a thread is about to end a short task, and then takes what waits."""
        if not self._begun or self._runs.pace.typical > SHORT:
            return False
        return time.monotonic() - next(reversed(self._begun.values())) < SHORT

    def _rest(self) -> None:
        """Wait to be woken; or, if there is something to look after and nobody does, for a moment.

        The lookout stays on while others work: what they leave is found without waking anybody.
        """
        if self._lookout or not (self._jobs or self._attended()):
            self._changed.wait()
            return
        self._lookout = True
        self._changed.wait(SHORT)
        self._lookout = False


class SoloPool:
    """Runs each job in the thread that submits it: one at a time, for debugging."""

    def __init__(self, app: App) -> None:
        """Nothing to start."""
        self._app = app
        self._runs = Runs()
        self._guard = Unlimited(SOLO.kind)

    abilities = SOLO
    separate = False

    @property
    def ahead(self) -> int:
        """One."""
        return 1

    def start(self, report: Report, hear: Hear | None = None, fail: Fail = unheard) -> AppInfo:
        """Remember whom to tell."""
        return self._runs.open(self._app, SOLO, report, hear, fail)

    def submit(self, job: Job) -> None:
        """Run the job; blocks until it has ended."""
        if self._runs.take(job):
            self._runs.run(self._app, job, self._guard)
        else:
            self._runs.tell(job.ticket, Returned())

    def stop(self, grace: float) -> bool:
        """Wait for the job that runs."""
        return self._runs.wait(grace)

    def abort(self) -> None:
        """Do not wait any longer."""
        self._runs.abort()

    def info(self) -> PoolInfo:
        """Say what runs."""
        return PoolInfo(SOLO.kind, 1, self._runs.running())

    def grow(self, count: int = 1) -> int:
        """Raise UsageError."""
        raise refuse(SOLO, "run more than one task at once")

    def shrink(self, count: int = 1) -> int:
        """Raise UsageError."""
        raise refuse(SOLO, "run less than one task at once")

    def restart(self) -> None:
        """Raise UsageError: the app was imported by this process, and cannot be again."""
        raise refuse(SOLO, "import the app anew")

    def withdraw(self, ticket: int) -> bool:
        """Return False: what it has, it runs."""
        return False

    def return_waiting(self) -> bool:
        """Do nothing: what it has, it runs."""
        return False

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """Raise UsageError for the task that runs."""
        if any(running.ticket == ticket for running in self._runs.running()):
            raise refuse(SOLO, "end a task that runs")
        return False
