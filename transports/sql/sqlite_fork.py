"""Forking while other threads of this process are inside of SQLite.

SQLite has locks of its own for the whole process. One that another thread holds at the moment of a
fork stays locked in the child for ever, and the child's first use of SQLite hangs. It also keeps in
the process who has locked which file: to a child that was forked in the middle of a transaction
that file stays locked. So a fork waits until none of our threads is inside, or between the
statements of a transaction, and keeps them out for that moment.

The rules:

- A cursor's lock is held while SQLite works for it, and from the beginning to the end of its
  transaction; `opening` while connections are made and closed. They are taken in that order: first
  `opening`, then cursors.
- They may be taken twice: a signal handler that forks runs on a thread that may have them.
- The fork waits for one transaction at most, or for SQLite's own waiting for somebody foreign who
  writes. After five seconds it goes on without; a child that then uses SQLite may hang.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from typing import Any, Final, Self

_PATIENCE: Final = 5.0


class SqliteCursor(sqlite3.Cursor):
    """A cursor that no fork finds inside of SQLite; one thread begins and ends a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """See ``sqlite3``."""
        super().__init__(connection)
        self.lock = threading.RLock()
        self._inside = False  # of a transaction, for which the lock is held once more
        with opening:
            _cursors.add(self)

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        """See ``sqlite3``."""
        if _forks.waiting and not self._inside:
            with opening:  # or the one who forks would have to be quicker than all who write
                pass
        with self.lock:
            try:
                return super().execute(sql, parameters)
            finally:
                if self.connection.in_transaction != self._inside:
                    self._cross()

    def executemany(self, sql: str, parameters: Any, /) -> Self:
        """See ``sqlite3``."""
        with self.lock:
            return super().executemany(sql, parameters)

    def _cross(self) -> None:
        """A transaction has begun or ended."""
        self._inside = not self._inside
        if self._inside:
            self.lock.acquire()
        else:
            self.lock.release()

    def fetchone(self) -> Any:
        """See ``sqlite3``."""
        with self.lock:
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        """See ``sqlite3``."""
        with self.lock:
            return super().fetchall()


opening: Final = threading.RLock()
"""Held while a connection is made or closed, and when one more cursor is noted."""

_cursors: Final[weakref.WeakSet[SqliteCursor]] = weakref.WeakSet()


class _Held(threading.local):
    """What each fork of this thread holds: one in a signal handler comes last and ends first."""

    def __init__(self) -> None:
        self.by_fork: list[list[Any]] = []


class _Forks:
    """Those of all threads; ``waiting``, which changes under `opening`, is how many there are."""

    def __init__(self) -> None:
        self.held = _Held()
        self.waiting = 0


_forks: Final = _Forks()


def _keep_out() -> None:
    held: list[Any] = []
    _forks.held.by_fork.append(held)
    until = time.monotonic() + _PATIENCE
    if not opening.acquire(timeout=_PATIENCE):
        return
    held.append(opening)
    _forks.waiting += 1
    for cursor in list(_cursors):
        if cursor.lock.acquire(timeout=max(0.0, until - time.monotonic())):
            held.append(cursor.lock)


def _let_in() -> None:
    held = _forks.held.by_fork.pop()
    if held:
        _forks.waiting -= 1
    for lock in reversed(held):
        lock.release()


os.register_at_fork(before=_keep_out, after_in_parent=_let_in, after_in_child=_let_in)
