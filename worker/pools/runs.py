"""What pools have in common that run tasks in the worker's own process: each is reported once."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

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
)
from queue_core.worker.pools.base import Abilities, Running, check_task
from queue_core.worker.pools.pace import LONG, Pace
from queue_core.worker.request import Say
from queue_core.worker.running import Guard, unguarded
from queue_core.worker.trace import run_job

logger = logging.getLogger(__name__)

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
        for task in info.tasks:
            check_task(abilities, task)
        app.hooks.process_init.tell()
        self._farewell = app.hooks.process_shutdown
        return info

    def take(self, job: Job) -> bool:
        """Note that a job runs, whose next step is `begin`; False once `wait` was called.

        Under the same lock under which the job was found among those that wait: so it is always
        among the ones or the others, and nobody who looks for it misses it.
        """
        with self._changed:
            if not self._closed:
                self._running[job.ticket] = time.monotonic()
            return not self._closed

    def begin(self, job: Job) -> None:
        """Say that a job runs, if somebody wants to know."""
        if job.announce:
            self._pass_on(job.ticket, Begins(os.getpid()))

    def run(self, app: App, job: Job, guard: Guard) -> None:
        """Run a job that was taken in this thread, and report it."""
        self.begin(job)
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

    def return_waiting(
        self, jobs: deque[Job], lock: AbstractContextManager[Any], size: int
    ) -> bool:
        """Return all of ``jobs``, which ``lock`` guards, if ``size`` others have run for long."""
        with self._changed:
            latest = max(self._running.values(), default=math.inf)
            if len(self._running) < size or time.monotonic() - latest < LONG:
                return False
        self.pace.slow_down()
        with lock:
            waiting = list(jobs)
            jobs.clear()
        for job in waiting:
            self.tell(job.ticket, Returned())
        return bool(waiting)

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
                "a time limit is asked for, and what -P %s runs cannot be interrupted; with "
                "-P prefork it can",
                self._kind,
            )
        return unguarded(soft, hard)
