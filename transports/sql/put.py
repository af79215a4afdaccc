"""Putting: settle, check limits, append, as one transaction.

The usual case costs one statement for all settlings and one for all envelopes. Only when their
counts say that something was stale or stored before is everything taken back and done once more row
by row, to learn which. Inside the caller's own transaction, which must not be taken back, it is row
by row from the start, under a savepoint.

What is beyond a ``drop-head`` limit dies with the put that finds it. When that is more than a short
transaction can do, the rest follows in others, between which everybody has a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from queue_core.message import Token
from queue_core.transport import Envelope, Limit, PutResult
from queue_core.transports.sql.database import Steps, Undo
from queue_core.transports.sql.statements import SHRED, Statements, Versions
from queue_core.transports.sql.tables import DEAD, DELAYED, EXPIRED, FREE, READY


class RowByRow(Exception):  # noqa: N818 - it is no error
    """Something was stale or stored before: take everything back, and go row by row to see what."""


def stale_entries(steps: Steps, find: Versions, versions: Mapping[str, int]) -> list[str]:
    """Return the names whose entry has another version; ``find`` may lock those that exist."""
    if not versions:
        return []
    if len(versions) == 1:
        found = dict(steps.rows(find.one, entry=next(iter(versions))))
    else:
        found = dict(steps.rows(find.many, names=steps.names(versions)))
    return [name for name, version in versions.items() if found.get(name, 0) != version]


def settle_tokens(
    steps: Steps, statements: Statements, tokens: Sequence[Token], *, row_by_row: bool
) -> list[Token]:
    """Forget claims; return the stale tokens.

    Without ``row_by_row`` it raises `RowByRow` if there are any.
    """
    if not tokens:
        return []
    if not row_by_row:
        if not are_tokens(tokens):
            raise RowByRow
        if _settle_together(steps, statements, tokens) != len(tokens):
            raise RowByRow
        return []
    good = [token for token in dict.fromkeys(tokens) if is_token(token)]
    stale = [token for token in dict.fromkeys(tokens) if not is_token(token)]
    for token in sorted(good):
        steps.cursor.execute(statements.settle, token)
        if steps.cursor.rowcount != 1:
            stale.append(token)
    return stale


def _settle_together(steps: Steps, statements: Statements, tokens: Sequence[Token]) -> int:
    """Forget claims, those of one claim in one statement; return how many there were."""
    of_claim: dict[int, list[int]] = {}
    for seq, fence in sorted(tokens):
        of_claim.setdefault(fence, []).append(seq)
    settled = 0
    for fence, seqs in of_claim.items():
        if len(seqs) == 1:
            steps.cursor.execute(statements.settle, (seqs[0], fence))
            settled += steps.cursor.rowcount
        else:
            numbers = steps.numbers(seqs)
            settled += steps.run(statements.settle_some, numbers=numbers, claim=fence)
    return settled


def sweep(steps: Steps, statements: Statements) -> None:
    """Let the messages whose ttl is over be dead, up to a bound."""
    if steps.row(statements.has_expired) is not None:
        steps.change(statements.bury_expired)


class Put:
    """One call of ``Store.put``."""

    __slots__ = ("_batch", "_limits", "_settle", "_statements", "_versions", "over")

    def __init__(
        self,
        statements: Statements,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        settle: Sequence[Token],
        limits: Mapping[str, Limit],
    ) -> None:
        """Remember the arguments, which stay the caller's.

        ``over`` names the queues in which more had to die than one step let.
        """
        self._statements = statements
        self._batch = batch
        self._versions = versions
        self._settle = settle
        self._limits = limits
        self.over: list[str] = []

    def run(self, steps: Steps, *, row_by_row: bool) -> PutResult:
        """Do it in the open transaction.

        Raises `Undo` with the answer if nothing may remain of it, or `RowByRow`.
        """
        statements = self._statements
        if any([one.cause is None for one in self._batch]):  # the others replace what they settle
            steps.check_room()
        if 0 in self._versions.values():  # an entry that does not exist cannot be locked
            steps.rows(statements.share_counter)
        if names := stale_entries(steps, statements.share_entries, self._versions):
            raise Undo(PutResult(stale_entries=names))
        if self._limits:
            steps.lock_queues(sorted(self._limits))
        stale = settle_tokens(steps, statements, self._settle, row_by_row=row_by_row)
        wanted = self._wanted(steps, set(stale))
        already, added = self._append(steps, wanted, row_by_row=row_by_row)
        if self._limits:
            self._keep_limits(steps, added)
        return PutResult(already=already, stale_tokens=stale)

    def stored(self, result: PutResult) -> list[Envelope]:
        """Return the envelopes that this put has stored, given its answer."""
        if result.stale_entries or result.full:
            return []
        stale, already = set(result.stale_tokens), set(result.already)
        return [
            envelope
            for index, envelope in enumerate(self._batch)
            if index not in already and (envelope.cause is None or envelope.cause not in stale)
        ]

    def _wanted(self, steps: Steps, stale: set[Token]) -> list[int]:
        """Return the indices of the envelopes whose cause, if any, is good."""
        settled = None
        wanted = []
        for index, envelope in enumerate(self._batch):
            cause = envelope.cause
            if cause is not None:
                if settled is None:
                    settled = set(self._settle)
                if cause in stale or (cause not in settled and not self._is_held(steps, cause)):
                    continue
            wanted.append(index)
        return wanted

    def _is_held(self, steps: Steps, token: Token) -> bool:
        if not is_token(token):
            return False
        steps.cursor.execute(self._statements.is_held, token)
        return steps.cursor.fetchone() is not None

    def _append(
        self, steps: Steps, wanted: list[int], *, row_by_row: bool
    ) -> tuple[list[int], set[str]]:
        """Append; return the indices that were there before, and the queues that are fuller now.

        What is dead at once fills no queue.
        """
        insert = self._statements.insert_message
        now, batch, cursor = steps.now, self._batch, steps.cursor
        already: list[int] = []
        if row_by_row:
            for index in wanted:
                cursor.execute(insert, _row(batch[index], now))
                if cursor.rowcount != 1:
                    already.append(index)
        elif wanted:
            cursor.executemany(insert, [_row(batch[index], now) for index in wanted])
            if cursor.rowcount != len(wanted):
                raise RowByRow
        if not self._limits:
            return already, set()
        stored = (batch[index] for index in set(wanted).difference(already))
        return already, {one.queue for one in stored if one.ttl is None or one.ttl > 0}

    def _keep_limits(self, steps: Steps, added: set[str]) -> None:
        sweep(steps, self._statements)
        drops = [queue for queue, limit in self._limits.items() if limit.overflow == "drop-head"]
        full = [
            queue
            for queue in self._limits
            if queue in added and queue not in drops and self._surplus(steps, queue, 0) > 0
        ]
        if full:
            raise Undo(PutResult(full=full))
        self._drop(steps, drops, max(SHRED, len(self._batch)))

    def trim(self, steps: Steps) -> None:
        """Let more of what is still beyond a limit be dead, in a transaction of its own."""
        steps.lock_queues(sorted(self.over))
        self._drop(steps, self.over, SHRED)

    def _drop(self, steps: Steps, queues: Sequence[str], most: int) -> None:
        self.over = []
        for queue in queues:
            if (surplus := self._surplus(steps, queue, most)) > 0:
                self._overflow(steps, queue, min(surplus, most))
            if surplus > most:
                self.over.append(queue)

    def _surplus(self, steps: Steps, queue: str, most: int) -> int:
        """Return how many are beyond the limit; of more than ``most`` it counts only some."""
        allowed = self._limits[queue].max_length
        count = steps.row(self._statements.unclaimed, queue=queue, cap=allowed + most + 1)[0]
        return int(count) - allowed

    def _overflow(self, steps: Steps, queue: str, surplus: int) -> None:
        """Let the ``surplus`` messages of lowest priority, the oldest of them first, be dead."""
        statements = self._statements
        delayed = steps.rows(statements.oldest_delayed, queue=queue, room=surplus)
        chosen: list[tuple[int, int]] = [(row[0], row[1]) for row in delayed]
        lowest = steps.row(statements.lowest, queue=queue)
        found = 0
        priority = lowest[0] if lowest is not None else 10
        while found < surplus and priority < 10:
            rows = steps.rows(
                statements.oldest, queue=queue, priority=priority, room=surplus - found
            )
            chosen += [(row[0], row[1]) for row in rows]
            found += len(rows)
            priority += 1
        chosen.sort()
        numbers = steps.numbers(seq for _, seq in chosen[:surplus])
        steps.change(statements.bury_overflowed, numbers=numbers)


def _row(envelope: Envelope, now: int) -> tuple[object, ...]:
    """Return a new message in the order of `INSERTED`."""
    delay, ttl = envelope.delay, envelope.ttl
    state, reason, available_at, expires_at = READY, 0, now, None
    if delay > 0:
        state, available_at = DELAYED, now + int(delay * 1_000_000)
    if ttl is not None:
        expires_at = now + int(ttl * 1_000_000)
        if ttl <= 0:
            state, reason = DEAD, EXPIRED
    return (
        envelope.queue,
        envelope.id,
        envelope.priority,
        state,
        reason,
        envelope.max_deliveries,
        available_at,
        expires_at,
        envelope.properties,
        envelope.body,
    )


def are_tokens(tokens: Sequence[Token]) -> bool:
    """Return whether all of these are tokens; quicker than one by one."""
    if not tokens:
        return True
    if set(map(type, tokens)) != {tuple} or set(map(len, tokens)) != {2}:
        return False
    seqs, fences = zip(*tokens, strict=True)
    if {*map(type, seqs), *map(type, fences)} != {int}:
        return False
    return bool(0 < min(seqs) and FREE < min(fences) and max(*seqs, *fences) < 1 << 63)


def is_token(token: Token) -> bool:
    """Return whether a claim of this kind of store gave this token."""
    return (
        isinstance(token, tuple)
        and len(token) == 2
        and isinstance(token[0], int)
        and isinstance(token[1], int)
        and FREE < token[1] < 1 << 63 > token[0] > 0
    )
