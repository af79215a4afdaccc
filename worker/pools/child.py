"""A child of the process pool: ``python -m queue_core.worker.pools.child SOCKET GRANTS PIPE``.

It runs one job after another on its main thread, and nothing else: it has no connection to the
broker unless a task sends something. Jobs come over a socket from the worker, ahead of time; which
of them may start, over another one (`queue_core.worker.pools.grants`).

Signals reach a task in two ways. SIGTERM and SIGINT end the job that the parent wants to end, and
are ignored else. SIGALRM, from this process's own timer, is the soft time limit.

It dies with its parent (`queue_core.worker.pools.lifeline`). The same work is done by children that
a template has forked (`queue_core.worker.pools.template`), which import nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from functools import partial

from queue_core import ConfigError
from queue_core.worker.absent import AppNotFound
from queue_core.worker.app import App
from queue_core.worker.limits import SoftTimeLimitExceeded, TaskTerminated
from queue_core.worker.locate import load_app
from queue_core.worker.logs import configure
from queue_core.worker.outcome import Begins, Done, Job, Says
from queue_core.worker.pools.frames import (
    CHUNK,
    Ended,
    FromChild,
    Heard,
    Interrupted,
    Leaving,
    Limited,
    NotReady,
    Reader,
    Setup,
    ToChild,
    pack,
)
from queue_core.worker.pools.grants import Granted, adopt
from queue_core.worker.pools.lifeline import ABANDONED, die_with_parent, ignore_signals
from queue_core.worker.request import State
from queue_core.worker.trace import run_job


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    socket_fd, grants_fd, pipe_fd = (int(text) for text in arguments)
    die_with_parent(pipe_fd)
    for fd in (socket_fd, grants_fd):
        os.set_inheritable(fd, False)
    ignore_signals()
    with contextlib.suppress(*ABANDONED), adopt(socket_fd) as link:
        app = prepare(link)
        if app is None:
            return 78
        serve(app, link, grants_fd)
    return 0


class _Line:
    """What the worker hears from this process. Thread-safe: each message is sent whole."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lock = threading.Lock()

    def say(self, message: FromChild) -> None:
        """Send a message. Must not be interrupted by an exception."""
        data = pack(message)
        with self._lock:
            self._link.sendall(data)

    def close(self) -> None:
        """Say nothing more, in a process that was forked: whoever held the lock is not there."""
        self._lock = threading.Lock()
        self._link.close()


