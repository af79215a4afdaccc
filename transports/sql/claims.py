"""Taking messages for a session: claims, their repetition, and what is dead.

A claim notes its request id beside its effect, in the same transaction, for the caller whose answer
is lost. Each handle keeps the notes of its last claims, until their session ends.

A claim that was told that nothing is left need not look before it waits the next time. It looks
when it was woken, or at the end.

To take a message nothing waits for the disk: a claim that a power cut undoes has left it in its
queue. What a claim settles is `lasting`, like any other settling.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from queue_core.errors import SessionLost
from queue_core.interrupt import Interrupt
from queue_core.message import Token
from queue_core.transport import Claim, Claimed
from queue_core.transports.sql.database import Database, Steps
from queue_core.transports.sql.dialects import Taking
from queue_core.transports.sql.put import RowByRow, is_token, settle_tokens, sweep
from queue_core.transports.sql.statements import Statement
from queue_core.transports.sql.tables import ALONE, FIRST, new_fence, reason_of

_SLOTS = 16


class Claims:
    """What one store handle takes."""

    __slots__ = (
        "_interrupt",
        "_claims",
        "_database",
        "_dialect",
        "_drained",
        "_first_slot",
        "_noted",
        "_statements",
    )

    def __init__(self, database: Database) -> None:
        """Share the handle's database."""
        self._database = database
        self._dialect = database.dialect
        self._statements = database.statements
        self._first_slot = secrets.randbits(56) * _SLOTS
        self._claims = 0
        self._noted = ""
        self._drained: tuple[str, Collection[str], float] | None = None
        self._interrupt = Interrupt()

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        self._interrupt.request()

    def close(self) -> None:
        """Give up what waiting has opened. May be called twice."""
        self._interrupt.close()

    def claim(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        wait: float,
        settle: Sequence[Token],
        *,
        repeat: bool,
    ) -> Claimed:
        """See `Store.claim`."""
        deadline = time.monotonic() + wait
        wants = {queue: room for queue, room in wants.items() if room > 0}
        if repeat and (again := self._answer_again(session, request)) is not None:
            return again
        listening = self._dialect.listens(tuple(wants))
        claimed: Claimed | None = None
        try:
            if listening and not (settle or repeat):
                pause = min(wait, self._pause(session, wants))
                if pause > 0:
                    self._wait(pause)
            while True:
                if listening:
                    self._mark(wants)
                stale = () if claimed is None else claimed.stale_tokens
                self._drained = None
                claimed, due_in = self._attempt(session, request, wants, settle, stale)
                if not listening:
                    self._drained = None  # what came since it looked was not heard
                settle = ()
                remaining = deadline - time.monotonic()
                if claimed.claims or remaining <= 0 or self._interrupt.requested:
                    return claimed
                if listening and due_in > 0:
                    changed = self._wait(min(remaining, due_in))
                    if not changed and due_in > remaining:
                        return claimed
                listening = True
        except SessionLost:
            if claimed is None:
                raise
            return claimed  # what was settled is; the next call will say what else has happened
        finally:
            if listening:
                self._dialect.rest()
            if wait > 0:
                self._interrupt.clear()

    def _attempt(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        settle: Sequence[Token],
        stale: Sequence[Token],
    ) -> tuple[Claimed, float]:
        """Settle and take, unless a look says that there is nothing to do.

        Returns that, with ``stale`` for what was settled earlier, and the seconds until there is
        more: infinite if nothing is on its way, 0 if nobody knows.
        """
        if not settle and not self._dialect.eager:
            ready, due_in = self._look(session, wants)
            if not ready:
                return Claimed((), stale), due_in
        return self._take(session, request, wants, settle, stale)

    def _pause(self, session: str, wants: Mapping[str, int]) -> float:
        """Return for how many seconds it is certain that there is nothing without a hint."""
        if self._drained is None or self._drained[:2] != (session, wants.keys()):
            return 0.0
        return self._drained[2] - time.monotonic()

    def _mark(self, wants: Mapping[str, int]) -> None:
        self._database.read(lambda steps: self._dialect.mark(steps.cursor, tuple(wants)))

    def _wait(self, seconds: float) -> bool:
        return self._database.read(
            lambda steps: self._dialect.wait(steps.cursor, seconds, self._interrupt)
        )

    def _look(self, session: str, wants: Mapping[str, int]) -> tuple[bool, float]:
        """Return whether there may be something now, and the seconds until there is more.

        Raises:
            SessionLost: the session does not exist.
        """

        def work(steps: Steps) -> tuple[bool, float]:
            names = steps.names(wants)
            number, found, due = steps.row(self._statements.look, session=session, names=names)
            if number is None:
                raise _lost(session)
            if found is not None or (due is not None and due <= 0):
                return True, 0.0
            return False, float("inf") if due is None else due / 1_000_000

        return self._database.read(work)

    def _take(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        settle: Sequence[Token],
        settled_stale: Sequence[Token],
    ) -> tuple[Claimed, float]:
        """Settle and take in one transaction, and note the request with it."""
        statements = self._statements
        fence = new_fence()
        slot = self._slot(request)
        taking = Taking(session, request, slot, fence, wants, settle)
        if (taken := self._database.alone(lambda: self._dialect.take_once(taking))) is not None:
            if taken.number is None:
                raise _lost(session)
            due_at = time.monotonic() + taken.due_in
            self._drained = None if taken.left else (session, set(wants), due_at)
            claims = [_claim(row, row[7], fence) for row in sorted(taken.rows, key=_place)]
            return Claimed(claims, taken.stale if settle else settled_stale), taken.due_in

        def work(steps: Steps, *, row_by_row: bool) -> Claimed:
            number = self._number(steps, session, statements.share_session)
            stale = (
                settle_tokens(steps, statements, settle, row_by_row=row_by_row)
                if settle
                else settled_stale
            )
            sweep(steps, statements)
            claims: list[Claim] = []
            for queue, room in sorted(wants.items()):
                claims += self._take_from(steps, queue, room, number, fence)
            if claims or settle:
                steps.run(
                    statements.note_request,
                    owner=number,
                    slot=slot,
                    request=request,
                    claim=fence,
                    stale=_pack(stale),
                )
            return Claimed(claims, stale)

        write, lasting = self._database.write, bool(settle)
        try:
            return write(lambda steps: work(steps, row_by_row=False), lasting=lasting), 0.0
        except RowByRow:
            return write(lambda steps: work(steps, row_by_row=True), lasting=lasting), 0.0

    def _take_from(
        self, steps: Steps, queue: str, room: int, number: int, fence: int
    ) -> list[Claim]:
        statements = self._statements
        if steps.row(statements.has_due, queue=queue) is not None:
            steps.change(statements.promote, queue=queue)
        rows = steps.change(statements.claim, queue=queue, room=room, owner=number, claim=fence)
        rows.sort(key=_place)
        keep = together(rows)
        if keep < len(rows):
            steps.change(statements.untake, numbers=steps.numbers(row[0] for row in rows[keep:]))
        return [_claim(row, queue, fence) for row in rows[:keep]]

    def _slot(self, request: str) -> int:
        """Return where the request is noted."""
        if request != self._noted:  # one that settled, waited and took has one note of it all
            self._claims += 1
            self._noted = request
        return self._first_slot + self._claims % _SLOTS

    def _answer_again(self, session: str, request: str) -> Claimed | None:
        """Return what an earlier claim with this request did, as far as it is still held.

        None if it did nothing. It may still be at work behind a connection that is lost: it shares
        the session, so whoever holds that has waited for it.
        """

        def work(steps: Steps) -> Claimed | None:
            number = self._number(steps, session, self._statements.hold_session)
            noted = steps.row(self._statements.find_request, owner=number, request=request)
            if noted is None:
                return None
            rows = steps.rows(self._statements.taken, owner=number, claim=noted[0])
            return Claimed([_claim(row, row[7], noted[0]) for row in rows], _unpack(noted[1]))

        return self._database.write(work)

    def duties(self, session: str) -> tuple[bool, bool]:
        """Return whether there are dead messages, and old keys.

        Raises:
            SessionLost: the session does not exist.
        """
        row = self._database.read(lambda steps: steps.row(self._statements.duties, session=session))
        if row[0] is None:
            raise _lost(session)
        return row[1] is not None or row[2] is not None, row[3] is not None

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        statements = self._statements

        def work(steps: Steps) -> list[Claim]:
            number = self._number(steps, session, statements.share_session)
            sweep(steps, statements)
            fence = new_fence()
            rows = steps.change(statements.collect, owner=number, claim=fence, room=limit)
            rows.sort(key=lambda row: int(row[0]))
            return [_claim(row, row[7], fence, reason_of(row[8])) for row in rows]

        return self._database.write(work, lasting=False)

    def _number(self, steps: Steps, session: str, find: Statement) -> int:
        row = steps.row(find, session=session)
        if row is None:
            raise _lost(session)
        return int(row[0])


def together(rows: Sequence[Any]) -> int:
    """Return how many of one queue's best messages may be claimed together.

    One that has crashed its consumers is claimed alone.
    """
    crashed = next((index for index, row in enumerate(rows) if row[6] >= ALONE), len(rows))
    return max(1, crashed) if rows else 0


def _lost(session: str) -> SessionLost:
    return SessionLost(f"the session {session!r} has ended; its messages went back to their queues")


def _place(row: Any) -> tuple[int, int]:
    """Return what orders messages within their queue: the better priority first, then the older."""
    return -row[5], row[0]


def _claim(row: Any, queue: str, fence: int, reason: str = "") -> Claim:
    return Claim((row[0], fence), queue, row[1], row[2], row[3], row[4] - FIRST, row[5], reason)


def _pack(tokens: Sequence[Token]) -> str:
    return json.dumps([token for token in tokens if is_token(token)]) if tokens else ""


def _unpack(text: str) -> list[Token]:
    return [tuple(token) for token in json.loads(text)] if text else []
