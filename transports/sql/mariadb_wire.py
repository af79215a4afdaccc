"""Statements on the wire to MariaDB: written out by us, and several in one packet.

A round trip costs PyMySQL 150 microseconds, most of it CPU; so what has no answer that somebody
waits for is held back and travels with the next statement that has.

The rules:

- Values are written into the text as MySQL reads them under any character set that continues ASCII:
  in strings only the quote and the backslash have a meaning. `Wire` has made sure of the session's
  ``sql_mode``; a connection of somebody else's gets its strings in hexadecimal digits instead.
- The statements of a packet run in order, and the first that fails ends it: those behind it have
  not run. So an error may come with a later call, always within the same transaction.
- A packet is at most about a megabyte, unless one statement alone is larger.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pymysql

from queue_core.errors import TooLarge

_PACKET: Final = 1 << 20
_MARGIN: Final = 1 << 10

Answer = tuple[int, Sequence[Any]]
"""How many rows a statement changed, and those that it returned."""

Writer = Callable[[object], bytes]


def quoted(value: object) -> bytes:
    """Write a value: None, a number, text, bytes, or a tuple of them."""
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, str):
        return b"'%s'" % _escaped(value.encode())
    if isinstance(value, bytes):
        return b"_binary'%s'" % _escaped(value)
    return _other(value, quoted)


def in_digits(value: object) -> bytes:
    """Write a value for a session whose way to read strings is not known."""
    if isinstance(value, str):
        return b"_utf8mb4 x'%s'" % value.encode().hex().encode()
    if isinstance(value, bytes):
        return b"x'%s'" % value.hex().encode()
    return _other(value, in_digits)


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b"'", b"\\'")


def _other(value: object, write: Writer) -> bytes:
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(value).encode()
    if isinstance(value, tuple):
        return b"(%s)" % b",".join(map(write, value))
    raise TypeError(f"{type(value).__name__} is no value for a statement")


@functools.cache
def _parts(statement: str) -> list[bytes]:
    return [part.replace(b"%%", b"%") for part in statement.encode().split(b"%s")]


def fill(statement: str, parameters: Iterable[object], write: Writer = quoted) -> bytes:
    """Return a statement with its parameters in the place of each ``%s``."""
    parts = iter(_parts(statement))
    text = [next(parts)]
    for value, part in zip(parameters, parts, strict=True):
        text += (write(value), part)
    return b"".join(text)


class Wire:
    """The cursor of one connection of our own; see the module. One thread at a time."""

    __slots__ = (
        "_calls",
        "_count",
        "_cursor",
        "_early",
        "_held",
        "_limit",
        "_packet",
        "_rows",
        "_size",
    )

    def __init__(self, connection: pymysql.connections.Connection, limit: int) -> None:
        """``limit`` is the server's ``max_allowed_packet``."""
        self._cursor = connection.cursor()
        self._limit = limit
        self._packet = min(limit - _MARGIN, _PACKET)
        self._held: list[bytes] = []
        self._size = 0
        self._early: list[Answer] = []
        self._calls = 0
        self._count = 0
        self._rows: Sequence[Any] = ()

    @property
    def rowcount(self) -> int:
        """How many rows the last call of ``execute`` or ``executemany`` changed."""
        self.send()
        return self._count

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> None:
        """Hold a statement back until its answer is asked for, or ``send`` is called."""
        self.executemany(statement, (parameters,))

    def executemany(self, statement: str, parameters: Iterable[Sequence[object]], /) -> None:
        """Hold a statement back for each row of parameters."""
        self._calls = 0
        for row in parameters:
            self.hold(fill(statement, row))
            self._calls += 1

    def hold(self, statement: bytes) -> None:
        """Hold a statement back that is written out."""
        if len(statement) + _MARGIN > self._limit:
            raise TooLarge(
                f"a statement of {len(statement)} bytes, most of it the message's body, is more "
                f"than the {self._limit} bytes that the server takes; raise its max_allowed_packet"
            )
        if self._held and self._size + len(statement) > self._packet:
            self._early += self._exchange()
        self._held.append(statement)
        self._size += len(statement) + 1

    def forget(self) -> None:
        """Send nothing of what is held back."""
        self._held.clear()
        self._early.clear()
        self._size = 0

    def send(self) -> None:
        """Send what is held back, and read all answers; keeps those of the last call."""
        if self._held:
            mine = self.answers()[-self._calls :] if self._calls else ()
            self._count = sum(count for count, _ in mine)
            self._rows = mine[-1][1] if mine else ()

    def answers(self) -> list[Answer]:
        """Send what is held back; return for each statement how many rows it changed, or its rows.

        The first error is raised, and later statements have not run.
        """
        answers = self._early + self._exchange()
        self._early.clear()
        return answers

    def _exchange(self) -> list[Answer]:
        cursor, packet = self._cursor, b";".join(self._held)
        self._held.clear()
        self._size = 0
        cursor.execute(packet)
        found = [(cursor.rowcount, cursor.fetchall())]
        while cursor.nextset():
            found.append((cursor.rowcount, cursor.fetchall()))
        return found

    def fetchone(self) -> Any:
        """Return the first row of the last statement, or None."""
        self.send()
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        """Return the rows of the last statement."""
        self.send()
        return list(self._rows)


class CallerCursor:
    """A cursor on the caller's own connection; each statement is sent at once.

    Of any driver that takes statements without parameters.
    """

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        """Take the driver's cursor."""
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return int(self._cursor.rowcount)

    def execute(self, statement: str, parameters: Sequence[object] = (), /) -> None:
        """Run one statement."""
        self._cursor.execute(fill(statement, parameters, in_digits))

    def executemany(self, statement: str, parameters: Iterable[Sequence[object]], /) -> None:
        """Run a statement for each row of parameters. Counts only the last."""
        for row in parameters:
            self.execute(statement, row)

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """Return the other rows."""
        return list(self._cursor.fetchall())
