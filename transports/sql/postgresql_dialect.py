"""PostgreSQL: many writers, row locks, one round trip for a put or a claim.

The rules:

- The usual put and claim are one statement (`postgresql_once`); the rest are steps in a READ
  COMMITTED transaction. Rows are locked in the order that `dialects` names; a deadlock or a
  serialization failure is run again.
- The database's clock counts, at the beginning of each statement.
- A put with a limit locks the queue by an advisory lock, which ends with its transaction.
- Waiting consumers listen; see `postgresql_wakeup`.
- A connection inherited through ``fork`` is never touched, not even closed: that would end the
  parent's session.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from msgspec.structs import replace
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    FromClause,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
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
from queue_core.transports.sql.durability import POSTGRESQL_SETTINGS, of_postgresql
from queue_core.transports.sql.postgresql_errors import COLLISIONS, explain_postgresql
from queue_core.transports.sql.postgresql_once import (
    Once,
    numbers,
    put_once,
    settle_once,
    take_once,
)
from queue_core.transports.sql.postgresql_server import Link, PostgresServer, number_of
from queue_core.transports.sql.postgresql_wakeup import LATEST, Listener, Throttle, channel_of
from queue_core.transports.sql.put import are_tokens
from queue_core.transports.sql.tables import PREFIX, message

NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"

_IDENTITY = (
    "SELECT pg_postmaster_start_time()::text, current_database(), "
    f"to_regclass('{PREFIX}message')::oid::text"
)
HINT = (
    "SELECT set_config('synchronous_commit', 'off', true), count(pg_notify(c, '')) "
    "FROM unnest(%s::text[]) AS c"
)
_left_alone: list[object] = []


class PostgresLanguage:
    """How PostgreSQL writes SQL."""

    __slots__ = ("_now", "compiler")

    compiler: Compiler

    def __init__(self, now: str = NOW) -> None:
        """``now`` is the present in microseconds as SQL; tests have a clock of their own."""
        self.compiler = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
        self._now = now

    def now(self) -> ColumnElement[int]:
        """The beginning of the statement by the database's clock."""
        return literal_column(self._now, BigInteger)

    def moment(self, given: ColumnElement[int]) -> ColumnElement[int]:
        """What is given is added to the database's clock."""
        return self.now() + given

    def insert_new(self, table: Table) -> Insert:
        """``ON CONFLICT DO NOTHING``."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_or_replace(self, table: Table) -> Insert:
        """``ON CONFLICT DO UPDATE``."""
        insert = postgresql.insert(table)
        key = {column.name for column in table.primary_key}
        new = {name: insert.excluded[name] for name in table.columns.keys() if name not in key}
        return insert.on_conflict_do_update(index_elements=sorted(key), set_=new)

    def among(self, column: ColumnElement[Any], many: str) -> ColumnElement[bool]:
        """``= ANY``."""
        kind = BigInteger if many == "numbers" else Text
        return column == func.any(cast(bindparam(many), ARRAY(kind)))

    def names(self) -> FromClause:
        """An array."""
        values = func.unnest(cast(bindparam("names"), ARRAY(Text)))
        return select(values.label("value")).subquery()

    def share(self, rows: Select[Any]) -> Select[Any]:
        """``FOR KEY SHARE``, which a heartbeat does not wait for."""
        return rows.with_for_update(read=True, key_share=True)

    def hold(self, rows: Select[Any], *, skip: bool = False) -> Select[Any]:
        """``FOR UPDATE``."""
        return rows.with_for_update(skip_locked=skip)

    def change(self, move: Move) -> Sequence[ClauseElement]:
        """One statement: the rows are locked in its first part."""
        m = message.c
        chosen = select(m.seq).where(move.rows).order_by(*(move.order or (m.seq,)))
        if move.limit is not None:
            chosen = chosen.limit(move.limit)
        some = (
            chosen.with_for_update(skip_locked=move.skip).cte("chosen").prefix_with("MATERIALIZED")
        )
        change = move.update.where(m.seq == some.c.seq)
        return [change.returning(*move.returning) if move.returning else change]

    def next_version(self) -> Sequence[ClauseElement]:
        """Take a number of the messages' sequence, which nobody waits for."""
        return [text(f"SELECT nextval(pg_get_serial_sequence('{PREFIX}message', 'seq'))")]


