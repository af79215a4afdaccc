"""What the worker asks of a pool.

A pool runs jobs and reports outcomes. It knows nothing of brokers, acks or results, so that each
kind - threads, processes, later an event loop - is a page of code, and the worker treats them
alike.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from queue_core.worker.outcome import AppInfo, Job, Report


class Running(msgspec.Struct, frozen=True):
    """One job that runs now.

    Attributes:
        ticket: the job's.
        pid: the process that runs it.
        since: when it began, on this process's monotonic clock.
    """

    ticket: int
    pid: int
    since: float


class PoolInfo(msgspec.Struct, frozen=True):
    """What a pool says of itself.

    Attributes:
        kind: ``prefork``, ``threads``, ``solo``, ``asyncio``.
        size: how many jobs it runs at once.
        running: those that run now.
        pids: of its child processes; empty if it has none.
        limits: what it was configured with, such as ``max_tasks``, for people.
    """

    kind: str
    size: int
    running: tuple[Running, ...] = ()
    pids: tuple[int, ...] = ()
    limits: dict[str, float] = {}


class Pool(Protocol):
    """Runs jobs. ``submit``, ``stop`` and ``abort`` may be called from any thread."""

    def start(self, report: Report) -> AppInfo:
        """Make the pool ready and return what the app says of itself.

        Blocks until the app is imported.

        ``report`` is called exactly once for each job that `submit` took.

        Raises:
            AppNotFound: the app cannot be imported.
        """

    @property
    def separate(self) -> bool:
        """Whether tasks run in other processes than this one."""

    @property
    def ahead(self) -> int:
        """How many jobs it makes sense to give it at once, the running ones included."""

    def submit(self, job: Job) -> None:
        """Take a job; does not block. After `stop` the job is reported as `Returned`."""

    def stop(self, grace: float) -> bool:
        """End, giving what runs up to ``grace`` seconds.

        Unstarted jobs are reported as `Returned` at once, those that did not end in time as
        `Abandoned`. Blocks until all is reported and nothing runs any more (threads that cannot be
        stopped are left behind as daemons). Returns whether everything that ran could finish. May
        be called twice, or without `start`.
        """

    def abort(self) -> None:
        """End the grace of a `stop` that is waiting, now.

        Does not block; safe in a signal handler.
        """

    # --- control: from any thread; none of these blocks ------------------------------------------

    def info(self) -> PoolInfo:
        """Say what runs, and where."""

    def grow(self, count: int) -> int:
        """Run ``count`` more jobs at once; return the new size. Raises Unsupported."""

    def shrink(self, count: int) -> int:
        """Run ``count`` fewer at once, at least one, ending what runs in its own time.

        Returns the new size. Raises Unsupported.
        """

    def restart(self) -> None:
        """Replace every child process, each once its job has ended. Raises Unsupported."""

    def withdraw(self, ticket: int) -> bool:
        """Take back a job that was not started: it is reported as `Returned`.

        Returns False, and does nothing, if it has begun, is about to, or has ended.
        """

    def terminate(self, ticket: int, number: int) -> bool:
        """Send signal ``number`` to the process that runs this job, and to no other.

        The process is killed if it still runs that job a moment later; the job is reported as
        `Crashed`. Returns False, and does nothing, if the job does not run (any more). Raises
        Unsupported where jobs do not run in processes of their own.
        """
