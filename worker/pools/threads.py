"""Tasks in threads of the worker's own process, or one at a time in the thread that consumes.

Threads cost little and share everything, the interpreter lock too: right for tasks that wait for
the network. They cannot be interrupted or killed: no time limits, no terminating; a task that
outlives the grace of `stop` is left behind, and one that crashes the interpreter takes the worker
with it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from queue_core import UsageError
from queue_core.worker.app import App
from queue_core.worker.guarding import Fail, unheard
from queue_core.worker.hooks import Hook
from queue_core.worker.outcome import (
    Abandoned,
    AppInfo,
    Begins,
    Done,
    Failed,
    Hear,
    Job,
    News,
    Outcome,
    Report,
    Returned,
    Says,
    Terminated,
)
from queue_core.worker.pools.base import Abilities, PoolInfo, Running, check_tasks, refuse
from queue_core.worker.pools.pace import Pace
from queue_core.worker.request import Say
from queue_core.worker.running import Guard, unguarded
from queue_core.worker.trace import run_job

logger = logging.getLogger(__name__)

THREADS = Abilities("threads", resize=True)
SOLO = Abilities("solo")
_TICK = 0.2


class Runs:
    """Which tickets run, so that each is reported once: by its thread, or as abandoned."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._changed = threading.Condition()
        self._running: dict[int, float] = {}
        self._telling = 0
        self._closed = False
        self._aborted = False
        self.report: Report | None = None
        self.hear: Hear | None = None
        self._farewell: Hook[[]] | None = None
        self.fail: Fail = unheard
        self.pace = Pace()

    def open(
        self, app: App, abilities: Abilities, report: Report, hear: Hear | None, fail: Fail
    ) -> AppInfo:
        """Begin to report, in this process, which has imported the app; see `Pool.start`."""
        self.report, self.hear, self.fail = report, hear, fail
        info = app.info()
        check_tasks(abilities, info)
        app.hooks.process_init.tell()
        self._farewell = app.hooks.process_shutdown
        return info

    def begin(self, job: Job) -> bool:
        """Note that a job runs; False, and it is reported as returned, once `wait` was called."""
        with self._changed:
            closed = self._closed
            if not closed:
                self._running[job.ticket] = time.monotonic()
        if closed:
            self.tell(job.ticket, Returned())
        elif job.announce:
            self._pass_on(job.ticket, Begins(os.getpid()))
        return not closed

    def run(self, app: App, job: Job, guard: Guard) -> None:
        """Run a job in this thread and report it; it is given back once `wait` was called."""
        if self.begin(job):
            try:
                outcome: Outcome = run_job(app, job, guard, self.say_of(job))[0]
            except BaseException as error:
                outcome = self.failed(job, error)
            self.end(job.ticket, outcome)

    def failed(self, job: Job, error: BaseException) -> Outcome:
        """Tell that running a job failed, which is not for its task to do; return what it is."""
        logger.error("running %s failed, not by its task", job.name, exc_info=error)
        self.fail(error)
        return Abandoned()

    def forget(
        self, jobs: deque[Job], lock: AbstractContextManager[Any], ticket: int, outcome: Outcome
    ) -> bool:
        """Report a job that waits among ``jobs``, which ``lock`` guards; whether there is one."""
        with lock:
            found = next((job for job in jobs if job.ticket == ticket), None)
            if found is not None:
                jobs.remove(found)
        if found is not None:
            self.tell(ticket, outcome)
        return found is not None

    def say_of(self, job: Job) -> Say:
        """Return how the task of a job says how far it has come."""
        return lambda state: self._pass_on(job.ticket, Says(state()))

    def _pass_on(self, ticket: int, news: News) -> None:
        """Tell news, and survive whatever becomes of them."""
        if self.hear is not None:
            try:
                self.hear(ticket, news)
            except Exception:
                logger.exception("news of ticket %d could not be told", ticket)

    def end(self, ticket: int, outcome: Outcome) -> None:
        """Report a job that has ended, unless it was given up."""
        if isinstance(outcome, Done | Failed):
            self.pace.observe("", outcome.seconds)
        with self._changed:
            mine = self._running.pop(ticket, None) is not None
            self._telling += mine
        if mine:
            self.tell(ticket, outcome)
            with self._changed:
                self._telling -= 1
                self._changed.notify_all()

    def tell(self, ticket: int, outcome: Outcome) -> None:
        """Report, and survive whatever the report does."""
        assert self.report is not None, "jobs come after start"
        try:
            self.report(ticket, outcome)
        except Exception:
            logger.exception("the outcome of ticket %d could not be taken", ticket)

    def wait(self, grace: float) -> bool:
        """Wait until nothing runs; give up the rest after ``grace``, and say whether none was."""
        deadline = time.monotonic() + grace
        with self._changed:
            self._closed = True
            while self._running and not self._aborted and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, _TICK))
            left_behind = list(self._running)
            self._running.clear()
            while self._telling:
                self._changed.wait()
        for ticket in left_behind:
            self.tell(ticket, Abandoned())
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            farewell.tell()
        return not left_behind

    def abort(self) -> None:
        """End a `wait` within a moment; takes no lock, since it may interrupt its holder."""
        self._aborted = True

    def running(self) -> tuple[Running, ...]:
        """What runs now."""
        with self._changed:
            pid = os.getpid()
            return tuple(Running(ticket, pid, since) for ticket, since in self._running.items())


class Unlimited:
    """What stands around a task that cannot be interrupted: says so once if it should be."""

    def __init__(self, kind: str) -> None:
        """``kind`` is the pool's, as ``-P`` calls it."""
        self._kind = kind
        self._said = False

    def __call__(self, soft: float | None, hard: float | None) -> AbstractContextManager[None]:
        """A `queue_core.worker.trace.Guard`."""
        if not (soft is None and hard is None) and not self._said:
            self._said = True
            logger.warning(
                "messages ask for time limits, and -P %s keeps none; -P prefork does", self._kind
            )
        return unguarded(soft, hard)


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

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """End a job that no thread has taken; raise UsageError for one that runs."""
        if any(running.ticket == ticket for running in self._runs.running()):
            raise refuse(THREADS, "end a task that runs")
        return self._runs.forget(self._jobs, self._changed, ticket, Terminated())

    def _hire(self) -> None:
        while self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name="task thread", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._stopping and self._threads <= self._size:
                    self._changed.wait()
                if self._stopping or self._threads > self._size:
                    self._threads -= 1
                    self._changed.notify()  # it may have been woken for a job
                    return
                job = self._jobs.popleft()
            self._runs.run(self._app, job, self._guard)


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
        self._runs.run(self._app, job, self._guard)

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

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """Raise UsageError for the task that runs."""
        if any(running.ticket == ticket for running in self._runs.running()):
            raise refuse(SOLO, "end a task that runs")
        return False
