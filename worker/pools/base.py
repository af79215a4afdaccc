"""What the worker asks of a pool.

A pool runs jobs and reports outcomes. It knows nothing of brokers, acks or results, so that each
kind - processes, threads, an event loop - is a page of code, and the worker treats them alike. They
do not all do the same: `Abilities` says what a kind of pool can do, and `check_task` refuses what
it cannot, at start and when limits are changed, instead of leaving a limit unkept.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from queue_core import ConfigError, UsageError
from queue_core.worker.guarding import Fail, unheard
from queue_core.worker.outcome import AppInfo, Hear, Job, Report, TaskInfo
from queue_core.worker.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
"""By what a task can be terminated."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How tasks are run.

    Attributes:
        kind: as ``-P`` calls it.
        size: how many at once.
        soft_limit, hard_limit: seconds, for tasks that say nothing of it themselves.
        max_tasks: after how many tasks a child is replaced.
        max_memory: above how many bytes a child is replaced.
        forks: children may be forked.

    What is None is as the app's settings say.
    """

    kind: str = "prefork"
    size: int | None = None
    soft_limit: float | None = None
    hard_limit: float | None = None
    max_tasks: int | None = None
    max_memory: int | None = None
    forks: bool = True


class Abilities(msgspec.Struct, frozen=True):
    """What a kind of pool can do.

    Attributes:
        kind: as ``-P`` calls it.
        separate: tasks run in other processes than the worker.
        soft_limits: in which tasks it can raise `SoftTimeLimitExceeded`.
        hard_limits: it can end a task that ran too long, and replace what it ran in.
        terminate: it can end a certain running task.
        resize: `Pool.grow` and `Pool.shrink`.
        restart: `Pool.restart`, which imports the app anew.
    """

    kind: str
    separate: bool = False
    soft_limits: Literal["none", "coroutines", "all"] = "none"
    hard_limits: bool = False
    terminate: bool = False
    resize: bool = False
    restart: bool = False


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
    """What a pool is doing right now.

    Attributes:
        kind: as ``-P`` calls it.
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


class Limits(msgspec.Struct, frozen=True):
    """What the settings say of how long and how often tasks run, in seconds, counts and bytes."""

    soft_limit: float | None
    hard_limit: float | None
    max_tasks: int | None
    max_memory: int | None


def limits_of(settings: Settings) -> Limits:
    """Return the limits of the settings; 0 is none."""
    memory = settings.worker_max_memory_per_child
    return Limits(
        settings.task_soft_time_limit or None,
        settings.task_time_limit or None,
        settings.worker_max_tasks_per_child or None,
        memory * 1024 if memory else None,
    )


def usual_size(kind: str) -> int:
    """How many tasks a pool runs at once unless somebody says otherwise."""
    return 100 if kind == "asyncio" else os.cpu_count() or 1


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
        """How many jobs it makes sense to give it at once, the running ones included.

        Changes with what it learns of them: more while they are short.
        """

    def start(self, report: Report, hear: Hear | None = None, fail: Fail = unheard) -> AppInfo:
        """Make the pool ready and return what the app says of itself.

        Blocks until the app is imported.

        Args:
            report: called exactly once for each job that `submit` took.
            hear: called when a job begins that wants to be announced (`Job.announce`), and when
                its task says how far it has come. Never called for one that was not begun.
            fail: called when the pool cannot go on, because of a mistake in itself; what it had
                is reported, and whatever it is given after that is `Returned`.

        Raises:
            AppNotFound: the app cannot be imported.
            NotStarted: `abort` or `stop` was called meanwhile.
        """

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
        """End a `start`, or the grace of a `stop`, that is waiting, now.

        Does not block; safe in a signal handler.
        """

    # --- control: none of these blocks -----------------------------------------------------------

    def info(self) -> PoolInfo:
        """Say what runs, and where."""

    def grow(self, count: int = 1) -> int:
        """Run ``count`` more jobs at once; return the new size.

        Raises UsageError if the pool cannot do that.
        """

    def shrink(self, count: int = 1) -> int:
        """Run ``count`` fewer at once, ending what runs in its own time; return the new size.

        Raises UsageError if none would be left, or if the pool cannot do that.
        """

    def restart(self) -> None:
        """Replace every process by one that imports the app anew.

        An old process goes when its job has ended and its successor is ready, so that an app which
        cannot be imported any more stops nothing. Raises UsageError if the pool cannot do that.
        """

    def withdraw(self, ticket: int) -> bool:
        """Take back a job that was not started: it is reported as `Returned`.

        Returns False, and does nothing, if it has begun, is about to, or has ended.
        """

    def return_waiting(self) -> bool:
        """Give back what waits behind long tasks, for another worker may be idle.

        If as many jobs as can run at once have all run for `pace.LONG` seconds, the others are
        reported as `Returned`, and `ahead` makes sure that not as many come again. Else nothing
        is done. Returns whether there were others.
        """

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """End one job, and no other: it is reported as `Terminated`.

        One that was not started never is. In one that runs, SIGTERM and SIGINT raise
        `TaskTerminated`, and its process is killed if it does not end within a second; SIGKILL
        kills it at once. A job that ends by itself in the meantime is reported as what it ended in.

        Returns False, and does nothing, if the pool does not have the job (any more).

        Raises:
            UsageError: the pool cannot do that, or it is another signal.
        """


def check_task(abilities: Abilities, task: TaskInfo) -> None:
    """Refuse what the pool cannot do for a task.

    Raises:
        ConfigError: names the task, what it asks for, and the pool that can do it.
    """
    if task.hard_limit is not None and not abilities.hard_limits:
        raise ConfigError(
            f"task {task.name} has a time limit of {task.hard_limit:g} s, and "
            f"-P {abilities.kind} cannot end a task; use -P prefork, or take the limit away"
        )
    if task.soft_limit is None or abilities.soft_limits == "all":
        return
    limit = f"task {task.name} has a soft time limit of {task.soft_limit:g} s, and"
    if abilities.soft_limits == "none":
        raise ConfigError(
            f"{limit} -P {abilities.kind} cannot interrupt a task; use -P prefork or asyncio, or "
            "take the limit away"
        )
    if not task.coroutine:
        raise ConfigError(
            f"{limit} -P {abilities.kind} runs it in a thread, where it cannot be interrupted; "
            "make it async def, use -P prefork, or take the limit away"
        )


def refuse(abilities: Abilities, what: str) -> UsageError:
    """Return the error for something that a pool cannot do."""
    return UsageError(f"-P {abilities.kind} cannot {what}; -P prefork can")


def check_signal(number: int) -> None:
    """Refuse a signal that `Pool.terminate` does not take.

    Raises:
        UsageError: names those that it takes.
    """
    if number not in SIGNALS:
        names = ", ".join(known.name for known in SIGNALS)
        raise UsageError(f"a task is terminated by one of {names}, not by signal {number}")
