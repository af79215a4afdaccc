"""What differs between databases, as one small protocol.

`SqlStore` and the statements hold everything that is the same on each database; a `Dialect` answers
the rest: how to connect, how a write transaction begins, what a claim and an upsert look like,
whose clock counts, how a waiting consumer is woken, and what the driver's exceptions mean. A new
database is one module with one class (see `sqlite.py`), and no change elsewhere.

Many may write at once, where a database lets them. What keeps each step atomic then are row locks,
which the statements ask for through `Language.share`, `Language.hold` and `Language.change`, and
`Dialect.lock_queues`; always in this order, so that nobody waits in a circle: the counter, table
entries by name, queues by name, sessions, messages by seq. SQLite has one writer and needs none.

A dialect object belongs to one store handle and is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, FromClause, Select, Table
from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from queue_core.durability import Durability
from queue_core.errors import QueueCoreError
from queue_core.interrupt import Interrupt
from queue_core.message import Token
from queue_core.transport import Envelope, PutResult


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

    def moment(self, given: ColumnElement[int]) -> ColumnElement[int]:
        """The moment that ``given`` stands for, in microseconds.

        ``given`` is counted from `Dialect.now`: it is the moment itself, or what to add to the
        database's clock. NULL stays NULL.
        """

    def insert_new(self, table: Table) -> Insert:
        """An insert of one row that does nothing, and counts no row, where a unique key exists."""

    def insert_or_replace(self, table: Table) -> Insert:
        """An insert of one row that takes the place of the row with the same primary key."""

    def among(self, column: ColumnElement[Any], many: str) -> ColumnElement[bool]:
        """The condition that ``column`` is one of many.

        They are one bound parameter of the name ``many``, which `Dialect.numbers` or
        `Dialect.names` makes.
        """

    def names(self) -> FromClause:
        """A table with a column ``value``, made of one bound parameter named ``names``.

        `Dialect.names` makes the parameter.
        """

    def share(self, rows: Select[Any]) -> Select[Any]:
        """Have nobody `hold` or delete the rows until this transaction ends.

        Others may share them too. Waits for who holds one, and sees what that one made of it.
        """

    def hold(self, rows: Select[Any], *, skip: bool = False) -> Select[Any]:
        """Have nobody else share, change or delete the rows until this transaction ends.

        ``skip`` leaves out rows that somebody else keeps locked. Else they are waited for.
        """

    def change(self, move: Move) -> Sequence[ClauseElement]:
        """Choose rows of the message table, change them, and read columns of them.

        One statement that does it all; or a choice that returns ``seq`` first, and a change and a
        reading, if anything is to be read, that take these as the parameter ``numbers``. The rows
        are locked in their order while they are chosen, and their condition holds for them then.
        """

    def next_version(self) -> Sequence[ClauseElement]:
        """Draw a number that was never drawn before: the last statement returns it."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change of chosen rows of the message table.

    Attributes:
        rows: which ones.
        index: the one of `tables` that they are found by; none is the primary key.
        update: the change, without a condition.
        order: what comes first, where ``limit`` leaves some out. It may be all the same.
        limit: how many, an expression; None is all.
        skip: rows that somebody else is changing are left out. Else they are waited for.
        returning: the columns to read afterwards; in no order.
    """

    rows: ColumnElement[bool]
    update: Update
    index: str = ""
    order: Sequence[ColumnElement[Any]] = ()
    limit: ColumnElement[int] | int | None = None
    skip: bool = False
    returning: Sequence[ColumnElement[Any]] = ()


class Taking(NamedTuple):
    """What one claim settles and takes, and how it is noted."""

    session: str
    request: str
    slot: int
    fence: int
    wants: Mapping[str, int]
    settle: Sequence[Token]


class Taken(NamedTuple):
    """What a claim in one statement did.

    Attributes:
        number: the session's; None if there is no such session, and then nothing happened.
        stale: the tokens that were not held.
        rows: the messages, as `Statements.taken` reads them, in no order.
        due_in: seconds until there is more; infinite if nothing is on its way, 0 if nobody knows.
        left: whether there may be more now; False only where hints are also kept while nobody
            waits for them.
    """

    number: int | None
    stale: Sequence[Token]
    rows: Sequence[Any]
    due_in: float = 0.0
    left: bool = True


class Dialect(Protocol):
    """One store handle's dealings with its database."""

    @property
    def language(self) -> Language:
        """How this database writes SQL."""

    @property
    def place(self) -> str:
        """The database for people, without a password: for error messages."""

    @property
    def eager(self) -> bool:
        """An attempt to take costs no more than a look, and tells as much."""

    @property
    def autocommits(self) -> bool:
        """A statement outside of a transaction may write; else it must wait for its turn before."""

    def cursor(self) -> Cursor:
        """Return the cursor of this process's connection.

        Connects, and checks the schema, if there is none. A connection inherited through ``fork``
        is left alone and another one is made. An open transaction is rolled back.
        """

    def expect_by(self, until: float) -> None:
        """Give up what has no answer by then; see `queue_core.transport.Punctual`."""

    def now(self) -> int:
        """What moments computed in Python are counted from, in microseconds.

        The present by the host's clock, or 0 where `Language.moment` adds the database's.
        """

    def numbers(self, values: Iterable[int]) -> object:
        """Return the values as the parameter that `Language.among` takes."""

    def names(self, values: Iterable[str]) -> object:
        """Return the values as the parameter that `Language.among` and `Language.names` take."""

    def begin(self, cursor: Cursor, *, lasting: bool) -> None:
        """Begin a transaction that may write.

        Blocks until others let it, at most the URL's ``timeout``. What is not ``lasting`` may be
        undone by a power cut or a crash of the server, until something lasting is committed; where
        that is cheaper.
        """

    def lock_queues(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Have nobody else lock one of these queues until the transaction ends.

        They come in the order in which everybody locks them. Called before what is in them is
        counted.
        """

    def commit(self, cursor: Cursor) -> None:
        """Make it durable, and let others go on."""

    def rollback(self) -> None:
        """Give the transaction up, and let others go on.

        Never raises; a connection that cannot roll back is dropped.
        """

    def durability(self, cursor: Cursor) -> Durability:
        """Ask for the settings that say what a committed message survives; see `durability`."""

    def check_room(self, cursor: Cursor) -> None:
        """Raise BrokerFull while a publish would take the room that settling needs.

        Called within each put that brings something new.
        """

    def listens(self, queues: Sequence[str]) -> bool:
        """Return whether ``mark`` for these queues costs nothing, so that it may come first."""

    def mark(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Note the present state for a following ``wait``.

        No change after this call is missed then.
        """

    def wait(self, cursor: Cursor, seconds: float, interrupt: Interrupt) -> bool:
        """Block until something may have changed since ``mark``, or it is interrupted.

        At most ``seconds``. Returns whether something may have changed; it may do so for nothing.
        """

    def rest(self) -> None:
        """The handle stopped waiting: nobody needs to wake it."""

    def notify(self, queues: Iterable[str]) -> None:
        """Wake those who wait for these queues, which are named once for each message."""

    def notify_within(self, cursor: Cursor, queues: Iterable[str]) -> None:
        """Have the commit of somebody's transaction wake them, where the database can."""

    def announce(self, queues: Iterable[str]) -> None:
        """Like ``notify``, from any thread: for transactions that others have committed."""

    def put_once(
        self, batch: Sequence[Envelope], versions: Mapping[str, int], settle: Sequence[Token]
    ) -> PutResult | None:
        """Do a whole put with one statement, which is a transaction by itself.

        None if it cannot be, and nothing happened; then it is done in steps. Who waits is woken.
        """

    def take_once(self, taking: Taking) -> Taken | None:
        """Do a whole claim, but for the wait, with one statement; None if that cannot be."""

    def joined(self, connection: Connection) -> Cursor:
        """Return a cursor inside the caller's own transaction on the same database.

        Raises:
            UsageError: it is another database, or the connection has no transactions.
        """

    def collided(self, error: Exception) -> bool:
        """Return whether the database undid a transaction because of another one.

        A deadlock or the like: nothing happened, and it may be run again at once.
        """

    def explain(self, error: Exception) -> QueueCoreError | None:
        """Return what an exception of the driver or of SQLAlchemy means here.

        None if it is not one of theirs.
        """

    def drop(self) -> None:
        """Throw the connection away; the next ``cursor`` makes another one."""

    def close(self) -> None:
        """Give everything back. May be called twice."""
