"""Tasks in threads of the worker's own process, or one at a time in the thread that consumes.

Threads cost little and share everything, the interpreter lock too: right for tasks that wait for
the network. They cannot be killed, so a task that outlives the grace of `stop` is left behind, and
a task that crashes the interpreter takes the worker with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from queue_core.worker.app import App
from queue_core.worker.outcome import Abandoned, AppInfo, Job, Outcome, Report, Returned
from queue_core.worker.trace import run_job

logger = logging.getLogger(__name__)

_TICK = 0.2


class _Runs:
    """Which tickets run, so that each is reported once: by its thread, or as abandoned."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._changed = threading.Condition()
        self._running: set[int] = set()
        self._telling = 0
        self._closed = False
        self._aborted = False
        self.report: Report | None = None

    def run(self, job: Job) -> None:
        """Run the job here and report it; not once `wait` was called, or if it was given up."""
        with self._changed:
            closed = self._closed
            if not closed:
                self._running.add(job.ticket)
        if closed:
            self.tell(job.ticket, Returned())
            return
        outcome, _ = run_job(self._app, job)
        with self._changed:
            mine = job.ticket in self._running
            self._running.discard(job.ticket)
            self._telling += mine
        if mine:
            self.tell(job.ticket, outcome)
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
        return not left_behind

    def abort(self) -> None:
        """End a `wait` within a moment; takes no lock, since it may interrupt its holder."""
        self._aborted = True


class ThreadPool:
    """Runs jobs in ``size`` threads. See `queue_core.worker.pools.base.Pool`."""

    def __init__(self, size: int, app: App) -> None:
        """Nothing is started yet."""
        self._size = size
        self._app = app
        self._runs = _Runs(app)
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._stopping = False

    @property
    def separate(self) -> bool:
        """They do not."""
        return False

    @property
    def ahead(self) -> int:
        """Twice the threads: those that run, and the next ones."""
        return self._size * 2

    def start(self, report: Report) -> AppInfo:
        """Start the threads."""
        self._runs.report = report
        for number in range(self._size):
            threading.Thread(target=self._work, name=f"task thread {number}", daemon=True).start()
        return self._app.info()

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

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._stopping:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            self._runs.run(job)


class SoloPool:
    """Runs each job in the thread that submits it: one at a time, for debugging."""

    def __init__(self, app: App) -> None:
        """Nothing to start."""
        self._app = app
        self._runs = _Runs(app)

    @property
    def separate(self) -> bool:
        """They do not."""
        return False

    @property
    def ahead(self) -> int:
        """One."""
        return 1

    def start(self, report: Report) -> AppInfo:
        """Remember whom to tell."""
        self._runs.report = report
        return self._app.info()

    def submit(self, job: Job) -> None:
        """Run the job; blocks until it has ended."""
        self._runs.run(job)

    def stop(self, grace: float) -> bool:
        """Wait for the job that runs."""
        return self._runs.wait(grace)

    def abort(self) -> None:
        """Do not wait any longer."""
        self._runs.abort()
