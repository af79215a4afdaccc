"""Tasks in child processes.

The worker's process runs no user code: it hands encoded messages to children and gets outcomes
back, over one stream socket per child. One thread, started here and ended by `stop`, does all of
that: it tells `supervisor.Supervisor` what happened, and that decides who gets what, who is charged
and who is replaced.

A lock guards the supervisor. The thread holds it except while it waits, other callers hold it for a
moment only, and outcomes are reported without it.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable

from queue_core import ConfigError, UsageError
from queue_core.worker.absent import AppNotFound, NotStarted
from queue_core.worker.guarding import Fail, unheard
from queue_core.worker.outcome import (
    AppInfo,
    Begins,
    Hear,
    Job,
    News,
    Outcome,
    Report,
    Returned,
    Says,
)
from queue_core.worker.pools.base import (
    Abilities,
    PoolInfo,
    Running,
    check_signal,
    limits_of,
    usual_size,
)
from queue_core.worker.pools.children import Child, Children
from queue_core.worker.pools.frames import (
    Ended,
    FromChild,
    Heard,
    Imported,
    Interrupted,
    Leaving,
    Limited,
    NotReady,
    Setup,
)
from queue_core.worker.pools.launching import Template, can_fork
from queue_core.worker.pools.supervisor import START_TIMEOUT, Supervisor
from queue_core.worker.settings import Settings
from queue_core.worker.wake_pipe import WakePipe

logger = logging.getLogger(__name__)

ABILITIES = Abilities(
    "prefork",
    separate=True,
    soft_limits="all",
    hard_limits=True,
    terminate=True,
    resize=True,
    restart=True,
)
_TICK = 1.0
_LOOK = 0.25
_DYING = 0.01
_PEEK = 0.1
_NEWS = (Begins, Says)


class ProcessPool:
    """Runs jobs in ``size`` child processes. See `queue_core.worker.pools.base.Pool`."""

    def __init__(
        self,
        size: int | None,
        setup: Setup,
        *,
        max_tasks: int | None = None,
        max_memory: int | None = None,
        soft_limit: float | None = None,
        hard_limit: float | None = None,
        forks: bool = True,
    ) -> None:
        """Nothing is started yet.

        Args:
            size: how many children; None: as the app's settings say, of which also the other
                limits are taken that are None here.
            setup: what they import, and how.
            max_tasks: replace a child after so many jobs; None: never.
            max_memory: replace a child, when its job has ended, that has more bytes of memory. It
                is looked at four times a second. None: never.
            soft_limit, hard_limit: seconds, for jobs that come without; None: none.
            forks: import the app once and fork the children, if that can be.
        """
        self._setup = setup
        self._children = Children(setup)
        self._sized = size is not None
        self._supervisor = Supervisor(self._children, size or 1, max_tasks=max_tasks)
        self._max_memory = max_memory
        self._soft_limit, self._hard_limit = soft_limit, hard_limit
        self._next_look = 0.0
        self._pipe = WakePipe()
        self._lock = threading.Lock()
        self._door = threading.RLock()  # abort() may interrupt its holder in a signal handler
        self._woken = False
        self._submitted: deque[Job] = deque()
        self._report: Report | None = None
        self._hears: Hear | None = None
        self._fails: Fail = unheard
        self._thread: threading.Thread | None = None
        self._info: AppInfo | None = None
        self._failed: NotReady | None = None
        self._broken: BaseException | None = None
        self._known = threading.Event()
        self._forks = forks
        self._importing = self._anew = False
        self._import_until = math.inf
        self._closing = self._ended = False

    abilities = ABILITIES
    separate = True

    @property
    def ahead(self) -> int:
        """Enough for a tenth of a second, which is more the shorter the tasks are."""
        return self._supervisor.size * self._supervisor.pace.ahead

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that are alive, for tests and status."""
        return list(self.info().pids)

    def start(self, report: Report, hear: Hear | None = None, fail: Fail = unheard) -> AppInfo:
        """Start the children; return when the first of them has imported the app."""
        self.launch()
        self._report, self._hears, self._fails = report, hear, fail
        self._thread = threading.Thread(target=self._run, name="process pool", daemon=True)
        self._thread.start()
        self._await()
        if not self._known.is_set():
            self.stop(0.0)
            raise AppNotFound(f"{self._setup.app!r} was not imported within {START_TIMEOUT:g} s")
        if self._broken is not None:
            raise self._broken
        if self._failed is not None:
            what = self._failed
            self.stop(0.0)
            if what.settings:
                raise ConfigError(what.error)
            raise AppNotFound(what.error, what.because, what.advice, what.trace)
        if self._info is None:
            raise NotStarted
        self._configure(self._info.settings)
        return self._info

    def launch(self) -> None:
        """Begin to import the app, for `start`; does not block."""
        if self._forks and not self._importing and can_fork():
            self._children.import_app()
            self._importing = True

    def _await(self) -> None:
        """Wait until the first child has said something, or can be expected to say nothing."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._known.wait(_PEEK) and time.monotonic() < deadline:
            if self._supervisor.aborted:  # in a signal handler, which cannot end a wait
                raise NotStarted

    def _configure(self, settings: Settings) -> None:
        """Take from the settings what was not given."""
        limits = limits_of(settings)
        with self._lock:
            self._soft_limit = self._soft_limit or limits.soft_limit
            self._hard_limit = self._hard_limit or limits.hard_limit
            self._max_memory = self._max_memory or limits.max_memory
            self._supervisor.max_tasks = self._supervisor.max_tasks or limits.max_tasks
            if not self._sized:
                size = settings.worker_concurrency or usual_size(ABILITIES.kind)
                self._supervisor.resize(size - self._supervisor.size)
                self._sized = True
        self._wake()

    def submit(self, job: Job) -> None:
        """Hand the job to the thread."""
        if job.soft_limit is None:
            job.soft_limit = self._soft_limit
        if job.hard_limit is None:
            job.hard_limit = self._hard_limit
        with self._door:
            closing = self._closing
            if not closing:
                self._submitted.append(job)
        if closing:
            self._pass_on(job.ticket, Returned())
        else:
            self._wake()

    def stop(self, grace: float) -> bool:
        """Let running tasks finish, end those that do not, and every child, and the thread."""
        with self._door:
            self._closing = True
        with self._lock:
            self._supervisor.stop(time.monotonic(), grace)
        self._wake()
        if self._thread is None:
            self._close()
        elif self._thread is not threading.current_thread():
            self._thread.join()
        return self._supervisor.clean

    def abort(self) -> None:
        """Kill what still runs."""
        self._supervisor.abort()
        self._wake()

    # --- control ---------------------------------------------------------------------------------

    def info(self) -> PoolInfo:
        """Say what runs, and where."""
        with self._lock:
            members = [member for member in self._supervisor.members.values() if not member.dying]
            limits = {
                "max_tasks": self._supervisor.max_tasks,
                "max_memory": self._max_memory,
                "soft_limit": self._soft_limit,
                "hard_limit": self._hard_limit,
            }
            return PoolInfo(
                ABILITIES.kind,
                self._supervisor.size,
                tuple(
                    Running(member.jobs[0].ticket, member.pid, member.began)
                    for member in members
                    if member.jobs
                ),
                tuple(member.pid for member in members),
                {name: limit for name, limit in limits.items() if limit is not None},
            )

    def grow(self, count: int = 1) -> int:
        """Start more children."""
        return self._resize(count)

    def shrink(self, count: int = 1) -> int:
        """Let children go, those first that have the least to do."""
        return self._resize(-count)

    def _resize(self, count: int) -> int:
        with self._lock:
            if self._supervisor.size + count < 1:
                raise UsageError(
                    f"a pool of {self._supervisor.size} cannot shrink by {-count}: one must stay; "
                    "to stop taking tasks, pause the worker"
                )
            self._supervisor.resize(count)
            size = self._supervisor.size
        self._wake()
        return size

    def restart(self) -> None:
        """Replace every child by one that imports the app anew."""
        with self._lock:
            self._anew = True
        self._wake()

    def withdraw(self, ticket: int) -> bool:
        """Take back a job that was not started."""
        with self._lock:
            self._take_submitted()
            done = self._supervisor.withdraw(ticket)
        self._wake()
        return done

    def return_waiting(self) -> bool:
        """Give back what no child has, if all have been busy with one job for long."""
        with self._lock:
            self._take_submitted()
            returned = self._supervisor.return_waiting(time.monotonic())
        self._wake()
        return returned

    def terminate(self, ticket: int, number: int = signal.SIGTERM) -> bool:
        """End one job, and no other."""
        check_signal(number)
        with self._lock:
            self._take_submitted()
            done = self._supervisor.terminate(ticket, number, time.monotonic())
        self._wake()
        return done

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        self._children.watch(self._pipe.readable)
        try:
            while self._turn():
                pass
        except BaseException as error:
            logger.exception("the process pool failed; its jobs are given back")
            self._supervisor.clean = False
            self._broken = error
            self._fails(error)
        finally:
            self._close()
            self._known.set()

    def _turn(self) -> bool:
        """Act, report, wait, listen; False when all is over."""
        with self._lock:
            now = time.monotonic()
            self._look_after(now)
            self._take_submitted()
            if self._anew:
                self._anew = False
                self._import_anew()
            pause = self._tick()
            if not self._importing:
                self._supervisor.turn(now)
                pause = min(pause, self._supervisor.next_time() - now)
            told, self._children.told = self._children.told, []
            ended = self._supervisor.ended
            slack = self._supervisor.slack()
        for ticket, outcome in told:
            self._pass_on(ticket, outcome)
        if ended:
            return False
        if self._submitted or self._children.told:
            pause = 0.0
        elif slack:
            time.sleep(slack)
        heard = self._children.wait(max(0.0, pause))
        with self._lock:
            for item in heard:
                if item is None:
                    self._pipe.drain()
                    self._woken = False  # in this order: who finds it set has submitted before
                elif isinstance(item, Template):
                    self._on_import(self._children.imported(item))
                else:
                    self._hear(item, self._children.hear(item))
        return True

    def _take_submitted(self) -> None:
        while self._submitted:
            self._supervisor.pending.append(self._submitted.popleft())

    def _tick(self) -> float:
        """How soon to look at the processes themselves."""
        if any(child.silent or child.killed for child in self._children.by_pid.values()):
            return _DYING
        return _TICK if self._max_memory is None else _LOOK

    def _look_after(self, now: float) -> None:
        """Bury the dead, and find those that use too much memory."""
        look = now >= self._next_look
        if look:
            self._next_look = now + _LOOK
        if now >= self._import_until:
            self._import_until = math.inf
            self._children.end_import()
            what = f"the app was not imported within {START_TIMEOUT:g} s"
            self._not_ready(NotReady(what, "", "", ""))
        for child in list(self._children.by_pid.values()):
            if (look or child.silent or child.killed) and (how := child.gone()) is not None:
                self._hear(child, self._children.last_words(child))
                self._on_death(child, how, now)
                self._children.forget(child)
            elif look and self._max_memory is not None:
                memory = child.memory()
                if memory is not None and memory > self._max_memory:
                    self._supervisor.replace(child.pid)

    def _hear(self, child: Child, messages: Iterable[FromChild]) -> None:
        now = time.monotonic()
        for message in messages:
            if not self._on_message(child, message, now):
                logger.error("child %d reports what it was not asked for", child.pid)
                child.kill()
        if child.silent and child.pid in self._children.by_pid:
            self._supervisor.on_leaving(child.pid, now)

    def _on_message(self, child: Child, message: FromChild, now: float) -> bool:
        pid = child.pid
        if isinstance(message, Ended):
            return self._supervisor.on_ended(pid, message.ticket, message.outcome, now)
        if isinstance(message, Interrupted):
            return self._supervisor.on_interrupted(pid, message.ticket, now)
        if isinstance(message, Heard):
            self._children.told.append((message.ticket, message.news))
        elif isinstance(message, Limited):
            self._supervisor.on_limit(pid, message.ticket, message.seconds)
        elif isinstance(message, AppInfo):
            self._supervisor.on_ready(pid)
            self._info = self._info or message
            self._known.set()
        elif isinstance(message, NotReady):
            self._not_ready(message)
        elif isinstance(message, Leaving):
            child.said_goodbye = True
            self._supervisor.on_leaving(pid, now)
        return True

    def _import_anew(self) -> None:
        if not self._children.forks:
            self._supervisor.restart()
            return
        try:
            self._children.import_app()
            self._import_until = time.monotonic() + START_TIMEOUT
        except OSError as error:
            logger.error("the app cannot be imported anew: %s", error)

    def _on_import(self, said: Imported | NotReady | None) -> None:
        """The app was imported, once for all children, or cannot be."""
        if said is not None:
            self._import_until = math.inf
        if isinstance(said, Imported):
            if said.unfit:
                logger.info("each child imports the app by itself, since %s", said.unfit)
            self._importing = False
            self._supervisor.restart()
        elif said is not None:
            self._not_ready(said)

    def _not_ready(self, said: NotReady) -> None:
        if self._info is not None:
            logger.error("a new child cannot start: %s %s", said.error, said.because)
        else:
            self._failed = self._failed or said
            self._known.set()

    def _on_death(self, child: Child, how: str, now: float) -> None:
        member = self._supervisor.members[child.pid]
        if not member.ready and not self._known.is_set():
            self._failed = NotReady(f"a child ended while it imported the app: {how}", "", "", "")
            self._known.set()
        if member.ready and not child.expected:
            logger.warning("child %d died (%s); it is replaced", child.pid, how)
        self._supervisor.on_died(child.pid, how, now)

    def _close(self) -> None:
        with self._door:
            if self._ended:
                return
            self._ended = self._closing = True
        with self._lock:
            self._take_submitted()
            self._supervisor.disband()
            self._children.close()
            told, self._children.told = self._children.told, []
        for ticket, outcome in told:
            self._pass_on(ticket, outcome)
        self._pipe.close()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._pipe.wake()

    def _pass_on(self, ticket: int, told: Outcome | News) -> None:
        assert self._report is not None, "jobs come after start"
        try:
            if not isinstance(told, _NEWS):
                self._report(ticket, told)
            elif self._hears is not None:
                self._hears(ticket, told)
        except Exception:
            logger.exception("what was told of ticket %d could not be taken", ticket)
