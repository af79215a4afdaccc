"""SQLite: one file on a local disk, shared by the processes of one machine.

The rules:

- Write-ahead log, and ``BEGIN IMMEDIATE`` for everything that may write: a transaction that began
  as a reader fails at once when somebody else wrote in between.
- A commit that is to last waits for the disk when it has let the next writer in (`SqliteLog`),
  unless the URL says otherwise. What need not last (claims, heartbeats) does not wait: the log
  keeps the order, so the next one that does brings it to the disk, and a power cut before undoes it
  as a whole.
- Writers take turns at the `Gate`; waiting consumers are woken by `Wakeup`.
- Time is the host's clock as it is, since every process that can open the file has the same one.
  When somebody sets it, delays and ttls under way end earlier or later by as much; leases are not
  concerned.
- An ack needs room in the log, so publishes are refused while less than 16 MiB of the disk, or a
  tenth of ``max_size``, is free.
- A connection inherited through ``fork`` is never touched, not even closed: closing drops locks and
  may remove the log.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, FromClause, Select, Table, bindparam, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from queue_core.durability import Durability
from queue_core.errors import BrokerFull, ConnectionLost, QueueCoreError, UsageError
from queue_core.interrupt import Interrupt
from queue_core.message import Token
from queue_core.policy import Clock
from queue_core.process import process_id
from queue_core.transport import Envelope, PutResult
from queue_core.transports.sql.dialects import Cursor, Move, Taken, Taking
from queue_core.transports.sql.durability import of_sqlite
from queue_core.transports.sql.errors import explain_sqlite, refused
from queue_core.transports.sql.gate import Gate
from queue_core.transports.sql.sqlite_file import SqliteFile
from queue_core.transports.sql.sqlite_fork import SqliteCursor, opening
from queue_core.transports.sql.tables import message, meta
from queue_core.transports.sql.wakeup import Wakeup

_NEAR: Final = 0.02
_RESERVE: Final = 16 * 1024 * 1024
_left_alone: list[object] = []
_encode: Final = msgspec.json.Encoder().encode


class SqliteLanguage:
    """How SQLite writes SQL."""

    __slots__ = ("compiler",)

    compiler: Compiler

    def __init__(self) -> None:
        """Make the compiler."""
        self.compiler = sqlite.dialect(paramstyle="qmark")

    def now(self) -> ColumnElement[int]:
        """The host's clock, given with each statement."""
        return bindparam("now")

    def moment(self, given: ColumnElement[int]) -> ColumnElement[int]:
        """As it is: Python knows the clock."""
        return given

    def insert_new(self, table: Table) -> Insert:
        """``ON CONFLICT DO NOTHING``."""
        return sqlite.insert(table).on_conflict_do_nothing()

    def insert_or_replace(self, table: Table) -> Insert:
        """``INSERT OR REPLACE``."""
        return sqlite.insert(table).prefix_with("OR REPLACE")

    def among(self, column: ColumnElement[Any], many: str) -> ColumnElement[bool]:
        """A JSON list."""
        values = func.json_each(bindparam(many)).table_valued("value")
        return column.in_(select(values.c.value))

    def names(self) -> FromClause:
        """A JSON list."""
        return func.json_each(bindparam("names")).table_valued("value")

    def share(self, rows: Select[Any]) -> Select[Any]:
        """As they are: there is one writer."""
        return rows

    def hold(self, rows: Select[Any], *, skip: bool = False) -> Select[Any]:
        """As they are: there is one writer."""
        return rows

    def change(self, move: Move) -> Sequence[ClauseElement]:
        """One statement."""
        rows = move.rows
        if move.limit is not None:
            chosen = select(message.c.seq).where(rows).order_by(*move.order).limit(move.limit)
            rows = message.c.seq.in_(chosen)
        change = move.update.where(rows)
        return [change.returning(*move.returning) if move.returning else change]

    def next_version(self) -> Sequence[ClauseElement]:
        """Count in the meta table."""
        counter = update(meta).where(meta.c.name == "version").values(number=meta.c.number + 1)
        return [counter.returning(meta.c.number)]


