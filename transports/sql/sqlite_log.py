"""The write-ahead log of one SQLite file, as one handle makes it longer and brings it to the disk.

SQLite syncs the log inside of a commit (``synchronous=FULL``), while the next writer waits. Here it
commits with NORMAL, which is quick, lets the next writer in, and syncs then: many writers wait for
the disk at the same time, and one sync covers everything that was committed before it. Checkpoints
sync by themselves, so the file is as sound as SQLite promises.

The rules:

- Who is told that something is stored has synced since it was committed.
- Others may see a commit a moment before it is on the disk. Whatever they store because of it comes
  later in the log, so it never outlives what it rests on.
- The log is lengthened ahead, since a sync takes about half as long again in a file that grows.
  SQLite writes over what is at its end, as it does where the log begins anew. Appended zeros can
  never take the place of something, whoever else writes.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

LOG_PAGES: Final = 4000
"""The pages that may come between two checkpoints."""

_STEP: Final = 256 * 1024
_LONG: Final = LOG_PAGES * 4096
_sync: Final = getattr(os, "fdatasync", os.fsync)


class SqliteLog:
    """The log of the connection that is open. One thread at a time."""

    __slots__ = ("_descriptor", "_is_long", "_path")

    def __init__(self, path: str) -> None:
        """Open nothing yet."""
        self._path = path
        self._descriptor = -1
        self._is_long = False

    def lengthen(self) -> None:
        """Make the log longer than it needs to be, if it has just grown; fails without harm.

        One that holds what comes between two checkpoints is long enough, and not looked at again.
        """
        if self._is_long:
            return
        with contextlib.suppress(OSError):
            descriptor = self._open()
            size = os.fstat(descriptor).st_size
            self._is_long = size >= _LONG
            if excess := size % _STEP:
                os.write(descriptor, bytes(_STEP - excess))

    def sync(self) -> None:
        """Block until everything that was committed before is on the disk.

        Raises:
            OSError: nobody knows what is.
        """
        _sync(self._open())

    def close(self) -> None:
        """Forget the log: who is the last to close the file removes it. May be called twice."""
        descriptor, self._descriptor, self._is_long = self._descriptor, -1, False
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return self._descriptor
