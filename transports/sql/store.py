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

import json
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from queue_core.errors import SessionLost
from queue_core.message import Token
from queue_core.transport import (
    Change,
    Claim,
    Claimed,
    Counts,
    Entry,
    Envelope,
    KeyEntry,
    Lease,
    Limit,
    PutResult,
    Transaction,
)
from queue_core.transports.sql.database import Database, Steps, Undo
from queue_core.transports.sql.dialects import Dialect
from queue_core.transports.sql.joined import Joined
from queue_core.transports.sql.keyvalue import Keys, next_version
from queue_core.transports.sql.put import (
    Careful,
    Put,
    stale_entries,
    sweep,
)
from queue_core.transports.sql.put import (
    settle as settle_tokens,
)
from queue_core.transports.sql.statements import Statements
from queue_core.transports.sql.tables import FIRST, REASONS, new_fence, new_session_number

_SLOTS = 16
_ALONE = 2


class SqlStore:
    """One handle on an SQL database. One thread at a time; see `queue_core.transport.Store`."""

    def __init__(self, dialect: Dialect, statements: Statements) -> None:
        """Connect at the first use."""
        self._dialect = dialect
        self._statements = statements
        self._database = Database(dialect, statements)
        self._keys = Keys(self._database)
        self._joined = Joined(self._database)
        self._first_slot = secrets.randbits(56) * _SLOTS
        self._claims = 0

    def connect(self) -> None:
        """Connect now, so that what is wrong with the database is said now."""
        self._database.read(lambda steps: None)

    # sessions

    def open_session(self, session: str, lease: float) -> None:
        """See `Store.open_session`."""

        def work(steps: Steps) -> None:
            if steps.run(self._statements.renew_session, session=session, lease=lease) == 0:
                # Another life of the same name must not look like a beat of the last one.
                beats = random.SystemRandom().getrandbits(40)
                steps.run(
                    self._statements.add_session,
                    owner=new_session_number(),
                    session=session,
                    lease=lease,
                    beats=beats,
                )

        self._database.write(work)

    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        if not sessions:
            return ()

        def work(steps: Steps) -> list[str]:
            return [
                name for name in sessions if steps.run(self._statements.beat, session=name) == 0
            ]

        return self._database.write(work)

    def sessions(self) -> Mapping[str, Lease]:
        """See `Store.sessions`."""
        rows = self._database.read(lambda steps: steps.rows(self._statements.sessions))
        return {name: Lease(lease, beats) for name, lease, beats in rows}

    def end_session(self, session: str, beats: int | None = None) -> bool:
        """See `Store.end_session`."""

        def find(steps: Steps) -> int | None:
            row = steps.row(self._statements.session_number, session=session)
            return None if row is None or beats not in (None, row[1]) else row[0]

        def work(steps: Steps) -> list[str] | None:
            number = find(steps)
            if number is None:
                raise Undo
            died = beats is not None
            rows = steps.rows(
                self._statements.give_back,
                owner=number,
                due=steps.now,
                back=int(not died),
                crash=int(died),
            )
            steps.run(self._statements.end_requests, owner=number)
            steps.run(self._statements.end_session, owner=number)
            return [row[0] for row in rows]

        if self._database.read(find) is None:
            return False
        queues = self._database.write(work)
        if queues:
            self._dialect.notify(queues)
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
        if not batch and not settle and not limits:
            return PutResult(
                stale_entries=self._database.read(
                    lambda steps: stale_entries(steps, self._statements, versions)
                )
            )
        put = Put(self._statements, batch, versions, settle, limits)
        if batch and not settle:
            self._database.read(lambda steps: self._dialect.check_room(steps.cursor))
        if transaction is not None:
            return self._joined.put(put, transaction)
        try:
            result = self._database.write(lambda steps: put.run(steps, careful=False))
        except Careful:
            result = self._database.write(lambda steps: put.run(steps, careful=True))
        if batch and result is not None:
            self._dialect.notify([envelope.queue for envelope in batch])
        return result

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
        deadline = time.monotonic() + wait
        wants = {queue: room for queue, room in wants.items() if room > 0}
        if repeat and (again := self._answer_again(session, request)) is not None:
            return again
        stale: Sequence[Token] = ()
        if settle:
            first = self._take(session, request, wants, settle, ())
            if first.claims:
                return first
            stale = first.stale_tokens
        try:
            return Claimed(self._wait_and_take(session, request, wants, deadline, stale), stale)
        except SessionLost:
            if settle:  # that has happened; the next call will say what else has
                return Claimed((), stale)
            raise

    def _wait_and_take(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        deadline: float,
        stale: Sequence[Token],
    ) -> Sequence[Claim]:
        """Take what there is, or wait for it until ``deadline``."""
        dialect, database = self._dialect, self._database
        listening = False
        try:
            while True:
                if listening:
                    database.read(lambda steps: dialect.mark(steps.cursor, tuple(wants)))
                ready, due_in = self._look(session, wants)
                if ready:
                    claims = self._take(session, request, wants, (), stale).claims
                    if claims:
                        return claims
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return ()
                if listening and not ready:
                    self._wait(min(remaining, due_in))
                listening = True
        finally:
            if listening:
                dialect.rest()

    def _wait(self, seconds: float) -> None:
        self._database.read(lambda steps: self._dialect.wait(steps.cursor, seconds))

    def _look(self, session: str, wants: Mapping[str, int]) -> tuple[bool, float]:
        """Return whether there may be something now, and the seconds until there is more.

        Raises:
            SessionLost: the session does not exist.
        """

        def work(steps: Steps) -> tuple[bool, float]:
            self._number(steps, session)
            due_in = float("inf")
            for queue in wants:
                found, due = steps.row(self._statements.look, queue=queue)
                if found is not None or (due is not None and due <= steps.now):
                    return True, 0.0
                if due is not None:
                    due_in = min(due_in, (due - steps.now) / 1_000_000)
            return False, due_in

        return self._database.read(work)

    def _take(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        settle: Sequence[Token],
        settled_stale: Sequence[Token],
    ) -> Claimed:
        """Settle and take in one transaction, and note the request with it."""
        statements = self._statements
        fence = new_fence()

        def work(steps: Steps, *, careful: bool) -> Claimed:
            number = self._number(steps, session)
            stale = (
                settle_tokens(steps, statements, settle, careful=careful)
                if settle
                else settled_stale
            )
            sweep(steps, statements)
            claims: list[Claim] = []
            for queue, room in wants.items():
                claims += self._take_from(steps, queue, room, number, fence)
            if claims or settle:
                self._note(steps, number, request, fence, stale)
            return Claimed(claims, stale)

        try:
            return self._database.write(lambda steps: work(steps, careful=False))
        except Careful:
            return self._database.write(lambda steps: work(steps, careful=True))

    def _take_from(
        self, steps: Steps, queue: str, room: int, number: int, fence: int
    ) -> list[Claim]:
        statements = self._statements
        if steps.row(statements.has_due, queue=queue) is not None:
            steps.run(statements.promote, queue=queue)
        rows = steps.rows(statements.claim, queue=queue, room=room, owner=number, claim=fence)
        rows.sort(key=_place)
        crashed = next((index for index, row in enumerate(rows) if row[6] >= _ALONE), None)
        if crashed is not None and len(rows) > 1:
            keep = max(1, crashed)
            steps.run(statements.untake, numbers=steps.numbers(row[0] for row in rows[keep:]))
            rows = rows[:keep]
        return [_claim(row, queue, fence) for row in rows]

    def _note(
        self, steps: Steps, number: int, request: str, fence: int, stale: Sequence[Token]
    ) -> None:
        self._claims += 1
        slot = self._first_slot + self._claims % _SLOTS
        steps.run(
            self._statements.note_request,
            owner=number,
            slot=slot,
            request=request,
            claim=fence,
            stale=_pack(stale),
        )

    def _answer_again(self, session: str, request: str) -> Claimed | None:
        """Return what an earlier claim with this request did, as far as it is still held.

        None if it did nothing.
        """

        def work(steps: Steps) -> Claimed | None:
            number = self._number(steps, session)
            noted = steps.row(self._statements.find_request, owner=number, request=request)
            if noted is None:
                return None
            rows = steps.rows(self._statements.taken, owner=number, claim=noted[0])
            return Claimed([_claim(row, row[7], noted[0]) for row in rows], _unpack(noted[1]))

        return self._database.read(work)

    def _number(self, steps: Steps, session: str) -> int:
        row = steps.row(self._statements.session_number, session=session)
        if row is None:
            raise SessionLost(
                f"the session {session!r} has ended; its messages went back to their queues"
            )
        return int(row[0])

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        return self._database.read(
            lambda steps: steps.rows(self._statements.owned, session=session)
        )

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""

        def find(steps: Steps) -> dict[Token, str]:
            numbers = steps.numbers(token[0] for token in tokens)
            held = {
                (seq, fence): queue
                for seq, fence, queue in steps.rows(self._statements.tokens, numbers=numbers)
            }
            return {token: held[token] for token in tokens if token in held}

        def work(steps: Steps) -> dict[Token, str]:
            held = find(steps)
            if not held:
                raise Undo(held)
            due = steps.now + int(delay * 1_000_000)
            numbers = steps.numbers(seq for seq, _ in held)
            steps.run(self._statements.release, numbers=numbers, due=due, back=int(not counted))
            return held

        held = self._database.read(find) if tokens else {}
        if held:
            held = self._database.write(work)
            self._dialect.notify(held.values())
        return [token for token in tokens if token not in held]

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        statements = self._statements

        def anything(steps: Steps) -> bool:
            self._number(steps, session)
            return (
                steps.row(statements.has_dead) is not None
                or steps.row(statements.has_expired) is not None
            )

        def work(steps: Steps) -> list[Claim]:
            number = self._number(steps, session)
            sweep(steps, statements)
            fence = new_fence()
            rows = steps.rows(statements.collect, owner=number, claim=fence, room=limit)
            rows.sort(key=lambda row: int(row[0]))
            return [_claim(row, row[7], fence, REASONS[row[8]]) for row in rows]

        self._keys.purge()
        if not self._database.read(anything):
            return ()
        return self._database.write(work)

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

    # topology

    def read_table(self, names: Sequence[str] | None = None) -> Mapping[str, Entry]:
        """See `Store.read_table`."""

        def work(steps: Steps) -> dict[str, Entry]:
            if names is None:
                return {
                    name: Entry(version, value)
                    for name, version, value in steps.rows(self._statements.entries)
                }
            found = {name: steps.row(self._statements.entry, entry=name) for name in names}
            return {name: Entry(*row) for name, row in found.items() if row is not None}

        return self._database.read(work)

    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        """See `Store.write_table`."""
        statements = self._statements
        expected = {change.name: change.version for change in changes}

        def work(steps: Steps) -> bool:
            if stale_entries(steps, statements, expected):
                raise Undo(False)
            for change in changes:
                if change.value is None:
                    steps.run(statements.remove_entry, entry=change.name)
                else:
                    version = next_version(steps, self._database)
                    steps.run(
                        statements.set_entry, entry=change.name, version=version, value=change.value
                    )
            for queue in drop:
                steps.run(statements.drop, queue=queue)
            return True

        if self._database.read(lambda steps: stale_entries(steps, statements, expected)):
            return False
        return self._database.write(work)

    def close(self) -> None:
        """See `Store.close`."""
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

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        return self._keys.increment(key, amount, ttl)

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        return self._keys.delete(key, version)


def _place(row: Any) -> tuple[int, int]:
    """Return what orders messages within their queue: the better priority first, then the older."""
    return -row[5], row[0]


def _claim(row: Any, queue: str, fence: int, reason: str = "") -> Claim:
    return Claim((row[0], fence), queue, row[1], row[2], row[3], row[4] - FIRST, row[5], reason)


def _pack(tokens: Sequence[Token]) -> str:
    return json.dumps(tokens) if tokens else ""


def _unpack(text: str) -> list[Token]:
    return [tuple(token) for token in json.loads(text)] if text else []
