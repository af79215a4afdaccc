"""How processes of the worker end with the one that started them, and ignore who signals them all.

A terminal signals all of them, also one that has just been started and knows nothing of this yet:
so they are started with those signals blocked (`signals_withheld`), and let them in when they do.

The parent holds the write end of a pipe. When that closes, the kernel kills the process, even in
the middle of a C function that holds the interpreter lock (Linux). Elsewhere a thread watches it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_F_SETSIG = 10  # fcntl has no name for it
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ABANDONED: Final = (BrokenPipeError, ConnectionResetError)
"""What talking to a worker raises that has closed the connection: it ends, and kills us next."""


def die_with_parent(pipe_fd: int) -> int:
    """Arrange that this process is killed as soon as the other end of the pipe is closed.

    Returns the descriptor that does it. The arrangement is this process's only: one that it forks
    makes its own, and closes this descriptor.
    """
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(pipe_fd,), daemon=True).start()
        return pipe_fd
    # The read end is opened anew: the owner that F_SETOWN sets belongs to the open file
    # description, which would be shared with whoever else holds the descriptor.
    own = os.open(f"/proc/self/fd/{pipe_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(pipe_fd)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    if select.select([own], [], [], 0)[0]:  # it closed before the signal was armed
        os.kill(os.getpid(), signal.SIGKILL)
    return own


def _watch(pipe_fd: int) -> None:
    os.read(pipe_fd, 1)  # nothing is ever written: this returns when the parent is gone
    os.kill(os.getpid(), signal.SIGKILL)


def ignore_signals() -> None:
    """The parent decides when to stop, also when a terminal or service manager signals all.

    A handler instead of SIG_IGN, which programs started by tasks would inherit. SIGQUIT, which a
    terminal sends to all, writes the stacks of all threads to stderr.
    """
    for number in IGNORED:
        signal.signal(number, lambda _number, _frame: None)
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*IGNORED, signal.SIGQUIT})


@contextmanager
def signals_withheld() -> Iterator[None]:
    """What is started meanwhile, by this thread, gets no such signal before `ignore_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*IGNORED, signal.SIGQUIT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
