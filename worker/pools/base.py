"""What the worker asks of a pool.

A pool runs jobs and reports outcomes. It knows nothing of brokers, acks or results, so that each
kind - processes, threads, an event loop - is a page of code, and the worker treats them alike. They
do not all do the same: `Abilities` says what a kind of pool can do, and `check_tasks` refuses at
start what it cannot, instead of leaving a limit unkept.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from queue_core import ConfigError, UsageError
from queue_core.worker.outcome import AppInfo, Job, Report

TERMINATE_SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL")


class Abilities(msgspec.Struct, frozen=True):
    """What a kind of pool can do.

    Attributes:
        kind: as ``-P`` calls it.
        separate: tasks run in other processes than the worker.
        soft_limits: it can raise `SoftTimeLimitExceeded` in a task.
        hard_limits: it can end a task that ran too long, and replace what it ran in.
        terminate: it can end a certain running task.
        resize: `Pool.grow` and `Pool.shrink`.
        restart: `Pool.restart`, which imports the app anew.
    """

    kind: str
    separate: bool = False
    soft_limits: bool = False
    hard_limits: bool = False
    terminate: bool = False
    resize: bool = False
    restart: bool = False


class ProcessInfo(msgspec.Struct):
    """One process in which tasks run.

    Attributes:
        pid: its id.
        running: the tickets of the jobs that it was given and did not finish, the oldest first.
        since: when the first of them began, as `time.monotonic`; None if there is none.
        finished: how many jobs it has run.
        memory: its resident memory in bytes; None where that cannot be known.
    """

    pid: int
    running: list[int]
    since: float | None
    finished: int
    memory: int | None


class PoolInfo(msgspec.Struct):
    """What a pool is doing right now.

    Attributes:
        kind: as ``-P`` calls it.
        size: how many tasks it may run at once.
        waiting: jobs that it has and did not give to any process yet.
        processes: where tasks run; those that are being started are not among them.
        max_tasks: after how many jobs a process is replaced; None: never.
        max_memory: above how many bytes a process is replaced; None: never.
    """

    kind: str
    size: int
    waiting: int
    processes: list[ProcessInfo]
    max_tasks: int | None = None
    max_memory: int | None = None


class Pool(Protocol):
    """Runs jobs. After `start` its methods may be called from any thread."""

    @property
    def abilities(self) -> Abilities:
        """What it can do; asking for more raises UsageError."""

    @property
    def separate(self) -> bool:
        """Whether tasks run in other processes than this one."""

    @property
    def ahead(self) -> int:
        """How many jobs it makes sense to give it at once, the running ones included."""

    def start(self, report: Report) -> AppInfo:
        """Make the pool ready and return what the app says of itself.

        Blocks until the app is imported.

        ``report`` is called exactly once for each job that `submit` took.

        Raises:
            AppNotFound: the app cannot be imported.
        """

    def submit(self, job: Job) -> None:
        """Take a job; does not block. After `stop` the job is reported as `Returned`."""

    def terminate(self, ticket: int, signal: str = "SIGTERM") -> bool:
        """End one job, and no other; does not block.

        If it waits, it is reported as `Terminated` and never run. If it runs, SIGTERM and SIGINT
        raise `TaskTerminated` inside the task, and kill its process if it does not end within a
        second; SIGKILL kills it at once. What ends by itself in the meantime is reported as what it
        ended in.

        Returns whether the pool has the job.

        Raises:
            UsageError: the pool cannot do that, or it is another signal.
        """

    def grow(self, count: int = 1) -> int:
        """Run ``count`` more tasks at once from now on; return how many that are.

        Does not block. Raises UsageError if the pool cannot do that.
        """

    def shrink(self, count: int = 1) -> int:
        """Run ``count`` tasks less at once; what runs may finish. Return how many are left.

        Does not block. Raises UsageError if none would be left, or if the pool cannot do that.
        """

    def restart(self) -> None:
        """Replace every process by one that imports the app anew; what runs may finish.

        An old process goes only when its successor is ready, so that an app which cannot be
        imported any more stops nothing. Does not block. Raises UsageError if the pool cannot do
        that.
        """

    def info(self) -> PoolInfo:
        """Say what the pool is doing; does not block."""

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


def check_tasks(
    abilities: Abilities,
    info: AppInfo,
    *,
    soft_limit: float | None = None,
    hard_limit: float | None = None,
) -> None:
    """Refuse what the pool cannot do for the app's tasks, or for limits that hold for all of them.

    Raises:
        ConfigError: names the task, what it asks for, and the pool that can do it.
    """
    asked: list[tuple[str, float | None, float | None]] = [("every task", soft_limit, hard_limit)]
    asked += [(f"task {task.name}", task.soft_limit, task.hard_limit) for task in info.tasks]
    for who, soft, hard in asked:
        if hard is not None and not abilities.hard_limits:
            raise ConfigError(
                f"{who} has a time limit of {hard:g} s, and -P {abilities.kind} cannot end a task; "
                "use -P prefork, or take the limit away"
            )
        if soft is not None and not abilities.soft_limits:
            raise ConfigError(
                f"{who} has a soft time limit of {soft:g} s, and -P {abilities.kind} cannot "
                "interrupt a task; use -P prefork or asyncio, or take the limit away"
            )


def refuse(abilities: Abilities, what: str) -> UsageError:
    """Return the error for something that a pool cannot do."""
    return UsageError(f"-P {abilities.kind} cannot {what}; -P prefork can")


def check_signal(signal: str) -> str:
    """Return the name of a signal that `Pool.terminate` takes: ``TERM`` is ``SIGTERM``.

    Raises:
        UsageError: it is another one.
    """
    name = signal.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in TERMINATE_SIGNALS:
        raise UsageError(
            f"a task is terminated by one of {', '.join(TERMINATE_SIGNALS)}, not by {signal!r}"
        )
    return name
