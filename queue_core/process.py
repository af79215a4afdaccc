"""Which process this is, told without asking the system.

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
from typing import Final

__all__ = ["process_id"]

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
