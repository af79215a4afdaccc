"""Waking consumers of one SQLite file: a datagram as the hint, a look as the safety net.

A handle that waits has a unix datagram socket in the directory beside the database, and for each
queue that it waits for a link to it, named after the queue. Whoever commits something for a queue
sends an empty datagram to some of its links. That takes a tenth of a millisecond; a lost hint costs
one interval of ``poll`` seconds, since the waiting handle looks at the file's change counter
(``PRAGMA data_version``, 5 microseconds) that often.

The rules:

- A datagram carries no data, and nobody relies on it.
- Links exist only while their handle really waits, so that a hint does not go to somebody busy.
- Dead consumers leave files behind: a sender that finds nobody listening removes them, and so does
  each handle when it opens its own socket.
- A socket's address has at most 107 bytes. In a deeper directory the address is written through
  ``/proc/self/fd``; where that is missing, or the file system has no sockets or links, there are no
  hints and the handle looks more often.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from queue_core.interrupt import Interrupt

_MAX_ADDRESS = 100
_FRESH = 50_000_000
_DEAF_POLL = 0.005
_SPARE = 1


class Wakeup:
    """One handle's ear and voice. One thread at a time."""

    __slots__ = (
        "__weakref__",
        "_directory",
        "_directory_fd",
        "_ear",
        "_links",
        "_listed",
        "_listed_at",
        "_name",
        "_poll",
        "_voice",
        "_waiting",
    )

    def __init__(self, directory: str, poll: float) -> None:
        """Open nothing yet. ``directory`` exists; ``poll`` is in seconds."""
        self._directory = directory
        self._poll = poll
        self._directory_fd = -1
        self._ear: socket.socket | None = None
        self._voice: socket.socket | None = None
        self._name = ""
        self._links: dict[str, str] = {}
        self._waiting: frozenset[str] = frozenset()
        self._listed: dict[str, list[str]] = {}
        self._listed_at = -1

    def listen(self, queues: Sequence[str]) -> None:
        """From now on a hint for one of these queues ends a `wait`."""
        wanted = frozenset(queues)
        if wanted == self._waiting or self._name == "deaf":
            return
        self.rest()
        if self._ear is None:
            self._open_ear()
        if self._ear is None:
            return
        try:
            for queue in wanted:
                link = os.path.join(self._directory, f"{_key(queue)}.{self._name}")
                os.link(os.path.join(self._directory, f"ear.{self._name}"), link)
                self._links[queue] = link
        except OSError:
            self.rest()
            self._close_ear()
            self._name = "deaf"
            return
        self._waiting = wanted

    def rest(self) -> None:
        """Ask for no more hints."""
        for link in self._links.values():
            with contextlib.suppress(OSError):
                os.unlink(link)
        self._links.clear()
        self._waiting = frozenset()

    def wait(
        self, seconds: float, interrupt: Interrupt, changed: Callable[[], bool] = lambda: False
    ) -> bool:
        """Block until a hint comes, ``changed()`` is true, or it is interrupted.

        At most ``seconds``. Returns whether one of the first two was so.
        """
        deadline = time.monotonic() + seconds
        while not interrupt.requested:
            now = time.monotonic()
            if now >= deadline:
                return False
            if changed():
                return True
            poll = self._poll if self._ear is not None else min(self._poll, _DEAF_POLL)
            if self._listen_for(min(poll, deadline - now), interrupt):
                return True
        return False

    def _listen_for(self, seconds: float, interrupt: Interrupt) -> bool:
        if self._ear is None:
            interrupt.wait(seconds)
            return False
        if not interrupt.wait(seconds, self._ear.fileno()):
            return False
        hinted = False
        with contextlib.suppress(OSError):
            while True:
                self._ear.recv(1)
                hinted = True
        return hinted

    def notify(self, queues: Iterable[str]) -> None:
        """Send hints to as many of those who wait as there are messages, and a spare one.

        A queue is named once for each message.
        """
        waiting = self._look()
        if not waiting:
            return
        counts: dict[str, int] = {}
        for queue in queues:
            counts[queue] = counts.get(queue, _SPARE) + 1
        for queue, count in counts.items():
            names = waiting.get(_key(queue))
            if names:
                self._hint(names, count)

    def _look(self) -> dict[str, list[str]]:
        """Return the links by queue.

        The directory is read again when it changed, or has just changed.
        """
        try:
            changed_at = os.stat(self._directory).st_mtime_ns
            if changed_at == self._listed_at:
                return self._listed
            listed: dict[str, list[str]] = {}
            for name in os.listdir(self._directory):
                queue, dot, handle = name.partition(".")
                if dot and queue != "ear" and handle != self._name:
                    listed.setdefault(queue, []).append(name)
        except OSError:
            return {}
        self._listed = listed
        # Two changes within one tick of the file system's clock have the same time.
        self._listed_at = changed_at if time.time_ns() - changed_at > _FRESH else -1
        return listed

    def _hint(self, names: list[str], count: int) -> None:
        if self._voice is None:
            self._voice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._voice.setblocking(False)
            _open.add(self)
        for name in random.sample(names, len(names)):
            if count <= 0:
                return
            address = self._address(name)
            if address is None:
                return
            try:
                self._voice.sendto(b"", address)
                count -= 1
            except ConnectionRefusedError:
                self._bury(name)
            except OSError:  # its ear is full of hints, too: it stands still, or comes anyway
                continue

    def _bury(self, name: str) -> None:
        handle = name.partition(".")[2]
        for left in (name, f"ear.{handle}"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._directory, left))

    def _open_ear(self) -> None:
        self._name = secrets.token_hex(6)
        self._remove_dead()
        address = self._address(f"ear.{self._name}")
        if address is None:
            self._name = "deaf"
            return
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            ear.setblocking(False)
            ear.bind(address)
        except OSError:
            ear.close()
            self._name = "deaf"
            return
        self._ear = ear
        _open.add(self)

    def _remove_dead(self) -> None:
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(self._directory) if name.startswith("ear.")]
            for name in names:
                address = self._address(name)
                if address is None:
                    return
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                    try:
                        probe.connect(address)
                    except ConnectionRefusedError:
                        self._bury(name)
                    except OSError:
                        continue

    def _address(self, name: str) -> str | None:
        path = os.path.join(self._directory, name)
        if len(os.fsencode(path)) <= _MAX_ADDRESS:
            return path
        if self._directory_fd < 0:
            if not os.path.isdir("/proc/self/fd"):
                return None
            self._directory_fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            _open.add(self)
        return f"/proc/self/fd/{self._directory_fd}/{name}"

    def _close_ear(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._directory, f"ear.{self._name}"))

    def close(self) -> None:
        """Remove the files and close the sockets. May be called twice."""
        self.rest()
        self._close_ear()
        self._release()

    def _release(self) -> None:
        """Close what this process has open, and touch no file: they may be the parent's."""
        for item in (self._ear, self._voice):
            if item is not None:
                item.close()
        if self._directory_fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._directory_fd)
        self._directory_fd = -1
        self._ear = self._voice = None
        self._links.clear()
        self._waiting = frozenset()
        self._name = ""


_open: weakref.WeakSet[Wakeup] = weakref.WeakSet()


def _release_inherited() -> None:
    for wakeup in list(_open):
        wakeup._release()  # the hook belongs to the class


os.register_at_fork(after_in_child=_release_inherited)


def _key(queue: str) -> str:
    return blake2b(queue.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
