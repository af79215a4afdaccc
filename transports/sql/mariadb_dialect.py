"""MariaDB: many writers, row locks, two packets for a put or a claim.

The rules:

- The usual put and claim are `mariadb_once`; the rest are steps in a READ COMMITTED transaction,
  whose statements travel together where nobody waits for their answers (`mariadb_wire`). Rows are
  locked in the order that `dialects` names; a deadlock is run again.
- The database's clock counts, at the beginning of each statement.
- A put with a limit locks a row of the meta table that its queue shares with few others.
- There is nothing like NOTIFY. Waiting consumers of the same user on the same machine get hints as
  on SQLite, from a directory that is named after the database. Everybody else looks: after 10 ms at
  first, then after twice as long each time, up to the URL's ``poll``.
- A connection inherited through ``fork`` is never touched, not even closed: that would end the
  parent's session.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pymysql
from msgspec.structs import replace
from sqlalchemy import (
    BigInteger,
    Connection,
    FromClause,
    Select,
    String,
    Table,
    bindparam,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

from queue_core.durability import Durability
from queue_core.errors import QueueCoreError, UsageError
from queue_core.interrupt import Interrupt
from queue_core.message import Token
from queue_core.process import process_id
from queue_core.transport import Envelope, PutResult
from queue_core.transports.sql.dialects import Cursor, Move, Taken, Taking
from queue_core.transports.sql.durability import MARIADB_SETTINGS, of_mariadb
from queue_core.transports.sql.mariadb_errors import COLLISIONS, errno, explain_mariadb
from queue_core.transports.sql.mariadb_once import Once, put_once, take_once
from queue_core.transports.sql.mariadb_server import IDENTITY, MariadbConnection, MariadbServer
from queue_core.transports.sql.mariadb_wire import CallerCursor, Wire
from queue_core.transports.sql.put import is_token
from queue_core.transports.sql.tables import PREFIX, message, meta, whole_index
from queue_core.transports.sql.wakeup import Wakeup

NOW = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"

_SOON: Final = 0.01
_LISTENING: Final = 0.05
_VERSION: Final = "SELECT UUID_SHORT() & 0x7FFFFFFFFFFFFFFF"
_left_alone: list[object] = []


class MariadbLanguage:
    """How MariaDB writes SQL."""

    __slots__ = ("_now", "compiler")

    compiler: Compiler

    def __init__(self, now: str = NOW) -> None:
        """``now`` is the present in microseconds as SQL; tests have a clock of their own."""
        self.compiler = MariaDBDialect(paramstyle="format")
        self._now = now

    def now(self) -> ColumnElement[int]:
        """The beginning of the statement by the database's clock, in any time zone."""
        return literal_column(self._now, BigInteger)

    def moment(self, given: ColumnElement[int]) -> ColumnElement[int]:
        """What is given is added to the database's clock."""
        return self.now() + given

    def insert_new(self, table: Table) -> Insert:
        """``ON DUPLICATE KEY UPDATE`` of nothing; ``IGNORE`` would also cut what is too long."""
        insert = mysql.insert(table)
        column = next(iter(table.primary_key)).name
        return insert.on_duplicate_key_update({column: table.c[column]})

    def insert_or_replace(self, table: Table) -> Insert:
        """``ON DUPLICATE KEY UPDATE``; ``REPLACE`` would delete and insert."""
        insert = mysql.insert(table)
        key = {column.name for column in table.primary_key}
        names = [column.name for column in table.columns if column.name not in key]
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})

    def among(self, column: ColumnElement[Any], many: str) -> ColumnElement[bool]:
        """``IN``, with the list written out."""
        return column.op("IN", is_comparison=True)(bindparam(many))

    def names(self) -> FromClause:
        """The list is that of the arguments of ``JSON_ARRAY``."""
        return (
            text(
                "SELECT value FROM JSON_TABLE(JSON_ARRAY :names, '$[*]' COLUMNS (value "
                "VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PATH '$')) AS given"
            )
            .columns(value=String)
            .subquery()
        )

    def share(self, rows: Select[Any]) -> Select[Any]:
        """``LOCK IN SHARE MODE``."""
        return rows.with_for_update(read=True)

    def hold(self, rows: Select[Any], *, skip: bool = False) -> Select[Any]:
        """``FOR UPDATE``."""
        return rows.with_for_update(skip_locked=skip)

    def change(self, move: Move) -> Sequence[ClauseElement]:
        """A choice, a change and a reading."""
        m = message.c
        chosen = select(m.seq).where(move.rows).order_by(*move.order)
        chosen = chosen.with_hint(message, whole_index(move.index), "mariadb")
        if not move.order and not move.skip:  # those who wait for one another have one order
            chosen = chosen.order_by(m.seq)
        if move.limit is not None:
            chosen = chosen.limit(move.limit)
        some = self.among(m.seq, "numbers")
        update = move.update.with_hint(whole_index(), message, "mariadb").where(some)
        steps = [chosen.with_for_update(skip_locked=move.skip), update]
        return [*steps, select(*move.returning).where(some)] if move.returning else steps

    def next_version(self) -> Sequence[ClauseElement]:
        """A number that the server gives only once, so that nobody waits for a counter's row."""
        return [text(_VERSION)]