class SqliteDialect:
    """One handle on one SQLite file; see `Dialect`."""

    eager = False
    autocommits = False

    def __init__(self, file: SqliteFile, clock: Clock, language: SqliteLanguage) -> None:
        """Open nothing yet."""
        self.language = language
        self.place = file.place
        self._file = file
        self._clock = clock
        self._gate = Gate(file.open_side_file, file.patience)
        self._lasting = False
        self._wakeup = Wakeup(file.side, file.poll)
        self._connection: Connection | None = None
        self._raw: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._pid = process_id()
        self._identity: tuple[int, int] | None = None
        self._data_version = 0
        self._until = math.inf
        self._busy = file.patience  # SQLite's own patience, as it is set now

    # connecting

    def cursor(self) -> Cursor:
        """Return this process's cursor: connected, with the schema, outside of a transaction."""
        if self._pid != process_id():
            self._leave_alone()
        cursor, raw = self._cursor, self._raw
        if cursor is None or raw is None:
            return self._connect()
        if raw.in_transaction:
            self.rollback()
            return self._cursor or self._connect()
        return cursor

    def _connect(self) -> sqlite3.Cursor:
        connection = self._file.connect(self.language.compiler)
        self._identity = self._file.identity()
        self._connection = connection
        self._raw = cast(sqlite3.Connection, connection.connection.driver_connection)
        self._busy = self._file.patience
        self._cursor = self._raw.cursor(SqliteCursor)
        return self._cursor

    def _leave_alone(self) -> None:
        """Keep the parent's connection as it is, for ever, and forget it."""
        _left_alone.append((self._connection, self._raw, self._cursor))
        self._connection = self._raw = self._cursor = None
        self._file.log.close()
        self._pid = process_id()

    # transactions

    def now(self) -> int:
        """The host's clock."""
        return int(self._clock.time() * 1_000_000)

    def numbers(self, values: Iterable[int]) -> object:
        """A JSON list."""
        return _encode(list(values)).decode()

    def names(self, values: Iterable[str]) -> object:
        """A JSON list."""
        return _encode(list(values)).decode()

    def begin(self, cursor: Cursor, *, lasting: bool) -> None:
        """Take the turn, and SQLite's write lock."""
        if self._file.identity() != self._identity:
            # Writing into a file that was deleted would succeed, and nobody would ever see it.
            self.drop()
            raise ConnectionLost(
                f"{self.place} was deleted or replaced while it was in use; "
                "the next call opens the one that is there"
            )
        self._lasting = lasting and self._file.synchronous != "normal"
        self._gate.enter(self._patience())
        try:
            if abs(self._busy - (busy := self._patience())) > _NEAR:
                cursor.execute(f"PRAGMA busy_timeout = {int(busy * 1000)}")
                self._busy = busy
            cursor.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._gate.leave()
            raise

    def expect_by(self, until: float) -> None:
        """No wait for other writers is longer."""
        self._until = until

    def _patience(self) -> float:
        """Return the seconds to wait for other writers: for the gate, and as long for SQLite."""
        return max(0.0, min(self._file.patience, self._until - time.monotonic()))

    def lock_queues(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Nobody else writes meanwhile."""

    def commit(self, cursor: Cursor) -> None:
        """Commit, let the next one in, and wait for the disk if that was asked for."""
        cursor.execute("COMMIT")
        self._file.log.lengthen()
        self._gate.leave()
        if self._lasting:
            self._file.log.sync()

    def rollback(self) -> None:
        """Roll back, and let the next one in; drop the connection if even that fails."""
        try:
            if self._raw is not None and self._cursor is not None and self._raw.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error:
            self.drop()
        finally:
            self._gate.leave()

    def durability(self, cursor: Cursor) -> Durability:
        """Look at the journal, the URL and the file system."""
        cursor.execute("PRAGMA journal_mode")
        journal = str(cursor.fetchone()[0])
        found = of_sqlite(journal, self._file.synchronous, self._file.filesystem())
        return replace(found, broker=f"SQLite {sqlite3.sqlite_version}")

    def check_room(self, cursor: Cursor) -> None:
        """Refuse publishes while the disk, or ``max_size``, is nearly full."""
        free = self._file.free()
        if free < _RESERVE:
            raise BrokerFull(
                f"no room for {self.place}: its disk has {free} bytes left, and {_RESERVE} are "
                "kept for settling; free some space"
            )
        most = self._file.max_pages
        if most:
            used = _pragma(cursor, "page_count") - _pragma(cursor, "freelist_count")
            if used > most * 9 // 10:
                raise BrokerFull(
                    f"no room for {self.place}: {used} of {most} pages are used, and a tenth is "
                    "kept for settling; raise max_size in its URL, or let consumers drain it"
                )

    # waiting

    def listens(self, queues: Sequence[str]) -> bool:
        """No: links in the file system are not made before there is nothing to take."""
        return False

    def mark(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Ask for hints, and read the file's change counter."""
        self._wakeup.listen(queues)
        self._data_version = _pragma(cursor, "data_version")

    def wait(self, cursor: Cursor, seconds: float, interrupt: Interrupt) -> bool:
        """Wait for a hint, or for another value of the change counter."""
        before = self._data_version
        return self._wakeup.wait(
            seconds, interrupt, lambda: bool(_pragma(cursor, "data_version") != before)
        )

    def rest(self) -> None:
        """Ask for no more hints."""
        self._wakeup.rest()

    def notify(self, queues: Iterable[str]) -> None:
        """Send hints."""
        self._wakeup.notify(queues)

    def notify_within(self, cursor: Cursor, queues: Iterable[str]) -> None:
        """A datagram cannot wait for a commit; see ``announce``."""

    def announce(self, queues: Iterable[str]) -> None:
        """Send hints through a socket of its own: this is the thread of somebody's commit."""
        with contextlib.closing(Wakeup(self._file.side, self._file.poll)) as wakeup:
            wakeup.notify(queues)

    # whole steps at once

    def put_once(
        self, batch: Sequence[Envelope], versions: Mapping[str, int], settle: Sequence[Token]
    ) -> PutResult | None:
        """Steps cost nothing here: the database is in this process."""
        return None

    def take_once(self, taking: Taking) -> Taken | None:
        """Steps cost nothing here."""
        return None

    # the caller's own transaction

    def joined(self, connection: Connection) -> Cursor:
        """Return a cursor in the caller's transaction.

        Begins it where SQLAlchemy has and the driver has not yet.
        """
        bind = connection.engine.url.render_as_string(hide_password=True)
        if connection.dialect.name != "sqlite":
            raise self._elsewhere(bind)
        raw: Any = connection.connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            raise UsageError(
                f"transaction= of {bind} is not a synchronous connection; pass a synchronous "
                "Session or Connection"
            )
        path = next((row[2] for row in raw.execute("PRAGMA database_list") if row[1] == "main"), "")
        if not path or not os.path.exists(path) or not os.path.samefile(path, self._file.path):
            raise self._elsewhere(f"{bind} ({path or 'in memory'})")
        if not connection.in_transaction():
            connection.begin()
        if not raw.in_transaction:
            if raw.isolation_level is None:
                raise UsageError(f"transaction= of {bind} is in AUTOCOMMIT mode: nothing to join")
            raw.execute("BEGIN IMMEDIATE")
        return raw.cursor()

    def _elsewhere(self, bind: str) -> UsageError:
        return UsageError(
            f"transaction= belongs to {bind}, and the broker is {self.place}; "
            "both must be the same database"
        )

    def collided(self, error: Exception) -> bool:
        """Never: writers take turns."""
        return False

    def explain(self, error: Exception) -> QueueCoreError | None:
        """See `explain_sqlite`; the system's errors concern the files beside the database."""
        if isinstance(error, PermissionError):
            return refused(str(error), self.place)
        if isinstance(error, OSError):
            return ConnectionLost(f"{self.place} failed: {error}")
        return explain_sqlite(error, self.place)

    # leaving

    def drop(self) -> None:
        """Close the connection; the next call opens another one."""
        connection, self._connection, self._raw, self._cursor = self._connection, None, None, None
        self._gate.leave()
        self._file.log.close()
        if connection is not None:
            with opening, contextlib.suppress(Exception):  # it may be broken
                connection.close()

    def close(self) -> None:
        """Close connection, gate and sockets, but nothing that a parent process owns."""
        if self._pid != process_id():
            self._leave_alone()
        self.drop()
        self._gate.close()
        self._wakeup.close()


def _pragma(cursor: Cursor, name: str) -> int:
    cursor.execute(f"PRAGMA {name}")
    return int(cursor.fetchone()[0])
