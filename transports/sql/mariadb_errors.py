"""What the exceptions of MariaDB and PyMySQL mean, in one place.

===============================================  =================================================
MariaDB says (errno)                             the caller gets
===============================================  =================================================
20xx, 1053, 1205, 1213, 1317, 1927, no errno     ConnectionLost: effect unknown, may be repeated
1040, 1203, 1226                                 ConnectionLost: too many clients
1021, 1114, 1037, 1041, 1135                     BrokerFull: the disk, memory or a limit
1044, 1045, 1142, 1227, 1698                     AccessRefused, with the privilege that is missing
1049, 1290, 1665, 1792, 1836                     AccessRefused: no such database, or no writes
1146, 1054, 1034, 1194, 1195, 1932               StoreCorrupt
===============================================  =================================================

Anything else is a mistake in a statement or in the caller's values, and passes through unchanged.
"""

from __future__ import annotations

import re
from typing import Final

import pymysql
from sqlalchemy.exc import DBAPIError

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    StoreCorrupt,
)

DEADLOCK: Final = 1213
LOCK_WAIT_TIMEOUT: Final = 1205
CHANGED: Final = 1020
COLLISIONS: Final = frozenset({DEADLOCK, LOCK_WAIT_TIMEOUT, CHANGED})
"""The server undid a statement or a transaction because of another one's locks or changes."""

REPEATED: Final = frozenset({1050, 1060, 1061, 1091})
"""A table, column or index is there already, or is gone already."""

_LOST: Final = frozenset({0, 1053, 1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184})
_ENDED: Final = frozenset({1317, 1907, 1927, 1969, 3024})
_CLIENTS: Final = frozenset({1040, 1203, 1226})
_FULL: Final = frozenset({1021, 1037, 1038, 1041, 1114, 1135})
_LOGIN: Final = frozenset({1045, 1251, 1275, 1524, 1698, 1820, 1862, 2059, 4151})
_DENIED: Final = frozenset({1044, 1142, 1143, 1227, 1370})
_READ_ONLY: Final = frozenset({1290, 1792, 1836})
_DAMAGED: Final = frozenset({1017, 1033, 1034, 1035, 1054, 1146, 1194, 1195, 1712, 1932})
_HOST: Final = frozenset({1129, 1130})
_NO_SPACE: Final = re.compile(r"errno: 28\b|No space left", re.IGNORECASE)


def errno(error: Exception) -> int | None:
    """Return the number of an error of the server or the driver; None if it is none of theirs."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    if not isinstance(error, pymysql.MySQLError):
        return None
    number = error.args[0] if error.args else 0
    return number if isinstance(number, int) else 0


def explain_mariadb(error: Exception, place: str) -> QueueCoreError | None:
    """Return the error of ours that ``error`` means for the database at ``place``.

    None if it is not about the database.
    """
    if isinstance(error, OSError):
        return ConnectionLost(f"the connection to {place} is lost: {error}")
    number, said = errno(error), _said(error)
    if number is None:
        return None
    if number in COLLISIONS:
        return ConnectionLost(
            f"{place}: {said}; other transactions kept the same rows, or one stays open"
        )
    if number in _CLIENTS:
        return ConnectionLost(f"{place} accepts no more clients: {said}; raise max_connections")
    if number in _FULL or (number in (3, 1030, 1026) and _NO_SPACE.search(said)):
        return BrokerFull(f"no room for {place}: {said}; free space on the server")
    if number in _LOGIN:
        return AccessRefused(f"{place} refused the login: {said}; check user and password")
    if number in _HOST:
        return AccessRefused(f"{place} refuses this host: {said}")
    if number in _DENIED:
        return AccessRefused(f"{place}: {said}; {_grant(said)}")
    if number in _READ_ONLY:
        return AccessRefused(f"{place} accepts no writes: {said}; name the primary in the URL")
    if number == 1049:
        return AccessRefused(f"{place} does not exist: {said}; make it with: CREATE DATABASE")
    if number == 1665:
        return AccessRefused(f"{place}: {said}; set binlog_format to MIXED or ROW")
    if number in _DAMAGED:
        return StoreCorrupt(f"{place}: {said}; a part of its schema is missing or damaged")
    if number in _LOST or number in _ENDED or 2000 <= number < 3000:
        return ConnectionLost(f"the connection to {place} is lost: {said}")
    return None


def explain_connecting(error: Exception, place: str) -> QueueCoreError:
    """Return why no connection could be made."""
    cause = getattr(error, "original_exception", None) or error
    if isinstance(cause, TimeoutError) or isinstance(cause.__context__, TimeoutError):
        return ConnectTimeout(f"no connection to {place}: no answer in time")
    if errno(error) in (None, 0, 2002, 2003, 2005, 2006, 2013, 2014):
        return ConnectionLost(f"no connection to {place}: {_said(error)}")
    return explain_mariadb(error, place) or ConnectionLost(
        f"no connection to {place}: {_said(error)}"
    )


def _grant(said: str) -> str:
    """Return which statement gives the missing privilege."""
    match = re.match(r"(\w[\w ]*?) command denied", said)
    right = match[1].upper() if match else "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX"
    return f"somebody who may must GRANT {right} on that database to this user"


def _said(error: Exception) -> str:
    """Return what the error says, on one line."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    if isinstance(error, pymysql.MySQLError) and len(error.args) > 1:
        return " ".join(f"{error.args[1]} (error {error.args[0]})".split())[:500]
    return " ".join(str(error).split())[:500] or type(error).__name__