class PostgresDialect:
    """One handle on one PostgreSQL database; see `Dialect`."""

    eager = True
    autocommits = True

    def __init__(
        self, server: PostgresServer, language: PostgresLanguage, once: Once, throttle: Throttle
    ) -> None:
        """Connect to nothing yet. The throttle is the process's."""
        self.language = language
        self.place = server.place
        self._server = server
        self._once = once
        self._throttle = throttle
        self._link: Link | None = None
        self._cursor: psycopg.Cursor[Any] | None = None
        self._listener: Listener | None = None
        self._tables = ""
        self._until = math.inf
        self._pid = process_id()

    # connecting

    def cursor(self) -> Cursor:
        """Return this process's cursor: connected, with the schema, outside of a transaction."""
        if self._pid != process_id():
            self._leave_alone()
        cursor, link = self._cursor, self._link
        if cursor is None or link is None:
            return self._connect()
        if link.closed:
            self.drop()
            return self._connect()
        if link.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.rollback()
            return self._cursor or self._connect()
        return cursor

    def _connect(self) -> Cursor:
        link, self._tables = self._server.connect(self.language.compiler)
        self._link = link
        link.until = self._until
        self._listener = Listener(link, self._server.poll)
        self._cursor = link.cursor(binary=True)
        return self._cursor

    def expect_by(self, until: float) -> None:
        """Each wait of the connection ends by then."""
        self._until = until
        if self._link is not None:
            self._link.until = until

    def _leave_alone(self) -> None:
        """Keep the parent's connection as it is, for ever, and forget it."""
        _left_alone.append((self._link, self._cursor, self._listener))
        self._link = self._cursor = self._listener = None
        self._pid = process_id()

    # transactions

    def now(self) -> int:
        """The database has the clock."""
        return 0

    def numbers(self, values: Iterable[int]) -> object:
        """An array as text."""
        return numbers(values)

    def names(self, values: Iterable[str]) -> object:
        """An array."""
        return list(values)

    def begin(self, cursor: Cursor, *, lasting: bool) -> None:
        """Begin; nobody waits yet."""
        cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")

    def lock_queues(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Take an advisory lock for each."""
        for queue in queues:
            number = number_of(f"{self._tables} {queue}")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [number])

    def commit(self, cursor: Cursor) -> None:
        """Commit."""
        cursor.execute("COMMIT")

    def rollback(self) -> None:
        """Roll back; drop the connection if even that fails."""
        try:
            if self._link is not None:
                self._link.rollback()
        except psycopg.Error:
            self.drop()

    def durability(self, cursor: Cursor) -> Durability:
        """Ask for the settings of this session."""
        cursor.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)",
            [list(POSTGRESQL_SETTINGS)],
        )
        found = of_postgresql(dict(cursor.fetchall()))
        version = 0 if self._link is None else self._link.info.server_version
        return replace(found, broker=f"PostgreSQL {version // 10000}.{version % 10000}")

    def check_room(self, cursor: Cursor) -> None:
        """The server keeps room for what it has confirmed, and a delete needs little."""

    # waiting

    def listens(self, queues: Sequence[str]) -> bool:
        """Whether it has listened to these before."""
        return self._listener is not None and self._listener.listens_to(self._channels(queues))

    def mark(self, cursor: Cursor, queues: Sequence[str]) -> None:
        """Listen to the queues."""
        if self._listener is not None:
            self._listener.listen(cursor, self._channels(queues))

    def wait(self, cursor: Cursor, seconds: float, interrupt: Interrupt) -> bool:
        """Wait for a hint, or for a moment when it is worth to look without one."""
        return self._listener is None or self._listener.wait(seconds, interrupt)

    def rest(self) -> None:
        """It goes on listening, which costs nothing."""

    def notify(self, queues: Iterable[str]) -> None:
        """Send hints with a statement of their own, which does not wait for the disk."""
        channels = self._channels(queues)
        if channels:
            began = time.monotonic()
            self.cursor().execute(HINT, [channels])
            self._throttle.sent(channels, began)

    def notify_within(self, cursor: Cursor, queues: Iterable[str]) -> None:
        """The commit of the caller's transaction sends the hints."""
        for channel in self._channels(queues):
            cursor.execute("SELECT pg_notify(%s, '')", [channel])

    def announce(self, queues: Iterable[str]) -> None:
        """That was done with the commit."""

    def _channels(self, queues: Iterable[str]) -> list[str]:
        return [channel_of(queue, self._tables) for queue in dict.fromkeys(queues)]

    # whole steps at once

    def put_once(
        self, batch: Sequence[Envelope], versions: Mapping[str, int], settle: Sequence[Token]
    ) -> PutResult | None:
        """See `postgresql_once`."""
        if 0 in versions.values() or not are_tokens(settle):
            return None
        if settle and not (batch or versions):
            return PutResult(stale_tokens=settle_once(self.cursor(), self._once, settle))
        causes = {one.cause for one in batch if one.cause is not None}
        if not causes <= set(settle):
            return None
        channels = {one.queue: "" for one in batch}
        for queue in channels:
            channels[queue] = channel_of(queue, self._tables)
        due = [queue for queue, channel in channels.items() if self._throttle.due(channel)]
        recent = [queue for queue in channels if queue not in due]
        began = time.monotonic()
        once, hinted = self._once, [channels[queue] for queue in due]
        answer = put_once(self.cursor(), once, batch, versions, settle, hinted, recent)
        if answer is None:
            return None
        self._throttle.sent(hinted, began)
        result, empty = answer
        if late := [q for q in recent if q in empty or self._throttle.due(channels[q], LATEST)]:
            self.notify(late)
        return result

    def take_once(self, taking: Taking) -> Taken | None:
        """See `postgresql_once`."""
        taken = take_once(self.cursor(), self._once, taking)
        hears = self._listener is not None and not self._listener.deaf
        return taken if hears else taken._replace(left=True)

    # the caller's own transaction

    def joined(self, connection: Connection) -> Cursor:
        """Return a cursor in the caller's transaction, which begins with the first statement."""
        bind = connection.engine.url.render_as_string(hide_password=True)
        if connection.dialect.name != "postgresql":
            raise self._elsewhere(bind)
        if connection.dialect.is_async:
            raise UsageError(
                f"transaction= of {bind} is not a synchronous connection; pass a synchronous "
                "Session or Connection"
            )
        raw: Any = connection.connection.driver_connection
        if getattr(raw, "autocommit", False):
            raise UsageError(f"transaction= of {bind} is in AUTOCOMMIT mode: nothing to join")
        if not connection.in_transaction():
            connection.begin()
        cursor: Cursor = raw.cursor()
        cursor.execute(_IDENTITY)
        theirs = cursor.fetchone()
        ours = self.cursor()
        ours.execute(_IDENTITY)
        if tuple(theirs) != tuple(ours.fetchone()):
            raise self._elsewhere(bind)
        return cursor

    def _elsewhere(self, bind: str) -> UsageError:
        return UsageError(
            f"transaction= belongs to {bind}, and the broker is {self.place}; both must be the "
            "same database, and find the same tables on their search_path"
        )

    def collided(self, error: Exception) -> bool:
        """Deadlocks and serialization failures."""
        return getattr(error, "sqlstate", None) in COLLISIONS

    def explain(self, error: Exception) -> QueueCoreError | None:
        """See `explain_postgresql`."""
        return explain_postgresql(error, self.place)

    # leaving

    def drop(self) -> None:
        """Close the connection; the next call opens another one."""
        link, self._link, self._cursor, self._listener = self._link, None, None, None
        if link is not None:
            with contextlib.suppress(Exception):  # it is thrown away because it is broken
                link.close()

    def close(self) -> None:
        """Close the connection, unless it is a parent process's."""
        if self._pid != process_id():
            self._leave_alone()
        self.drop()
