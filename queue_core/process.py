"""Which process this is, told without asking the system, and what each has for itself.

A session, its sockets and its locks belong to the process that made them, so each call looks
whether it is still that one. A system call takes as long as five function calls, and a publish
looks three times: so the number is kept here, beside a page of memory that Linux empties in every
forked process. That also holds for processes that are not forked by Python, such as those of a web
server that imports the program first: uWSGI runs none of the functions that `os.register_at_fork`
was given. Where there is no such page, the system is asked each time.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["PerProcess", "process_id"]

T = TypeVar("T")

_WIPE_ON_FORK: Final = 18  # mmap has no name for it


def process_id() -> int:
    """Return the number of this process, as `os.getpid` does."""
    if not _mark[0]:
        _note()
    return _own


def _note() -> None:
    global _own  # noqa: PLW0603 - what is true of the whole process
    _own = os.getpid()
    if isinstance(_mark, mmap.mmap):
        _mark[0] = 1


def _page() -> mmap.mmap | bytes:
    """A page whose first byte is 0 in a process that was just forked, or always."""
    if sys.platform == "linux":
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            page.madvise(_WIPE_ON_FORK)
        except OSError:  # before Linux 4.14
            page.close()
        else:
            return page
    return bytes(1)


_mark = _page()
_own = 0
os.register_at_fork(after_in_child=_note)  # emulators of Linux may accept the advice and ignore it


class PerProcess(Generic[T]):
    """One thing for each process, made when that first asks for it. Thread-safe.

    For what a fork must not share: connections, locks, threads. A forked child does not find its
    parent's, and keeps it from being closed: it stays referred to until the child ends.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Make nothing yet. ``make`` returns a new one, never None, and must not ask for it."""
        self._make = make
        self._places: dict[int, _Place[T]] = {}

    def get(self) -> T:
        """Return this process's, made by one thread while others wait. Raises what making does."""
        place = self._places.get(process_id())
        if place is None:
            place = self._places.setdefault(process_id(), _Place())
        if place.value is None:
            with place.making:
                if place.value is None:
                    place.value = self._make()
        return place.value

    def peek(self) -> T | None:
        """Return this process's if it has one."""
        place = self._places.get(process_id())
        return None if place is None else place.value

    def take(self) -> T | None:
        """Return this process's if it has one, and forget it: who asks next gets a new one."""
        place = self._places.pop(process_id(), None)
        return None if place is None else place.value


class _Place(Generic[T]):
    """Where a process has its own; the lock is its own, too."""

    __slots__ = ("making", "value")

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.value: T | None = None
