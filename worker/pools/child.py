"""A child of the process pool: ``python -m queue_core.worker.pools.child SOCKET GRANTS PIPE``.

It runs one job after another on its main thread, and nothing else: it has no connection to the
broker unless a task sends something. Jobs come over a socket from the worker, ahead of time; which
of them may start, over another one (`queue_core.worker.pools.grants`).

Signals reach a task in two ways. SIGTERM and SIGINT end the job that the parent wants to end, and
are ignored else. SIGALRM, from this process's own timer, is the soft time limit.

It dies with its parent. The parent holds the other end of a pipe; when that closes, the kernel
kills this process, even in the middle of a C function that holds the GIL (Linux). Elsewhere a
thread watches the pipe.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import select
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
    Cut,
    Ended,
    FromChild,
    Heard,
    Leaving,
    Limited,
    NotReady,
    Reader,
    Setup,
    ToChild,
    pack,
)
from queue_core.worker.pools.grants import Granted
from queue_core.worker.request import State
from queue_core.worker.trace import run_job


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    socket_fd, grants_fd, pipe_fd = (int(text) for text in arguments)
    die_with_parent(pipe_fd)
    for fd in (socket_fd, grants_fd):
        os.set_inheritable(fd, False)
    _ignore_signals()
    granted = Granted(grants_fd)
    with socket.socket(fileno=socket_fd) as link:
        line = _Line(link)
        os.register_at_fork(after_in_child=partial(_step_aside, line, granted))
        child = _Child(link, line, granted)
        setup = child.next()
        if not isinstance(setup, Setup):
            return 1
        app = _prepare(setup, line)
        if app is None:
            return 78
        app.hooks.process_init.tell()
        child.serve(app)
    app.hooks.process_shutdown.tell()
    app.close()
    return 0


def die_with_parent(pipe_fd: int) -> None:
    """Arrange that this process is killed as soon as the other end of the pipe is closed."""
    if sys.platform == "linux":
        # The read end is opened anew: the owner that F_SETOWN sets belongs to the open file
        # description, which would be shared with whoever else holds the descriptor.
        own = os.open(f"/proc/self/fd/{pipe_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(pipe_fd)
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        if select.select([own], [], [], 0)[0]:  # it closed before the signal was armed
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(pipe_fd,), daemon=True).start()


_F_SETSIG = 10  # fcntl has no name for it


def _watch(pipe_fd: int) -> None:
    os.read(pipe_fd, 1)  # nothing is ever written: this returns when the parent is gone
    os.kill(os.getpid(), signal.SIGKILL)


def _ignore_signals() -> None:
    """The parent decides when to stop, also when a terminal or supervisor signals all processes.

    A handler instead of SIG_IGN, which programs started by tasks would inherit. SIGQUIT, which a
    terminal sends to all, writes the stacks of all threads to stderr.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    faulthandler.register(signal.SIGQUIT, all_threads=True)


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


def _prepare(setup: Setup, line: _Line) -> App | None:
    """Import the app and say what it is, or say why not."""
    configure(setup.log_level, setup.log_format)
    sys.path[:] = setup.path
    try:
        app = load_app(setup.app, broker=setup.broker)
        app.hostname = setup.node or app.hostname
        info = app.info()
    except AppNotFound as error:
        line.say(NotReady(error.error, error.because, error.advice, error.trace))
        return None
    except ConfigError as error:
        line.say(NotReady(str(error), "", "", "", settings=True))
        return None
    line.say(info)
    return app


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
            cut = guard.end()
            done = Cut(ticket) if cut and not isinstance(outcome, Done) else Ended(ticket, outcome)
            self._line.say(done)
            if fatal or cut:
                break
        self._line.say(Leaving())

    def next(self) -> ToChild | None:
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
            message = self.next()
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
        self._cut = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def begin(self, job: Job) -> None:
        self._job, self._cut, self._late = job, False, False

    def end(self) -> bool:
        """The job is over; whether it was interrupted."""
        self._job = None
        return self._cut

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
        if self._cut:
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
        if inside and self._cut:
            raise TaskTerminated
        if inside and self._late:
            self._on_time()

    def _leave(self) -> None:
        if self._soft is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        self._inside = False

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
        if self._job is not None and self._granted.cut(self._job.ticket):
            self._cut = True
            if self._inside:
                raise TaskTerminated


if __name__ == "__main__":
    sys.exit(main())
