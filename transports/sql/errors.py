"""What the exceptions of SQLite and SQLAlchemy mean, in one place.

========================================  =================================================
SQLite says                               the caller gets
========================================  =================================================
BUSY, LOCKED, INTERRUPT, IOERR, PROTOCOL  ConnectionLost: effect unknown, may be repeated
FULL                                      BrokerFull
READONLY, CANTOPEN, PERM, AUTH            AccessRefused
CORRUPT, NOTADB, and a missing table      StoreCorrupt
========================================  =================================================

Anything else is a mistake in a statement or in the caller's values, and passes through unchanged.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConnectionLost,
    QueueCoreError,
    StoreCorrupt,
    TransportError,
)

_PRIMARY = 0xFF

_RETRYABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_SCHEMA,
    }
)
_REFUSED = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def explain_sqlite(error: Exception, place: str) -> QueueCoreError | None:
    """Return the error of ours that ``error`` means for the database at ``place``.

    None if it is not about the database.
    """
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return _explain_without_code(error, place)
    primary = code & _PRIMARY
    if primary in _RETRYABLE:
        return ConnectionLost(_retryable(primary, error, place))
    if primary == sqlite3.SQLITE_FULL:
        return BrokerFull(
            f"no room for {place}: {error}; free disk space, or raise max_size in its URL"
        )
    if primary in _REFUSED:
        return refused(str(error), place)
    if primary in _DAMAGED:
        return StoreCorrupt(
            f"{place} cannot be read: {error}; it is damaged or no SQLite database. Name another "
            "file, or look at it with: sqlite3 FILE 'PRAGMA integrity_check'"
        )
    if primary == sqlite3.SQLITE_ERROR and "no such" in str(error):
        return StoreCorrupt(f"{place} lost a part of its schema while it was in use: {error}")
    return None


def refused(reason: str, place: str) -> TransportError:
    """Return the error for a file or directory that may not be written."""
    return AccessRefused(
        f"{place} cannot be used: {reason}; this user must be allowed to read and write the file "
        "and to create files in its directory"
    )


def _retryable(primary: int, error: Exception, place: str) -> str:
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"{place} stayed locked: {error}; another program holds a transaction open, and it "
            "goes on when that ends"
        )
    return f"{place} failed: {error}"


def _explain_without_code(error: sqlite3.Error, place: str) -> QueueCoreError | None:
    """Errors that Python's module raises by itself carry no code."""
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return ConnectionLost(f"the connection to {place} is closed")
    return None
