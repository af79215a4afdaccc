"""The process that imports the app and forks children: ``python -m ...template CONTROL PIPE``.

See `queue_core.worker.pools.launching`, which is the worker's side of it. It has one thread and
runs nothing but the import. What that must not leave behind, since all children would share it:
threads, which do not exist in a forked process; programs that it started, which nobody but this
process can wait for; open descriptors, such as connections to a database, on which all of them
would talk at once; and temporary directories, which the first one that ends would delete.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping

from queue_core.worker.app import App
from queue_core.worker.pools.child import prepare, serve
from queue_core.worker.pools.frames import Imported, pack
from queue_core.worker.pools.grants import adopt
from queue_core.worker.pools.launching import FORK, REQUEST, WORD, Inherited
from queue_core.worker.pools.lifeline import ABANDONED, die_with_parent, ignore_signals


def main() -> int:
    """Import the app, and fork until the worker has no more use for it; return the exit code.

    In the forked processes, too, each of which returns when it is done.
    """
    control_fd, pipe_fd = (int(text) for text in sys.argv[1:])
    lifeline = die_with_parent(pipe_fd)
    os.set_inheritable(control_fd, False)
    ignore_signals()
    leaving = _Leaving()
    atexit.register(leaving)  # before the app's own, and so called after them
    app = inherited = None
    with contextlib.suppress(*ABANDONED), adopt(control_fd) as control:
        before = _descriptors()
        app = prepare(control)
        if app is None:
            return 78
        why = _unfit(app, before)
        control.sendall(pack(Imported(why)))
        if why:
            return 0
        gc.collect()
        gc.freeze()  # a collection would touch, and so copy, every page
        inherited = _fork_on_request(control)
    if app is None or inherited is None:
        return 0
    leaving.code = 1
    os.close(lifeline)
    leaving.code = _be_child(app, inherited)
    return leaving.code


class _Leaving:
    """Ends a forked process, last of all, without taking apart what it shares with its siblings.

    An interpreter that ends touches all its objects, and so copies every page: more work than the
    whole start.
    """

    code: int | None = None

    def __call__(self) -> None:
        if self.code is not None:
            logging.shutdown()
            _flush()
            os._exit(self.code)


def _flush() -> None:
    """Write what waits in stdout and stderr, which a forked process would write once more."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                stream.flush()


def _unfit(app: App, before: Mapping[str, str]) -> str:
    """Say why no children can be forked here; empty if they can."""
    if app.settings.worker_pool_start_method == "spawn":
        return "worker_pool_start_method is spawn"
    if len(os.listdir("/proc/self/task")) > 1:
        return "the app starts threads when it is imported"
    if _has_started():
        return "the app starts processes when it is imported"
    for number, what in _descriptors().items():
        if before.get(number) != what:
            return f"the app leaves {what} open when it is imported"
    if _has_folders():
        return "the app makes a temporary directory when it is imported"
    return ""


def _has_started() -> bool:
    """Whether there are processes that this one started, or that have ended unheard."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_folders() -> bool:
    """Whether there are directories that are deleted when this process ends, or a forked one."""
    known = sys.modules.get("tempfile")
    if known is None:
        return False
    # By type, not isinstance: proxies of all kinds among them may answer for what they stand for.
    return any(issubclass(type(item), known.TemporaryDirectory) for item in gc.get_objects())


def _descriptors() -> dict[str, str]:
    """What is open: number -> what that is."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # what the list was read from
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def _fork_on_request(control: socket.socket) -> Inherited | None:
    """Return what a child inherits, in the child; in this process None, at the end."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else ends might go unseen
    while True:
        data, fds, _, _ = socket.recv_fds(control, REQUEST, 3, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        if data[:1] == FORK:
            _flush()
            try:
                answer = os.fork()
            except OSError as error:
                answer = -(error.errno or errno.EAGAIN)
            if answer == 0:
                signal.signal(signal.SIGCHLD, before)
                link, grants, pipe = fds
                return link, grants, pipe
            for fd in fds:
                os.close(fd)
        else:
            _, status = os.waitpid(WORD.unpack(data[1:])[0], 0)
            answer = os.waitstatus_to_exitcode(status)
        control.sendall(WORD.pack(answer))


def _be_child(app: App, inherited: Inherited) -> int:
    link_fd, grants_fd, pipe_fd = inherited
    die_with_parent(pipe_fd)
    _roll_anew()
    with contextlib.suppress(*ABANDONED), adopt(link_fd) as link:
        link.sendall(pack(app.info()))
        serve(app, link, grants_fd)
    return 0


def _roll_anew() -> None:
    """Let numpy's random numbers differ from those of the siblings, as Python's own do anyway."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        with contextlib.suppress(TypeError):  # the app has put a generator there that takes no seed
            numpy.seed()


if __name__ == "__main__":
    sys.exit(main())
