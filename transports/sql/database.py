"""One store handle's way to its database: reading, writing in one atomic step, and what goes wrong.

Everything that a store does runs through `Database.read` or `Database.write`, so that transactions,
the mapping of errors and the state after an error are in one place. After an error no transaction
is open, and the next call connects again if need be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from queue_core.errors import ConnectionLost, QueueCoreError, StoreCorrupt, UsageError
from queue_core.policy import Backoff, Deadline, SystemClock, retry
from queue_core.transports.sql.dialects import Cursor, Dialect
from queue_core.transports.sql.statements import Change, Statement, Statements

T = TypeVar("T")

_COLLISIONS: Final = 20
_COLLIDING: Final = 5.0
_BACKOFF: Final = Backoff(0.005, 0.2)
_CLOCK: Final = SystemClock()


class Undo(Exception):  # noqa: N818 - it is no error
    """Raised inside a write to take everything back and return ``answer`` all the same."""

    def __init__(self, answer: Any = None) -> None:
        """Carry the answer."""
        super().__init__()
        self.answer = answer


class Steps:
    """Runs statements on one cursor, all at the same moment of the store's clock."""

    __slots__ = ("_dialect", "cursor", "names", "now", "numbers")

    def __init__(self, cursor: Cursor, dialect: Dialect) -> None:
        """Take the time."""
        self.cursor = cursor
        self._dialect = dialect
        self.now = dialect.now()
        self.numbers = dialect.numbers
        self.names = dialect.names

    def run(self, statement: Statement, **values: object) -> int:
        """Run a statement without result; return how many rows it changed."""
        self.cursor.execute(statement.text, statement.bind(now=self.now, **values))
        return self.cursor.rowcount

    def rows(self, statement: Statement, **values: object) -> list[Any]:
        """Run a statement and return all of its rows."""
        self.cursor.execute(statement.text, statement.bind(now=self.now, **values))
        return self.cursor.fetchall()

    def row(self, statement: Statement, **values: object) -> Any:
        """Run a statement and return its first row, or None."""
        self.cursor.execute(statement.text, statement.bind(now=self.now, **values))
        return self.cursor.fetchone()

    def check_room(self) -> None:
        """See `Dialect.check_room`."""
        self._dialect.check_room(self.cursor)

    def lock_queues(self, queues: Sequence[str]) -> None:
        """See `Dialect.lock_queues`."""
        self._dialect.lock_queues(self.cursor, queues)

    def change(self, change: Change, **values: object) -> list[Any]:
        """Run a change; return what it reads, or nothing."""
        if change.choose is not None:
            chosen = [row[0] for row in self.rows(change.choose, **values)]
            if not chosen:
                return []
            values["numbers"] = self.numbers(chosen)
        if change.apply is not None:
            self.run(change.apply, **values)
        return [] if change.read is None else self.rows(change.read, **values)


class Database:
    """What the parts of a store share. One thread at a time."""

    __slots__ = ("dialect", "statements")

    def __init__(self, dialect: Dialect, statements: Statements) -> None:
        """Connect nothing yet."""
        self.dialect = dialect
        self.statements = statements

    def read(self, work: Callable[[Steps], T]) -> T:
        """Run ``work`` outside of a transaction: each statement sees the last commit.

        Blocks nobody.
        """
        try:
            return work(Steps(self.dialect.cursor(), self.dialect))
        except Exception as error:
            self._raise(error)
            raise

    def write(self, work: Callable[[Steps], T], *, lasting: bool = True) -> T:
        """Run ``work`` in a transaction of its own, commit, and return what it returned.

        When it raises, nothing happened; after `Undo` its answer is returned all the same. What the
        database undid because of another transaction is run again, a few times. ``lasting`` is
        False for what a power cut may undo; see `Dialect.begin`.
        """
        return self._repeat(lambda: self._transaction(work, lasting=lasting))

    def run(self, statement: Statement, **values: object) -> int:
        """Run one statement in a transaction of its own, which a power cut may undo.

        Returns how many rows it changed.
        """

        def work(steps: Steps) -> int:
            return steps.run(statement, **values)

        if self.dialect.autocommits:
            return self._repeat(lambda: work(Steps(self.dialect.cursor(), self.dialect)))
        return self.write(work, lasting=False)

    def alone(self, work: Callable[[], T]) -> T:
        """Run ``work``, which begins and ends its transaction by itself.

        Where it failed in the middle, nothing stays locked.
        """

        def call() -> T:
            try:
                return work()
            except BaseException:
                self.dialect.rollback()
                raise

        return self._repeat(call)

    def notify(self, queues: Iterable[str]) -> None:
        """Wake those who wait for these queues, named once for each message.

        What they are woken for is committed: a hint that cannot be sent is lost, and no error.
        """
        try:
            self.dialect.notify(queues)
        except Exception as error:
            if not isinstance(error, QueueCoreError) and self.dialect.explain(error) is None:
                raise
            self.dialect.drop()

    def _repeat(self, call: Callable[[], T]) -> T:
        try:
            try:
                return call()
            except Exception as error:
                if not self.dialect.collided(error):
                    raise
            return self._retry(call)
        except Undo as undo:
            answer: T = undo.answer
            return answer
        except Exception as error:
            self._raise(error)
            raise

    def _retry(self, call: Callable[[], T]) -> T:
        collisions = itertools.count()

        def collided(error: Exception) -> bool:
            return self.dialect.collided(error) and next(collisions) < _COLLISIONS

        deadline = Deadline.after(_COLLIDING, _CLOCK)
        return retry(call, backoff=_BACKOFF, deadline=deadline, clock=_CLOCK, retryable=collided)

    def _transaction(self, work: Callable[[Steps], T], *, lasting: bool) -> T:
        dialect = self.dialect
        cursor = dialect.cursor()
        dialect.begin(cursor, lasting=lasting)
        try:
            result = work(Steps(cursor, dialect))
            dialect.commit(cursor)
        except BaseException:
            dialect.rollback()
            raise
        return result

    def _raise(self, error: Exception) -> None:
        """Raise what the error means, if it is about the database."""
        meaning = error if isinstance(error, QueueCoreError) else self.dialect.explain(error)
        if meaning is None:
            return
        if isinstance(meaning, ConnectionLost | StoreCorrupt | UsageError) and meaning is not error:
            self.dialect.drop()
        if meaning is not error:
            raise meaning from error
