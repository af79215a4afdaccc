"""The write-ahead log of one SQLite file, as one handle makes it longer and brings it to the disk.

SQLite syncs the log inside of a commit (``synchronous=FULL``), while the next writer waits. Here it
commits with NORMAL, which is quick, lets the next writer in, and syncs then: many writers wait for
the disk at the same time, and one sync covers everything that was committed before it. Checkpoints
sync by themselves, so the file is as sound as SQLite promises.

The rules:

- Who is told that something is stored has synced since it was committed.
- Others may see a commit a moment before it is on the disk. Whatever they store because of it comes
  later in the log, so it never outlives what it rests on.
- The system forgets what it failed to write: who syncs after that is told that all is well, and the
  log has a hole at which a power cut ends it. So after one sync that failed nothing more is
  confirmed, by no handle of any process, until a person has looked: a file beside the database
  says so.
- The log is lengthened ahead, since a sync takes about half as long again in a file that grows.
  SQLite writes over what is at its end, as it does where the log begins anew. Appended zeros can
  never take the place of something, whoever else writes.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from queue_core.errors import StoreCorrupt

LOG_PAGES: Final = 4000
"""The pages that may come between two checkpoints."""

_STEP: Final = 256 * 1024
_LONG: Final = LOG_PAGES * 4096
_sync: Final = getattr(os, "fdatasync", os.fsync)


class SqliteLog:
    """The log of the connection that is open. One thread at a time."""

    __slots__ = ("_descriptor", "_is_long", "_path", "_place", "_warning")

    def __init__(self, path: str, place: str, warning: str) -> None:
        """Open nothing yet.

        Args:
            path: the log's.
            place: which database, for errors.
            warning: the file that is there when a sync has failed.
        """
        self._path = path
        self._place = place
        self._warning = warning
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
            StoreCorrupt: nobody knows what is, since this sync failed, or an earlier one.
            OSError: the log cannot be opened.
        """
        descriptor = self._open()
        try:
            _sync(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError), open(self._warning, "x", encoding="utf-8") as file:
                file.write(f"{error}\n")
            raise self._distrusted(str(error)) from error
        if os.path.exists(self._warning):
            with open(self._warning, encoding="utf-8", errors="replace") as file:
                raise self._distrusted(file.read(200).strip())

    def _distrusted(self, reason: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._place}: the system could not write its log to the disk ({reason}) and may "
            "have forgotten what it could not write; nothing more is confirmed. Look at the disk, "
            "stop all programs that use the database, look at it with: sqlite3 FILE 'PRAGMA "
            f"integrity_check', and delete the file {self._warning}"
        )

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
