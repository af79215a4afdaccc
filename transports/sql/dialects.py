"""What differs between databases, as one small protocol.

`SqlStore` and the statements hold everything that is the same on each database; a `Dialect` answers
the rest: how to connect, how a write transaction begins, what a claim and an upsert look like,
whose clock counts, how a waiting consumer is woken, and what the driver's exceptions mean. A new
database is one module with one class (see `sqlite.py`), and no change elsewhere.

A dialect object belongs to one store handle and is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, FromClause, Table, Update
from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.elements import ColumnElement

from queue_core.errors import QueueCoreError


class Cursor(Protocol):
    """What is used of a driver's cursor (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed; for ``executemany`` the sum."""

    def execute(self, statement: str, parameters: Any = ..., /) -> object:
        """Run one statement."""

    def executemany(self, statement: str, parameters: Any, /) -> object:
        """Run one statement for each row of parameters."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return the other rows."""


class Language(Protocol):
    """How a database writes what SQL has no common words for.

    Pure: used once, when the statements are compiled.
    """

    @property
    def compiler(self) -> Compiler:
        """The SQLAlchemy dialect that turns statements into text."""

    def now(self) -> ColumnElement[int]:
        """The present in microseconds.

        Either a bound parameter named ``now`` (the host's clock) or the database's own clock.
        """

    def insert_new(self, table: Table) -> Insert:
        """An insert of one row that does nothing, and counts no row, where a unique key exists."""

    def insert_or_replace(self, table: Table) -> Insert:
        """An insert of one row that takes the place of the row with the same primary key."""

    def numbers(self) -> FromClause:
        """A table with a column ``value``, made of one bound parameter named ``numbers``.

        `Dialect.numbers` makes the parameter.
        """

    def claim(self, take: Update) -> Update:
        """Finish the statement that takes the best messages.

        What must be locked or skipped while it chooses differs.
        """


class Dialect(Protocol):
    """One store handle's dealings with its database."""

    @property
    def language(self) -> Language:
        """How this database writes SQL."""

    @property
    def place(self) -> str:
        """The database for people, without a password: for error messages."""

    def cursor(self) -> Cursor:
        """Return the cursor of this process's connection.

        Connects, and checks the schema, if there is none. A connection inherited through ``fork``
        is left alone and another one is made. An open transaction is rolled back.
        """

    def now(self) -> int:
        """The present in microseconds, for what is computed in Python."""

    def numbers(self, values: Iterable[int]) -> object:
        """Return the values as the parameter that `Language.numbers` takes."""

    def begin(self, cursor: Cursor) -> None:
        """Begin a transaction that may write.

        Blocks until others let it, at most the URL's ``timeout``.
        """

    def commit(self, cursor: Cursor) -> None:
        """Make it durable, and let others go on."""

    def rollback(self) -> None:
        """Give the transaction up, and let others go on.

        Never raises; a connection that cannot roll back is dropped.
        """

    def check_room(self, cursor: Cursor) -> None:
        """Raise BrokerFull while a publish would take the room that settling needs.

        Called before each publish.
        """

    def mark(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Note the present state for a following ``wait``.

        No change after this call is missed then.
        """

    def wait(self, cursor: Cursor, seconds: float) -> bool:
        """Block until something may have changed since ``mark``, at most ``seconds``.

        Returns whether that is why it returned; it may do so for nothing.
        """

    def rest(self) -> None:
        """The handle stopped waiting: nobody needs to wake it."""

    def notify(self, queues: Iterable[str]) -> None:
        """Wake those who wait for these queues, which are named once for each message."""

    def announce(self, queues: Iterable[str]) -> None:
        """Like ``notify``, from any thread: for transactions that others have committed."""

    def joined(self, connection: Connection) -> Cursor:
        """Return a cursor inside the caller's own transaction on the same database.

        Raises:
            UsageError: it is another database, or the connection has no transactions.
        """

    def explain(self, error: Exception) -> QueueCoreError | None:
        """Return what an exception of the driver or of SQLAlchemy means here.

        None if it is not one of theirs.
        """

    def drop(self) -> None:
        """Throw the connection away; the next ``cursor`` makes another one."""

    def close(self) -> None:
        """Give everything back. May be called twice."""
