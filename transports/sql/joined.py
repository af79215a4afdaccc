"""Publishing inside the caller's own transaction: the messages exist if and only if his rows do.

The caller passes a SQLAlchemy ``Session`` or ``Connection`` of the same database. What is put goes
through his connection and is committed, or rolled back, by him; nobody sees it before. Then
``Transaction.on_end`` is called and consumers are woken.

On SQLite an open transaction that has written, which a publish does, keeps every other writer of
the file out, heartbeats included: commit soon. One that only read so far cannot write once somebody
else has: then the put raises `ConnectionLost`, and the whole transaction must be rolled back and
run again. Begin it with ``BEGIN IMMEDIATE`` (SQLAlchemy's "begin" event) and that cannot happen.

SQLAlchemy tells of a commit just before it happens. A receipt must not say "stored" then, since the
commit may still fail, so this module commits at that moment itself, and SQLAlchemy's own commit
finds nothing left to do. If ours fails, everything is rolled back and the caller gets the exception
that SQLAlchemy would have raised. Whether the messages are still there (a savepoint around them may
have been rolled back) is looked up just before.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from queue_core.errors import UsageError
from queue_core.transport import Envelope, PutResult, Transaction
from queue_core.transports.sql.database import Database, Steps, Undo
from queue_core.transports.sql.put import Put


class _Pending:
    """What waits for the end of one connection's transaction."""

    __slots__ = ("_database", "_puts")

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._puts: list[tuple[Transaction, Sequence[Envelope]]] = []
        event.listen(connection, "commit", self._before_commit)
        event.listen(connection, "rollback", self._before_rollback)

    def add(self, transaction: Transaction, stored: Sequence[Envelope]) -> None:
        self._puts.append((transaction, stored))

    def _before_commit(self, connection: Connection) -> None:
        if not self._puts:
            return
        raw: Any = connection.connection.driver_connection
        cursor = raw.cursor()
        remaining = [self._remains(cursor, stored) for _, stored in self._puts]
        try:
            raw.commit()
        except Exception as error:
            raw.rollback()
            self._before_rollback(connection)
            raise _as_sqlalchemy_says_it(error, connection) from error
        puts, self._puts = self._puts, []
        self._database.dialect.announce(
            [envelope.queue for _, stored in puts for envelope in stored]
        )
        for (transaction, _), remains in zip(puts, remaining, strict=True):
            transaction.on_end(remains)

    def _remains(self, cursor: Any, stored: Sequence[Envelope]) -> bool:
        if not stored:
            return True
        find = self._database.statements.is_stored
        cursor.execute(find.text, find.bind(queue=stored[0].queue, id=stored[0].id))
        return cursor.fetchone() is not None

    def _before_rollback(self, connection: Connection) -> None:
        puts, self._puts = self._puts, []
        for transaction, _ in puts:
            transaction.on_end(False)


class Joined:
    """Puts in transactions that belong to others, through one store handle."""

    __slots__ = ("_database", "_pending")

    def __init__(self, database: Database) -> None:
        """Know of no transaction yet."""
        self._database = database
        self._pending: weakref.WeakKeyDictionary[Connection, _Pending] = weakref.WeakKeyDictionary()

    def put(self, put: Put, transaction: Transaction) -> PutResult:
        """Run ``put`` inside the caller's transaction, under a savepoint; the commit is his.

        Raises:
            UsageError: the handle is none of a SQLAlchemy Session or Connection of this database,
            or has no transaction.
        """
        database = self._database
        connection = _connection(transaction.handle)
        try:
            cursor = database.dialect.joined(connection)
            result = _under_savepoint(
                cursor, lambda: put.run(Steps(cursor, database.dialect), row_by_row=True)
            )
        except Undo as undo:
            answer: PutResult = undo.answer
            return answer
        except Exception as error:
            meaning = database.dialect.explain(error)
            if meaning is None:
                raise
            raise type(meaning)(
                f"{meaning}. It happened in the transaction that was passed with transaction=: "
                "roll it back and run it again"
            ) from error
        stored = put.stored(result)
        database.dialect.notify_within(cursor, [envelope.queue for envelope in stored])
        pending = self._pending.get(connection)
        if pending is None:
            pending = self._pending[connection] = _Pending(database, connection)
        pending.add(transaction, stored)
        return result


def _as_sqlalchemy_says_it(error: Exception, connection: Connection) -> BaseException:
    """Return the exception that SQLAlchemy makes of one of the driver."""
    foreign = connection.dialect.dbapi.Error if connection.dialect.dbapi else Exception
    return DBAPIError.instance("COMMIT", None, error, foreign, dialect=connection.dialect)


def _under_savepoint(cursor: Any, work: Callable[[], PutResult]) -> PutResult:
    cursor.execute("SAVEPOINT queue_core_put")
    try:
        result = work()
    except BaseException:
        cursor.execute("ROLLBACK TO SAVEPOINT queue_core_put")
        cursor.execute("RELEASE SAVEPOINT queue_core_put")
        raise
    cursor.execute("RELEASE SAVEPOINT queue_core_put")
    return result


def _connection(handle: object) -> Connection:
    """Return the Connection behind what the caller passed as ``transaction=``."""
    if isinstance(handle, Connection):
        return handle
    if hasattr(handle, "sync_session") or hasattr(handle, "sync_connection"):
        raise UsageError(
            "transaction= takes a synchronous SQLAlchemy Session or Connection; inside run_sync "
            "pass the one that you get there"
        )
    method = getattr(handle, "connection", None)
    if callable(method) and hasattr(handle, "get_bind"):
        connection = method()
        if isinstance(connection, Connection):
            return connection
    raise UsageError(
        f"transaction= takes a SQLAlchemy Session or Connection, not {type(handle).__name__}"
    )
