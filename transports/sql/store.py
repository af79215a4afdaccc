"""The store on an SQL database: `queue_core.transport.Store` and `KeyValue`.

Each method is one short transaction; nothing is locked while a handler works. The rules:

- Nothing takes the write lock to find out that there is nothing to do: an empty claim, a collect
  without dead messages, the end of a session that somebody else has ended are plain reads. What was
  read is checked again inside the write.
- Claim, settle and release work by primary key, and what is due or over is found by index: the
  depth of a queue, and how much is delayed, has no influence.
- A claim notes its request id beside its effect, in the same transaction, for the caller whose
  answer is lost.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Final

from queue_core.errors import TransportError
from queue_core.message import Token
from queue_core.transport import (
    Change,
    Claim,
    Claimed,
    Counts,
    Durability,
    Entry,
    Envelope,
    KeyEntry,
    KeyWrite,
    Lease,
    Limit,
    PutResult,
    Transaction,
)
from queue_core.transports.sql.claims import Claims
from queue_core.transports.sql.database import Database, Steps, Undo
from queue_core.transports.sql.dialects import Dialect
from queue_core.transports.sql.joined import Joined
from queue_core.transports.sql.keyvalue import Keys, next_version
from queue_core.transports.sql.put import Put, RowByRow, is_token, stale_entries
from queue_core.transports.sql.statements import Statement, Statements
from queue_core.transports.sql.tables import new_session_number

logger = logging.getLogger(__name__)

_TRIMS: Final = 10


class SqlStore:
    """One handle on an SQL database. One thread at a time; see `queue_core.transport.Store`."""

    def __init__(self, dialect: Dialect, statements: Statements) -> None:
        """Connect at the first use."""
        self._dialect = dialect
        self._statements = statements
        self._database = Database(dialect, statements)
        self._keys = Keys(self._database)
        self._joined = Joined(self._database)
        self._claims = Claims(self._database)

    def connect(self) -> None:
        """Connect now, so that what is wrong with the database is said now."""
        self._database.read(lambda steps: None)

    def durability(self, queue: str = "") -> Durability:
        """See `Detector.durability`."""
        return self._database.read(lambda steps: self._dialect.durability(steps.cursor))

    def expect_by(self, until: float) -> None:
        """See `Punctual.expect_by`."""
        self._dialect.expect_by(until)

    # sessions

    def open_session(self, session: str, lease: float) -> None:
        """See `Store.open_session`."""

        def work(steps: Steps) -> None:
            renew, add = self._statements.renew_session, self._statements.add_session
            while steps.run(renew, session=session, lease=lease) == 0:
                # Another life of the same name must not look like a beat of the last one.
                beats = random.SystemRandom().getrandbits(40)
                number = new_session_number()
                if steps.run(add, owner=number, session=session, lease=lease, beats=beats):
                    return

        self._database.write(work)

    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        if not sessions:
            return []
        statements, names = self._statements, self._dialect.names(sessions)
        if self._database.run(statements.beat, names=names) == len(sessions):
            return []
        rows = self._database.read(lambda steps: steps.rows(statements.known_sessions, names=names))
        known = {name for (name,) in rows}
        return [name for name in sessions if name not in known]

    def sessions(self) -> Mapping[str, Lease]:
        """See `Store.sessions`."""
        rows = self._database.read(lambda steps: steps.rows(self._statements.sessions))
        return {name: Lease(lease, beats) for name, lease, beats in rows}

    def end_session(self, session: str, beats: int | None = None) -> bool:
        """See `Store.end_session`.

        Who ends the sessions of others waits for no lock: as long as somebody keeps one of its rows
        locked the session stays, with all that it holds. Its owner may have stopped in the middle
        of a transaction, and go on: it must not hand out what others were given.
        """
        statements, died = self._statements, beats is not None

        def find(steps: Steps, statement: Statement) -> int | None:
            row = steps.row(statement, session=session)
            return None if row is None or beats not in (None, row[1]) else row[0]

        def work(steps: Steps) -> list[str] | None:
            hold = statements.hold_free_session if died else statements.hold_session
            number = find(steps, hold)
            if number is None:
                raise Undo
            rows = steps.change(
                statements.give_back_free if died else statements.give_back,
                owner=number,
                due=steps.now,
                back=int(not died),
                crash=int(died),
            )
            if steps.row(statements.is_holding, owner=number) is not None:
                raise Undo
            steps.run(statements.end_requests, owner=number)
            steps.run(statements.end_session, owner=number)
            return [row[0] for row in rows]

        if self._database.read(lambda steps: find(steps, statements.session_number)) is None:
            return False
        queues = self._database.write(work)
        if queues:
            self._database.notify(queues)
        return queues is not None

    # messages

    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},  # noqa: B006 - the contract's signature; never changed
        transaction: Transaction | None = None,
    ) -> PutResult:
        """See `Store.put`."""
        if not (batch or settle or limits or transaction):
            return PutResult(
                stale_entries=self._database.read(
                    lambda steps: stale_entries(steps, self._statements.versions, versions)
                )
            )
        put = Put(self._statements, batch, versions, settle, limits)
        if transaction is not None:
            return self._joined.put(put, transaction)
        if not limits and (
            result := self._database.alone(lambda: self._dialect.put_once(batch, versions, settle))
        ):
            return result
        try:
            result = self._database.write(lambda steps: put.run(steps, row_by_row=False))
        except RowByRow:
            result = self._database.write(lambda steps: put.run(steps, row_by_row=True))
        self._trim(put)
        if batch and result is not None:
            self._database.notify([envelope.queue for envelope in batch])
        return result

    def _trim(self, put: Put) -> None:
        """Go on with what is beyond a limit for a while; what is left then is for the next put."""
        for _ in range(_TRIMS):
            if not put.over:
                return
            try:
                self._database.write(put.trim)
            except TransportError as error:  # what was put is stored
                logger.debug("a queue stays longer than it should for now: %s", error)
                return

    def claim(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        wait: float,
        *,
        settle: Sequence[Token] = (),
        repeat: bool = False,
    ) -> Claimed:
        """See `Store.claim`."""
        return self._claims.claim(session, request, wants, wait, settle, repeat=repeat)

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        self._claims.interrupt()

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        return self._database.read(
            lambda steps: steps.rows(self._statements.owned, session=session)
        )

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""

        def find(steps: Steps, statement: Statement) -> dict[Token, str]:
            numbers = steps.numbers(token[0] for token in tokens if is_token(token))
            held = {
                (seq, fence): queue for seq, fence, queue in steps.rows(statement, numbers=numbers)
            }
            return {token: held[token] for token in tokens if token in held}

        def work(steps: Steps) -> dict[Token, str]:
            held = find(steps, self._statements.hold_tokens)
            if not held:
                raise Undo(held)
            due = steps.now + int(delay * 1_000_000)
            numbers = steps.numbers(seq for seq, _ in held)
            steps.change(self._statements.release, numbers=numbers, due=due, back=int(not counted))
            return held

        if not tokens:
            return []
        held = self._database.read(lambda steps: find(steps, self._statements.tokens))
        if held:
            held = self._database.write(work)
            self._database.notify(held.values())
        return [token for token in tokens if token not in held]

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        dead, old_keys = self._claims.duties(session)
        claims = self._claims.collect(session, limit) if dead else ()
        if old_keys:
            self._purge_keys()
        return claims

    def _purge_keys(self) -> None:
        """Remove old keys; what somebody else keeps locked is for the next time."""
        try:
            self._keys.purge()
        except TransportError as error:
            logger.debug("keys whose ttl is over stay for now: %s", error)

    def inspect(self, queue: str) -> Counts:
        """See `Store.inspect`."""
        row = self._database.read(lambda steps: steps.row(self._statements.inspect, queue=queue))
        ready, delayed, claimed, over, delayed_over = row
        return Counts(ready - over, delayed - delayed_over, claimed)

    def purge(self, queue: str) -> int:
        """See `Store.purge`."""
        statements = self._statements
        if (
            self._database.read(lambda steps: steps.row(statements.has_unclaimed, queue=queue))
            is None
        ):
            return 0
        return self._database.write(lambda steps: steps.run(statements.purge, queue=queue))

    def shred(self, queue: str, versions: Mapping[str, int]) -> int:
        """See `Shredder.shred`."""
        statements = self._statements

        def work(steps: Steps) -> int:
            if 0 in versions.values():
                steps.rows(statements.share_counter)
            if stale_entries(steps, statements.share_entries, versions):
                raise Undo(0)
            chosen = [row[0] for row in steps.rows(statements.some_unclaimed, queue=queue)]
            if not chosen:
                raise Undo(0)
            return steps.run(statements.shred, numbers=steps.numbers(chosen))

        return self._database.write(work)

    # topology

    def read_table(self, names: Sequence[str] | None = None) -> Mapping[str, Entry]:
        """See `Store.read_table`."""

        def work(steps: Steps) -> dict[str, Entry]:
            if names is None:
                return {
                    name: Entry(version, value)
                    for name, version, value in steps.rows(self._statements.entries)
                }
            rows = steps.rows(self._statements.some_entries, names=steps.names(names))
            return {name: Entry(version, value) for name, version, value in rows}

        return self._database.read(work)

    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        """See `Store.write_table`."""
        statements = self._statements
        expected = {change.name: change.version for change in changes}

        def work(steps: Steps) -> bool:
            if 0 in expected.values():
                steps.rows(statements.hold_counter)
            if stale_entries(steps, statements.hold_entries, expected):
                raise Undo(False)
            for change in changes:
                if change.value is None:
                    steps.run(statements.remove_entry, entry=change.name)
                else:
                    version = next_version(steps, statements)
                    steps.run(
                        statements.set_entry, entry=change.name, version=version, value=change.value
                    )
            for queue in drop:
                steps.run(statements.drop, queue=queue)
            return True

        if self._database.read(lambda steps: stale_entries(steps, statements.versions, expected)):
            return False
        return self._database.write(work)

    def close(self) -> None:
        """See `Store.close`."""
        self._claims.close()
        self._dialect.close()

    # KeyValue

    def key_get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        return self._keys.get(key)

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """See `KeyValue.key_set`."""
        return self._keys.set(key, value, ttl, version)

    def key_set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """See `KeyValue.key_set_many`."""
        return self._keys.set_many(writes)

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        return self._keys.increment(key, amount, ttl)

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        return self._keys.delete(key, version)
