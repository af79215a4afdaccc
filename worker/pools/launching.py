"""How child processes come to be: as fresh interpreters, or forked by a template.

A `Template` is a process that imports the app and does nothing else but fork children on request
(its own side is `queue_core.worker.pools.template`). A child so starts within milliseconds, and
shares the memory of what was imported. The worker itself never forks: it has threads.

What the import of the app leaves behind must be fit for that. A template that has threads, or
processes, temporary directories, or holds connections or files open, says so
(`queue_core.worker.pools.frames.Imported`); it ends then, and children are fresh interpreters.

A request is a letter and eight bytes, an answer is eight bytes. ``F`` with three descriptors: fork;
the answer is the process id, or the negative of an error number. ``R`` and the id of a child that
is gone: forget it; the answer is how `os.waitstatus_to_exitcode` puts its end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from struct import Struct
from typing import Final, Protocol

from queue_core.worker.pools.frames import CHUNK, FromChild, Reader, Setup, pack
from queue_core.worker.pools.lifeline import signals_withheld

FORK: Final = b"F"
REAP: Final = b"R"
WORD: Final = Struct("<q")
REQUEST: Final = 1 + WORD.size

Inherited = tuple[int, int, int]
"""What a child inherits: the socket, the tickets, and the pipe that ends it."""

_ANSWER = 5.0


class Process(Protocol):
    """A child process. Nothing blocks but `wait`."""

    pid: int

    def ended(self) -> str | None:
        """How it has ended, for people; None while it lives."""

    def wait(self) -> None:
        """Wait for its end."""

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""


class Fresh:
    """An interpreter of its own."""

    def __init__(self, module: str, inherited: tuple[int, ...]) -> None:
        """Start it with these descriptors. Raises OSError."""
        with signals_withheld():
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
            )
        self.pid = self._process.pid

    def ended(self) -> str | None:
        """See `Process`."""
        code = self._process.poll()
        return None if code is None else _how(code)

    def wait(self, seconds: float | None = None) -> None:
        """See `Process`; raises `subprocess.TimeoutExpired`."""
        self._process.wait(seconds)

    def send_signal(self, number: int) -> None:
        """See `Process`."""
        self._process.send_signal(number)


class TemplateLost(OSError):
    """The template has died or does not answer; it is of no use any more."""


class Template:
    """The process that forks, as the worker holds it. Not thread-safe.

    Attributes:
        control: readable when it has something to say, which it does until it is ready.
    """

    def __init__(self, setup: Setup) -> None:
        """Start it; it imports the app, and says how that went (`hear`). Raises OSError."""
        self.control, theirs = socket.socketpair()
        watched, self._alive = os.pipe()  # ours to hold: closing it kills the template
        try:
            self._process = Fresh(__package__ + ".template", (theirs.fileno(), watched))
        except BaseException:
            self.control.close()
            os.close(self._alive)
            raise
        finally:
            theirs.close()
            os.close(watched)
        self.control.settimeout(_ANSWER)
        self._reader: Reader[FromChild] = Reader(FromChild)
        self._children = 0
        self._retired = self._closed = False
        self._lost = "it was closed"
        self.control.sendall(pack(setup))

    def hear(self) -> Iterator[FromChild] | None:
        """Return what it says of the app it has imported; None if it has died. Does not block."""
        try:
            data = self.control.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return iter(())
        except OSError:
            return None
        return self._reader.feed(data) if data else None

    def fork(self, inherited: Inherited) -> Forked:
        """Fork a child that inherits copies of these.

        Raises:
            TemplateLost: it is gone.
            OSError: there can be no more processes now.
        """
        pid = self._ask(FORK, 0, inherited)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        self._children += 1
        try:
            return Forked(self, pid)
        except OSError as error:
            if error.errno != errno.ESRCH:  # nobody has reaped it, so this is still its id
                os.kill(pid, signal.SIGKILL)
                self.reap(pid)
            raise

    def reap(self, pid: int) -> str:
        """Return how a child that is gone has ended."""
        self._children -= 1
        try:
            how = _how(self._ask(REAP, pid))
        except TemplateLost:
            how = "nobody saw how"
        if self._retired and not self._children:
            self.close()
        return how

    def retire(self) -> None:
        """Fork no more; it stays until its children are gone, to tell how they ended."""
        self._retired = True
        if not self._children:
            self.close()

    def dismiss(self) -> None:
        """Let it end by itself, doing what its app wants done at the end; does not block.

        Nothing else may be asked of it then. If that takes long it is killed.
        """
        threading.Thread(target=self._see_off, name="template's end", daemon=True).start()

    def _see_off(self) -> None:
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER)
        self.close()

    def close(self) -> None:
        """End it. Its children go on; may be called twice."""
        if not self._closed:
            self._closed = True
            self.control.close()
            os.close(self._alive)
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def how(self) -> str:
        """Close it, and return how it had ended by itself: after `hear` returned None."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER)
        self.close()
        return self._process.ended() or ""

    def _ask(self, letter: bytes, number: int, fds: tuple[int, ...] = ()) -> int:
        data = b""
        try:
            socket.send_fds(self.control, [letter + WORD.pack(number)], list(fds))
            while len(data) < WORD.size:
                part = self.control.recv(WORD.size - len(data))
                if not part:
                    raise ConnectionResetError
                data += part
        except OSError as error:
            if not self._closed:
                slow = isinstance(error, TimeoutError)
                self._lost = "no answer" if slow else self.how()
                self.close()  # a late answer would be taken for that to the next question
            raise TemplateLost(f"the process that forks children is gone ({self._lost})") from error
        answer: int = WORD.unpack(data)[0]
        return answer


class Forked:
    """A child of the template. Its process id is nobody else's until it is reaped."""

    def __init__(self, template: Template, pid: int) -> None:
        """It was just forked. Raises OSError if it, and the template, are gone already."""
        self.pid = pid
        self._template = template
        self._fd = os.pidfd_open(pid)
        self._how: str | None = None

    def ended(self) -> str | None:
        """See `Process`."""
        if self._how is None and _readable(self._fd, 0.0):
            self._how = self._template.reap(self.pid)
            os.close(self._fd)
        return self._how

    def wait(self) -> None:
        """See `Process`."""
        while self._how is None and not self.ended():
            _readable(self._fd, None)

    def send_signal(self, number: int) -> None:
        """See `Process`."""
        if self._how is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)


def can_fork() -> bool:
    """Whether this system, and the Python that was built for it, has what a template needs."""
    if sys.platform != "linux":
        return False
    try:
        own = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(own, 0)
        finally:
            os.close(own)
    except (AttributeError, OSError):  # built for older kernels, as conda's; too old, or forbidden
        return False
    return True


def _readable(fd: int, seconds: float | None) -> bool:
    poll = select.poll()  # not select, which takes no descriptor above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # most of the real-time signals have no name
        return f"signal {-code}"
