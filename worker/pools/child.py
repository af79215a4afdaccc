"""A child process of the process pool: ``python -m queue_core.worker.pools.child SOCKET PIPE``.

It runs one job after another on its main thread, and nothing else: it has no connection to the
broker unless a task sends something. Jobs come over a socket from the worker; between two jobs it
reads what has arrived, so that a `Stop` finds the jobs behind the running one unstarted.

It dies with its parent. The parent holds the other end of a pipe; when that closes, the kernel
kills this process, even in the middle of a C function that holds the GIL (Linux). Elsewhere a
thread watches the pipe.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections import deque

from queue_core.worker.app import App
from queue_core.worker.locate import AppNotFound, find_app
from queue_core.worker.outcome import Job
from queue_core.worker.pools.frames import (
    CHUNK,
    Ended,
    Leaving,
    NotReady,
    Reader,
    Setup,
    Stop,
    ToChild,
    pack,
)
from queue_core.worker.trace import run_job

LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s"
LOG_TIME = "%H:%M:%S"


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    socket_fd, pipe_fd = (int(text) for text in (sys.argv[1:] if argv is None else argv))
    die_with_parent(pipe_fd)
    os.set_inheritable(socket_fd, False)
    _ignore_signals()
    with socket.socket(fileno=socket_fd) as link:
        child = _Child(link)
        setup = child.next()
        if not isinstance(setup, Setup):
            return 1
        app = _prepare(setup, link)
        if app is None:
            return 78
        child.serve(app)
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

    A handler instead of SIG_IGN, which programs started by tasks would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)


def _prepare(setup: Setup, link: socket.socket) -> App | None:
    """Import the app and say what it is, or say why not."""
    logging.basicConfig(level=setup.log_level, format=LOG_FORMAT, datefmt=LOG_TIME)
    sys.path[:] = setup.path
    try:
        app = find_app(setup.app)
        app.use(broker=setup.broker)
    except AppNotFound as error:
        link.sendall(pack(NotReady(error.error, error.because, error.advice, error.trace)))
        return None
    link.sendall(pack(app.info()))
    return app


class _Child:
    """The loop: read, run, report."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._reader: Reader[ToChild] = Reader(ToChild)
        self._inbox: deque[ToChild] = deque()

    def serve(self, app: App) -> None:
        """Run jobs until a `Stop`, the end of the stream, or a task that leaves a mess."""
        while True:
            message = self.next()
            if not isinstance(message, Job) or self._stop_waits():
                break
            outcome, fatal = run_job(app, message)
            self._link.sendall(pack(Ended(message.ticket, outcome)))
            if fatal:
                break
        self._link.sendall(pack(Leaving()))

    def next(self) -> ToChild | None:
        """Return the next message, waiting for it; None at the end of the stream."""
        while not self._inbox:
            data = self._link.recv(CHUNK)
            if not data:
                return None
            self._inbox.extend(self._reader.feed(data))
        return self._inbox.popleft()

    def _stop_waits(self) -> bool:
        """Whether a `Stop` has arrived behind the jobs; does not wait."""
        while True:
            try:
                data = self._link.recv(CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not data:
                break
            self._inbox.extend(self._reader.feed(data))
        return any(isinstance(message, Stop) for message in self._inbox)


if __name__ == "__main__":
    sys.exit(main())
