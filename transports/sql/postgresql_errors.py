"""What the exceptions of PostgreSQL and psycopg mean, in one place.

==========================================  ====================================================
PostgreSQL says (SQLSTATE)                  the caller gets
==========================================  ====================================================
08, 57P, 55P03, 57014, 25P03, 40, no code   ConnectionLost: effect unknown, may be repeated
53300, 25006                                ConnectionLost: too many clients; a standby answered
53100, 53200, 54                            BrokerFull: the disk, memory or a limit
28, 3D000, 42501, 3F000                     AccessRefused, with the privilege that is missing
42P01, 42703, XX001, XX002, F0              StoreCorrupt
==========================================  ====================================================

Anything else is a mistake in a statement or in the caller's values, and passes through unchanged.
A server refuses a connection in words only, so those are looked at, in English; in another language
the error is a ConnectionLost with the server's words.
"""

from __future__ import annotations

import re
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    StoreCorrupt,
)

COLLISIONS: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the transaction was undone, and may be run again."""

_LOST: Final = ("08", "57P", "57014", "25P", "25006", "53300", "53400", "55P", "57", "58", "40")
_FULL: Final = ("53", "54")
_REFUSED: Final = ("28", "42501", "3F000", "3D000")
_DAMAGED: Final = ("42P01", "42703", "XX001", "XX002", "F0")

_LOGIN: Final = "check user and password of the URL"
_MAKE: Final = "make it with: CREATE DATABASE"
_ADVICE: Final = {
    "28P01": _LOGIN,
    "28000": _LOGIN,
    "3D000": _MAKE,
    "25006": "this server accepts no writes, it is a standby or read-only; name the primary in the "
    "URL, or let target_session_attrs=read-write look for it",
    "53300": "it accepts no more clients; raise its max_connections, or use a pooler",
    "53100": "free disk space on the server",
    "57014": "its statement_timeout, or somebody, cancelled the statement",
    "55P03": "its lock_timeout ended the wait for a lock",
    "42501": "GRANT to this user what is missing (CREATE ON SCHEMA to make the tables, or ALL ON "
    "those that are there), or give it a schema of its own: CREATE SCHEMA AUTHORIZATION user",
    "3F000": "its search_path leads to no schema; GRANT CREATE ON SCHEMA to this user, or give it "
    "one of its own: CREATE SCHEMA AUTHORIZATION user",
}

_WORDS: Final = (
    (r"no password supplied|authentication failed", AccessRefused, _LOGIN),
    (r'role ".*" (does not exist|is not permitted)', AccessRefused, _LOGIN),
    (r"pg_hba\.conf", AccessRefused, "allow user and host in the server's pg_hba.conf"),
    (r"permission denied", AccessRefused, "GRANT CONNECT ON DATABASE to this user"),
    (r'database ".*" does not exist', AccessRefused, _MAKE),
    (r"timeout expired|timed out", ConnectTimeout, ""),
)
"""Why there is no connection, as the server or the driver says it; what it is, and what to do."""


def explain_postgresql(error: Exception, place: str) -> QueueCoreError | None:
    """Return the error of ours that ``error`` means for the database at ``place``.

    None if it is not about the database.
    """
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
    said = _said(error)
    if not code:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return ConnectionLost(f"the connection to {place} is lost: {said}")
        return None
    advice = _ADVICE.get(code, "")
    text = f"{place}: {said}" + (f"; {advice}" if advice else "")
    if code.startswith(_LOST):
        return ConnectionLost(text)
    if code.startswith(_FULL):
        return BrokerFull(text)
    if code.startswith(_REFUSED):
        return AccessRefused(text)
    if code.startswith(_DAMAGED):
        return StoreCorrupt(f"{text}; a part of its schema is missing or damaged")
    return None


def explain_connecting(error: psycopg.Error, place: str, user: str) -> QueueCoreError:
    """Return why no connection could be made."""
    if getattr(error, "sqlstate", None):
        meaning = explain_postgresql(error, place)
        if meaning is not None:
            return meaning
    said = _said(error)
    for words, kind, advice in _WORDS:
        if re.search(words, said, re.IGNORECASE):
            hint = f"; {advice}" if advice else ""
            return kind(f"no connection as {user!r} to {place}: {said}{hint}")
    return ConnectionLost(f"no connection to {place}: {said}")


def _said(error: Exception) -> str:
    """Return the first sentences of the error, on one line."""
    return ", ".join(line.strip() for line in str(error).splitlines() if line.strip())[:500]
