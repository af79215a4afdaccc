"""What the worker asks of a pool.

A pool runs jobs and reports outcomes. It knows nothing of brokers, acks or results, so that each
kind - threads, processes, later an event loop - is a page of code, and the worker treats them
alike.
"""

from __future__ import annotations

from typing import Protocol

from queue_core.worker.outcome import AppInfo, Job, Report


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