def _step_aside(line: _Line, granted: Granted) -> None:
    """A process that a task has forked is no child of the worker.

    It says nothing to the worker and takes no ticket, and ends by signals as other processes do.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    line.close()
    granted.close()


def prepare(link: socket.socket) -> App | None:
    """Be told which app to import, do so, and say what it is, or say why that cannot be."""
    setup = _setup(link)
    if setup is None:
        return None
    configure(setup.log_level, setup.log_format)
    sys.path[:] = setup.path
    try:
        app = load_app(setup.app, broker=setup.broker)
        app.hostname = setup.node or app.hostname
        info = app.info()
    except AppNotFound as error:
        link.sendall(pack(NotReady(error.error, error.because, error.advice, error.trace)))
        return None
    except ConfigError as error:
        link.sendall(pack(NotReady(str(error), "", "", "", settings=True)))
        return None
    link.sendall(pack(info))
    return app


def _setup(link: socket.socket) -> Setup | None:
    """Read the first message; no other is sent before that is answered."""
    reader: Reader[ToChild] = Reader(ToChild)
    while data := link.recv(CHUNK):
        for message in reader.feed(data):
            return message if isinstance(message, Setup) else None
    return None


def serve(app: App, link: socket.socket, grants_fd: int) -> None:
    """Run jobs until told to stop, or until a task leaves a mess."""
    granted = Granted(grants_fd)
    line = _Line(link)
    os.register_at_fork(after_in_child=partial(_step_aside, line, granted))
    app.hooks.process_init.tell()
    _Child(link, line, granted).serve(app)
    app.hooks.process_shutdown.tell()
    app.close()


class _Child:
    """The loop: read, run, report."""

    def __init__(self, link: socket.socket, line: _Line, granted: Granted) -> None:
        self._link = link
        self._line = line
        self._granted = granted
        self._reader: Reader[ToChild] = Reader(ToChild)
        self._inbox: deque[ToChild] = deque()

    def serve(self, app: App) -> None:
        """Run jobs until told to stop, or until a task leaves a mess."""
        guard = _Guard(self._line, self._granted)
        while ticket := self._granted.next():
            job = self._job(ticket)
            if job is None:
                break
            if job.announce:
                self._line.say(Heard(ticket, Begins(os.getpid())))
            guard.begin(job)
            outcome, fatal = run_job(app, job, guard, partial(guard.say, ticket))
            interrupted = guard.end()
            by_force = interrupted and not isinstance(outcome, Done)
            self._line.say(Interrupted(ticket) if by_force else Ended(ticket, outcome))
            if fatal or interrupted:
                break
        self._line.say(Leaving())

    def _next(self) -> ToChild | None:
        """Return the next message, waiting for it; None at the end of the stream."""
        while not self._inbox:
            data = self._link.recv(CHUNK)
            if not data:
                return None
            self._inbox.extend(self._reader.feed(data))
        return self._inbox.popleft()

    def _job(self, ticket: int) -> Job | None:
        """Return the job with this ticket; those before it were taken back."""
        while True:
            message = self._next()
            if not isinstance(message, Job) or message.ticket == ticket:
                return message if isinstance(message, Job) else None


class _Guard:
    """Raises what the parent or a time limit asks for, inside the task's own code only."""

    def __init__(self, line: _Line, granted: Granted) -> None:
        self._line = line
        self._granted = granted
        self._job: Job | None = None
        self._inside = False
        self._soft: float | None = None
        self._late = False
        self._interrupted = False
        self._missed = False  # a signal came when there was no job
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def begin(self, job: Job) -> None:
        self._job, self._interrupted, self._late = job, False, False
        if self._missed:  # perhaps it was for this one, which had its ticket already
            self._missed = False
            self._interrupted = self._granted.interrupted(job.ticket)

    def end(self) -> bool:
        """The job is over; whether it was interrupted."""
        self._job = None
        return self._interrupted

    def __call__(self, soft: float | None, hard: float | None) -> _Guard:
        assert self._job is not None
        if hard is not None and hard != self._job.hard_limit:
            self._line.say(Limited(self._job.ticket, hard))
        self._soft = soft
        return self

    def __enter__(self) -> None:
        self._inside = True
        if self._soft is not None:
            signal.signal(signal.SIGALRM, self._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, self._soft)
        if self._interrupted:
            self._leave()
            raise TaskTerminated

    def __exit__(self, *_: object) -> None:
        self._leave()

    def say(self, ticket: int, state: State) -> None:
        """A task says how far it has come. What interrupts it waits until that is said whole."""
        if self._job is None or self._job.ticket != ticket:  # a thread of a task that has ended
            return
        if threading.current_thread() is not threading.main_thread():  # nothing interrupts those
            self._line.say(Heard(ticket, Says(state())))
            return
        inside, self._inside = self._inside, False
        try:
            self._line.say(Heard(ticket, Says(state())))
        finally:
            self._inside = inside
        if inside and self._interrupted:
            raise TaskTerminated
        if inside and self._late:
            self._on_time()

    def _leave(self) -> None:
        self._inside = False  # first: an alarm that comes now is for nobody
        if self._soft is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _on_alarm(self, _number: int, _frame: object) -> None:
        self._late = True
        if self._inside:
            self._on_time()

    def _on_time(self) -> None:
        self._late = False
        if self._soft is not None:
            raise SoftTimeLimitExceeded(self._soft)

    def _on_signal(self, _number: int, _frame: object) -> None:
        """The parent wants a job to end; or somebody signals all processes, which it decides on."""
        if self._job is None:
            self._missed = True
        elif self._granted.interrupted(self._job.ticket):
            self._interrupted = True
            if self._inside:
                raise TaskTerminated


if __name__ == "__main__":
    sys.exit(main())
