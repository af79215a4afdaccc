"""Tasks in child processes.

The worker's process runs no user code: it hands encoded messages to children and gets outcomes
back, over one stream socket per child. One thread, started here and ended by `stop`, does all of
that. Children are started as fresh interpreters, never by fork, so that no lock and no socket of
the worker is inherited.

A child that dies is replaced. The job that it ran is reported as `Crashed`; those that waited
behind it go to other children, as if nothing had happened. Children die with this process (see
`queue_core.worker.pools.child`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable

import msgspec

from queue_core import Backoff
from queue_core.worker.locate import AppNotFound
from queue_core.worker.outcome import (
    Abandoned,
    AppInfo,
    Crashed,
    Done,
    Failed,
    Job,
    Outcome,
    Report,
    Returned,
)
from queue_core.worker.pools.frames import (
    CHUNK,
    Ended,
    FromChild,
    Leaving,
    NotReady,
    Reader,
    Setup,
    Stop,
    ToChild,
    pack,
)
from queue_core.worker.pools.pace import Pace

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0
EXIT_TIMEOUT = 2.0
RESTARTS = Backoff(base=0.5, cap=30.0)
_TICK = 0.5


class _Child:
    """One child process as its parent sees it: the socket, and the jobs that it was given in order.

    The first of ``jobs`` is the one that runs.
    """

    def __init__(self, setup: Setup) -> None:
        ours, theirs = socket.socketpair()
        try:
            watched, self._alive = os.pipe()  # ours to hold: closing it kills the child
        except OSError:
            ours.close()
            theirs.close()
            raise
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __package__ + ".child", str(theirs.fileno()), str(watched)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), watched),
            )
        except BaseException:
            ours.close()
            os.close(self._alive)
            raise
        finally:
            theirs.close()
            os.close(watched)
        ours.setblocking(False)
        self.link = ours
        self.reader: Reader[FromChild] = Reader(FromChild)
        self.jobs: deque[Job] = deque()
        self.ready = False  # it has imported the app
        self.stopping = False  # it was told to stop
        self.leaving = False  # it said that it starts nothing more
        self.unsent = bytearray(pack(setup))
        self.finished = 0

    def queue(self, message: ToChild) -> None:
        self.unsent += pack(message)

    def send(self) -> bool:
        """Send what the socket takes; return whether everything is sent."""
        try:
            while self.unsent:
                del self.unsent[: self.link.send(self.unsent[:CHUNK])]
        except BlockingIOError:
            return False
        except OSError:  # it died; reading will say so
            self.unsent.clear()
        return True

    def receive(self) -> Iterable[FromChild] | None:
        """Return the messages that have arrived; None when the child is gone."""
        try:
            data = self.link.recv(CHUNK)
        except BlockingIOError:
            return ()
        except OSError:
            return None
        return self.reader.feed(data) if data else None

    def kill(self) -> Iterable[FromChild]:
        """Kill the process and yield what it had still sent."""
        self.process.kill()
        self.process.wait()
        while messages := self.receive():
            yield from messages

    def end(self) -> str:
        """Wait for the process, killing it if need be, and say how it ended."""
        self.link.close()
        os.close(self._alive)
        try:
            code = self.process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class ProcessPool:
    """Runs jobs in ``size`` child processes. See `queue_core.worker.pools.base.Pool`."""

    def __init__(self, size: int, setup: Setup) -> None:
        """Nothing is started yet."""
        self._size = size
        self._setup = setup
        self._pace = Pace()
        self._children: list[_Child] = []
        self._pending: deque[Job] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = os.pipe()
        for end in (self._wake_in, self._wake_out):
            os.set_blocking(end, False)
        self._lock = threading.RLock()  # abort() may interrupt its holder in a signal handler
        self._submitted: deque[Job] = deque()
        self._report: Report | None = None
        self._thread: threading.Thread | None = None
        self._info: AppInfo | None = None
        self._failed: NotReady | None = None
        self._known = threading.Event()
        self._deadline: float | None = None
        self._ended = False
        self._clean = True
        self._failures = 0
        self._next_start = 0.0

    @property
    def separate(self) -> bool:
        """They do."""
        return True

    @property
    def ahead(self) -> int:
        """Four jobs per child keep it busy with all but the shortest tasks."""
        return self._size * 4

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that are alive, for tests and status."""
        return [child.process.pid for child in list(self._children)]

    def start(self, report: Report) -> AppInfo:
        """Start the children; return when the first of them has imported the app."""
        self._report = report
        self._thread = threading.Thread(target=self._supervise, name="process pool", daemon=True)
        self._thread.start()
        if not self._known.wait(START_TIMEOUT):
            self.stop(0.0)
            raise AppNotFound(f"{self._setup.app!r} was not imported within {START_TIMEOUT:g} s")
        if self._failed is not None:
            what = self._failed
            self.stop(0.0)
            raise AppNotFound(what.error, what.because, what.advice, what.trace)
        assert self._info is not None
        return self._info

    def submit(self, job: Job) -> None:
        """Hand the job to the thread."""
        with self._lock:
            stopping = self._ended or self._deadline is not None
            if not stopping:
                self._submitted.append(job)
        if stopping:
            self._tell(job.ticket, Returned())
        else:
            self._wake()

    def stop(self, grace: float) -> bool:
        """Let running tasks finish, kill those that do not, end every child and the thread."""
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + grace
        self._wake()
        if self._thread is None:
            self._end_all()
        elif self._thread is not threading.current_thread():
            self._thread.join()
        return self._clean

    def abort(self) -> None:
        """Kill what still runs."""
        self._deadline = 0.0
        self._wake()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it is awake already
            if self._wake_out >= 0:
                os.write(self._wake_out, b"w")

    # --- the thread ----------------------------------------------------------------------------

    def _supervise(self) -> None:
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        try:
            while True:
                if self._deadline is None:
                    self._refill()
                    self._hand_out()
                elif self._wind_down():
                    break
                self._wait()
        except Exception:
            logger.exception("the process pool failed; its jobs are given back")
            self._clean = False
        finally:
            self._end_all()

    def _wait(self) -> None:
        for child in self._children:
            events = selectors.EVENT_READ
            if not child.send():
                events |= selectors.EVENT_WRITE
            if self._selector.get_key(child.link).events != events:
                self._selector.modify(child.link, events, child)
        for key, _ in self._selector.select(self._timeout()):
            if key.data is None:
                os.read(self._wake_in, 4096)
            else:
                self._hear(key.data)

    def _timeout(self) -> float:
        if self._deadline is not None:
            return min(_TICK, max(0.0, self._deadline - time.monotonic()))
        return _TICK

    def _refill(self) -> None:
        """Start children until there are enough, with growing pauses while they die young."""
        while len(self._children) < self._size and time.monotonic() >= self._next_start:
            try:
                child = _Child(self._setup)
            except OSError as error:  # no more processes, memory or descriptors for now
                self._failures += 1
                self._next_start = time.monotonic() + RESTARTS.delay(self._failures)
                logger.error("a child cannot be started: %s", error)
                return
            self._children.append(child)
            self._selector.register(child.link, selectors.EVENT_READ, child)

    def _hand_out(self) -> None:
        while self._submitted:
            self._pending.append(self._submitted.popleft())
        while self._pending:
            child = self._least_loaded()
            if child is None:
                return
            job = self._pending.popleft()
            child.jobs.append(job)
            child.queue(job)

    def _least_loaded(self) -> _Child | None:
        best, least = None, float("inf")
        for child in self._children:
            if child.ready and not child.leaving and not child.stopping:
                load = self._pace.room(job.name for job in child.jobs)
                if load < least:
                    best, least = child, load
        return best

    def _hear(self, child: _Child) -> None:
        try:
            messages = child.receive()
            if messages is not None:
                for message in messages:
                    self._on_message(child, message)
                return
        except msgspec.DecodeError:
            logger.exception("child %d talks nonsense; it is replaced", child.process.pid)
            child.process.kill()
        self._on_death(child)

    def _on_message(self, child: _Child, message: FromChild) -> None:
        if isinstance(message, Ended):
            job = child.jobs.popleft()
            child.finished += 1
            if isinstance(message.outcome, Done | Failed):
                self._pace.observe(job.name, message.outcome.seconds)
            self._tell(message.ticket, message.outcome)
        elif isinstance(message, Leaving):
            child.leaving = True
            self._pending.extendleft(reversed(child.jobs))
            child.jobs.clear()
        elif isinstance(message, AppInfo):
            child.ready = True
            self._failures = 0
            self._info = self._info or message
            self._known.set()
        elif self._info is None:
            self._failed = self._failed or message
            self._known.set()
        else:
            logger.error("a new child cannot start: %s %s", message.error, message.because)

    def _on_death(self, child: _Child) -> None:
        self._selector.unregister(child.link)
        self._children.remove(child)
        how = child.end()
        if not child.ready:
            if not self._known.is_set():
                self._failed = NotReady(
                    f"a child ended while it imported the app: {how}", "", "", ""
                )
                self._known.set()
            self._failures += 1
            self._next_start = time.monotonic() + RESTARTS.delay(self._failures)
        if not child.leaving and self._deadline is None and child.ready:
            logger.warning("child %d died (%s); it is replaced", child.process.pid, how)
        if child.jobs:
            self._tell(child.jobs.popleft().ticket, Crashed(how))
            self._pending.extendleft(reversed(child.jobs))

    # --- the end -------------------------------------------------------------------------------

    def _wind_down(self) -> bool:
        """One step of stopping; True when every child is gone."""
        with self._lock:
            self._pending.extend(self._submitted)
            self._submitted.clear()
        while self._pending:
            self._tell(self._pending.popleft().ticket, Returned())
        assert self._deadline is not None
        over = time.monotonic() >= self._deadline
        for child in list(self._children):
            if over or not child.ready:
                self._kill(child)
            elif not child.stopping:
                child.stopping = True
                child.queue(Stop())
        return not self._children

    def _kill(self, child: _Child) -> None:
        for message in child.kill():
            self._on_message(child, message)
        self._selector.unregister(child.link)
        self._children.remove(child)
        child.end()
        if child.jobs:
            self._clean = False
            self._tell(child.jobs.popleft().ticket, Abandoned())
        self._pending.extendleft(reversed(child.jobs))
        while self._pending:
            self._tell(self._pending.popleft().ticket, Returned())

    def _end_all(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._pending.extend(self._submitted)
            self._submitted.clear()
        for child in list(self._children):
            self._kill(child)
        while self._pending:
            self._tell(self._pending.popleft().ticket, Returned())
        self._selector.close()
        with self._lock:
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_out = -1

    def _tell(self, ticket: int, outcome: Outcome) -> None:
        assert self._report is not None, "jobs come after start"
        try:
            self._report(ticket, outcome)
        except Exception:
            logger.exception("the outcome of ticket %d could not be taken", ticket)