class MariadbDialect:
    """One handle on one MariaDB database; see `Dialect`."""

    eager = False
    autocommits = True

    def __init__(self, server: MariadbServer, language: MariadbLanguage, once: Once) -> None:
        """Connect to nothing yet."""
        self.language = language
        self.place = server.place
        self._server = server
        self._once = once
        self._connection: MariadbConnection | None = None
        self._until = math.inf
        self._wire: Wire | None = None
        self._wakeup: Wakeup | None = None
        self._identity = ""
        self._open = False
        self._pause = _SOON
        self._pid = process_id()

    # connecting

    def cursor(self) -> Cursor:
        """Return this process's cursor: connected, with the schema, outside of a transaction."""
        return self._cursor()

    def _cursor(self) -> Wire:
        if self._pid != process_id():
            self._leave_alone()
        if self._open:
            self.rollback()
        return self._wire or self._connect()

    def _connect(self) -> Wire:
        connection, limit, self._identity = self._server.connect(self.language.compiler)
        self._connection = connection
        connection.until = self._until
        self._wire = Wire(connection, limit)
        if self._wakeup is None:
            self._wakeup = Wakeup(_directory(self._identity), _LISTENING)
        return self._wire

    def expect_by(self, until: float) -> None:
        """Each answer comes by then."""
        self._until = until
        if self._connection is not None:
            self._connection.until = until

    def _leave_alone(self) -> None:
        """Keep the parent's connection as it is, for ever, and forget it."""
        _left_alone.append((self._connection, self._wire))
        self._connection = self._wire = None
        self._open = False
        self._pid = process_id()

    # transactions

    def now(self) -> int:
        """The database has the clock."""
        return 0

    def numbers(self, values: Iterable[int]) -> object:
        """A list to be written out; one of nothing has NULL in it, which is equal to nothing."""
        return tuple(values) or (None,)

    def names(self, values: Iterable[str]) -> object:
        """A list to be written out."""
        return tuple(values) or (None,)

    def begin(self, cursor: Cursor, *, lasting: bool) -> None:
        """Begin with the next packet."""
        self._pause = _SOON
        self._open = True
        cursor.execute("START TRANSACTION")

    def lock_queues(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Lock the rows that the queues' names lead to, in the order of the rows."""
        digests = (hashlib.blake2b(queue.encode(), digest_size=1) for queue in queues)
        names = sorted({f"queues-{digest.hexdigest()}" for digest in digests})
        rows = ", ".join(f"('{name}', 0)" for name in names)
        cursor.execute(
            f"INSERT INTO {meta.name} (name, number) VALUES {rows} "
            "ON DUPLICATE KEY UPDATE number = 0"
        )

    def commit(self, cursor: Cursor) -> None:
        """Commit, with what is held back."""
        cursor.execute("COMMIT")
        cursor.fetchall()
        self._open = False

    def rollback(self) -> None:
        """Roll back; drop the connection if even that fails."""
        self._open = False
        if self._wire is None:
            return
        self._wire.forget()
        try:
            self._wire.execute("ROLLBACK")
            self._wire.send()
        except (pymysql.MySQLError, OSError):
            self.drop()

    def durability(self, cursor: Cursor) -> Durability:
        """Ask for the server's settings, and for the engine of our tables."""
        settings = ", ".join(f"'{name}'" for name in MARIADB_SETTINGS)
        cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({settings})")
        found = {str(name): str(value) for name, value in cursor.fetchall()}
        cursor.execute(
            "SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = DATABASE() "
            f"AND LEFT(table_name, {len(PREFIX)}) = '{PREFIX}' AND engine IS NOT NULL"
        )
        engines = frozenset(str(row[0]) for row in cursor.fetchall())
        return replace(of_mariadb(found, engines), broker=f"MariaDB {self._server.version}")

    def check_room(self, cursor: Cursor) -> None:
        """The server refuses what has no room, and a delete needs little."""

    # waiting

    def listens(self, queues: Sequence[str]) -> bool:
        """Whether the last claim waited in vain: a link costs less than one more look."""
        return self._pause > _SOON

    def mark(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Ask for hints."""
        if self._wakeup is not None:
            self._wakeup.listen(queues)

    def wait(self, cursor: Cursor, seconds: float, interrupt: Interrupt) -> bool:
        """Wait for a hint, or for a moment when it is worth to look without one."""
        pause = min(seconds, self._pause)
        if self._wakeup is None or self._wakeup.wait(pause, interrupt):
            return True
        self._pause = min(2 * self._pause, self._server.poll)
        return pause < seconds

    def rest(self) -> None:
        """Ask for no more hints."""
        if self._wakeup is not None:
            self._wakeup.rest()

    def notify(self, queues: Iterable[str]) -> None:
        """Send hints."""
        if self._wakeup is not None:
            self._wakeup.notify(queues)

    def notify_within(self, cursor: Cursor, queues: Iterable[str]) -> None:
        """A datagram cannot wait for a commit; see ``announce``."""

    def announce(self, queues: Iterable[str]) -> None:
        """Send hints through a socket of its own: this is the thread of somebody's commit."""
        with contextlib.closing(Wakeup(_directory(self._identity), _LISTENING)) as wakeup:
            wakeup.notify(queues)

    # whole steps at once

    def put_once(
        self, batch: Sequence[Envelope], versions: Mapping[str, int], settle: Sequence[Token]
    ) -> PutResult | None:
        """See `mariadb_once`."""
        if 0 in versions.values() or not all(map(is_token, settle)):
            return None
        causes = {one.cause for one in batch if one.cause is not None}
        if not causes <= set(settle):
            return None
        wire = self._cursor()
        self._open = True
        result = put_once(wire, self._once, batch, versions, settle)
        self._open = result is None
        if result is not None and not result.stale_entries:
            self.notify(one.queue for one in batch)
        return result

    def take_once(self, taking: Taking) -> Taken | None:
        """See `mariadb_once`."""
        self._pause = _SOON
        wire = self._cursor()
        self._open = True
        taken = take_once(wire, self._once, taking)
        self._open = False
        return taken

    # the caller's own transaction

    def joined(self, connection: Connection) -> Cursor:
        """Return a cursor in the caller's transaction, which begins with the first statement."""
        bind = connection.engine.url.render_as_string(hide_password=True)
        if connection.dialect.name not in ("mysql", "mariadb"):
            raise self._elsewhere(bind)
        if connection.dialect.is_async:
            raise UsageError(
                f"transaction= of {bind} is not a synchronous connection; pass a synchronous "
                "Session or Connection"
            )
        raw: Any = connection.connection.driver_connection
        if not connection.in_transaction():
            connection.begin()
        cursor = CallerCursor(raw.cursor())
        cursor.execute(f"SELECT @@autocommit, ({IDENTITY})")
        autocommit, theirs = cursor.fetchone()
        if autocommit:
            raise UsageError(f"transaction= of {bind} is in AUTOCOMMIT mode: nothing to join")
        self._cursor()
        if theirs != self._identity:
            raise self._elsewhere(bind)
        return cursor

    def _elsewhere(self, bind: str) -> UsageError:
        return UsageError(
            f"transaction= belongs to {bind}, and the broker is {self.place}; "
            "both must be the same database"
        )

    def collided(self, error: Exception) -> bool:
        """Deadlocks, and waits for locks that took too long."""
        return errno(error) in COLLISIONS

    def explain(self, error: Exception) -> QueueCoreError | None:
        """See `explain_mariadb`."""
        return explain_mariadb(error, self.place)

    # leaving

    def drop(self) -> None:
        """Close the connection; the next call opens another one."""
        connection, self._connection, self._wire = self._connection, None, None
        self._open = False
        if connection is not None:
            with contextlib.suppress(Exception):  # it is thrown away because it is broken
                connection.close()

    def close(self) -> None:
        """Close the connection, unless it is a parent process's, and the sockets."""
        if self._pid != process_id():
            self._leave_alone()
        self.drop()
        if self._wakeup is not None:
            self._wakeup.close()


def _directory(identity: str) -> str:
    """Return where this user's processes on this machine leave hints for one another; make it.

    A place that others could have made is not used: then there are no hints.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    ours = os.path.join(base, f"queue_core-{os.getuid()}")
    path = os.path.join(ours, hashlib.blake2b(identity.encode(), digest_size=12).hexdigest())
    try:
        for directory in (ours, path):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            found = os.lstat(directory)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                return os.devnull
    except OSError:
        return os.devnull
    return path
