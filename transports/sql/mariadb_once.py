"""The usual put and the usual claim on MariaDB: two packets each, in a transaction.

They do what the steps of `put.py` and `claims.py` do. The first packet begins the transaction and
does everything whose outcome must be seen; the second changes what was chosen, and commits. What is
not usual in a put (a limit, a stale token, a message that is there already) is left to the steps;
a claim that settles stale tokens is taken back, and done again in a way that tells which.

The rules:

- Whoever claims shares the lock of the session's row: its end waits for claims that have begun.
- Messages are chosen by ``FOR UPDATE SKIP LOCKED`` along the index in which they stand in order,
  and the planner is not asked: its statistics are of another moment.
- A message that crashed its consumers is taken alone, as the steps do it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from queue_core.message import Token
from queue_core.transport import Envelope, PutResult
from queue_core.transports.sql.claims import together
from queue_core.transports.sql.dialects import Taken, Taking
from queue_core.transports.sql.mariadb_wire import Answer, Wire, fill
from queue_core.transports.sql.put import is_token
from queue_core.transports.sql.statements import SWEEP
from queue_core.transports.sql.tables import (
    DEAD,
    DELAYED,
    EXPIRED,
    HELD,
    PREFIX,
    READY,
    whole_index,
)

_BEGIN: Final = b"START TRANSACTION"
_COMMIT: Final = b"COMMIT"
_ROLLBACK: Final = b"ROLLBACK"
_ROWS: Final = 1 << 19
_ENTRIES: Final = (
    f"SELECT name FROM {PREFIX}entry WHERE name IN %s AND (name, version) IN %s "
    "ORDER BY name LOCK IN SHARE MODE"
)
_NUMBERED: Final = f"{PREFIX}message {whole_index()}"
_TOKENS: Final = f"FROM {_NUMBERED} WHERE seq IN %s AND (seq, fence) IN %s"
_GOOD: Final = f"SELECT seq, fence {_TOKENS} ORDER BY seq FOR UPDATE"
_SETTLE: Final = f"DELETE {PREFIX}message {_TOKENS}"
_SESSION: Final = f"SELECT number FROM {PREFIX}session WHERE name = %s LOCK IN SHARE MODE"
_TAKE: Final = (
    f"UPDATE {_NUMBERED} SET state = {HELD}, session = %s, fence = %s, attempts = attempts + 1 "
    "WHERE seq IN %s"
)
_NOTE: Final = (
    f"INSERT INTO {PREFIX}request (session, slot, request, fence, stale) "
    "VALUES (%s, %s, %s, %s, '') ON DUPLICATE KEY UPDATE request = VALUES(request), "
    "fence = VALUES(fence), stale = VALUES(stale)"
)


class Once:
    """The texts of the statements that ask for the time."""

    def __init__(self, now: str) -> None:
        """``now`` is an SQL expression: the present in microseconds."""
        now = now.replace("%", "%%")
        self.insert = (
            f"INSERT INTO {PREFIX}message (queue, id, priority, state, reason, max_deliveries, "
            "available_at, expires_at, properties, body) VALUES "
        ).encode()
        self.row = f"(%s,%s,%s,%s,%s,%s,%s+{now},%s+{now},%s,%s)"
        self.unless_there = b" ON DUPLICATE KEY UPDATE id = id"
        due = f"state = {DELAYED} AND available_at <= {now}"
        self.find_due = (
            f"SELECT seq FROM {PREFIX}message {whole_index('delayed')} "
            f"WHERE {due} AND queue IN %s LIMIT {SWEEP}"
        )
        self.promote = (
            f"UPDATE (SELECT seq FROM {_NUMBERED} WHERE seq IN %s AND {due} FOR UPDATE SKIP LOCKED)"
            f" AS due STRAIGHT_JOIN {PREFIX}message AS m {whole_index()} ON m.seq = due.seq "
            f"SET m.state = {READY}"
        )
        columns = (
            "m.seq, m.id, m.body, m.properties, m.attempts + 1, m.priority, m.crashes, m.queue"
        )
        ready = f"state = {READY} AND (expires_at IS NULL OR expires_at > {now})"
        indexed = f"{PREFIX}message AS m {whole_index('ready')}"
        best = f"FROM {indexed} WHERE {ready} AND queue = %s ORDER BY priority DESC, m.seq LIMIT %s"
        self._one = f"SELECT {columns} {best} FOR UPDATE SKIP LOCKED"
        self._seen = f"(SELECT queue, priority, m.seq {best})"
        self._those = (
            f") AS seen STRAIGHT_JOIN {indexed} ON m.queue = seen.queue "
            f"AND m.priority = seen.priority AND m.seq = seen.seq WHERE {ready} "
            "ORDER BY m.queue, m.priority DESC, m.seq FOR UPDATE SKIP LOCKED"
        )
        self._start = f"SELECT {columns} FROM ("

    def choose(self, queues: int) -> str:
        """Return the statement that chooses and locks the best messages of so many queues.

        Of several queues it sees the same moment, before it locks.
        """
        if queues == 1:
            return self._one
        return self._start + " UNION ALL ".join([self._seen] * queues) + self._those


def put_once(
    wire: Wire,
    once: Once,
    batch: Sequence[Envelope],
    versions: Mapping[str, int],
    settle: Sequence[Token],
) -> PutResult | None:
    """Run a put without limits, whose versions exist and whose causes are in ``settle``.

    Leaves its transaction open if it returns None or raises.
    """
    wire.hold(_BEGIN)
    if versions:
        wire.hold(fill(_ENTRIES, (tuple(versions), tuple(versions.items()))))
    if settle:
        wire.hold(_settling(_SETTLE, settle))
    inserts = _inserts(once, batch)
    for insert in inserts:
        wire.hold(insert)
    answers = iter(wire.answers()[1:])
    if versions:
        current = {row[0] for row in next(answers)[1]}
        if len(current) < len(versions):
            wire.hold(_ROLLBACK)
            wire.answers()
            return PutResult(stale_entries=[name for name in versions if name not in current])
    if settle and next(answers)[0] < len(settle):
        return None
    if sum(count for count, _ in answers) < len(batch):
        return None
    wire.hold(_COMMIT)
    wire.answers()
    return PutResult()


def _settling(statement: str, tokens: Iterable[Token]) -> bytes:
    """Delete by number and fence. A list of one pair alone would read the whole table."""
    tokens = tuple(sorted(tokens))
    return fill(statement, (tuple(seq for seq, _ in tokens), tokens))


def _inserts(once: Once, batch: Sequence[Envelope]) -> list[bytes]:
    """Return statements that insert the envelopes, of half a megabyte or one row each."""
    statements: list[bytes] = []
    rows: list[bytes] = []
    size = 0
    for one in batch:
        row = fill(once.row, _row(one))
        if rows and size + len(row) > _ROWS:
            statements.append(once.insert + b",".join(rows) + once.unless_there)
            rows, size = [], 0
        rows.append(row)
        size += len(row)
    if rows:
        statements.append(once.insert + b",".join(rows) + once.unless_there)
    return statements


def _row(one: Envelope) -> tuple[object, ...]:
    state, reason, delay, ttl = READY, 0, 0, None
    if one.delay > 0:
        state, delay = DELAYED, int(one.delay * 1_000_000)
    if one.ttl is not None:
        ttl = int(one.ttl * 1_000_000)
        if ttl <= 0:
            state, reason = DEAD, EXPIRED
    return (
        one.queue,
        one.id,
        one.priority,
        state,
        reason,
        one.max_deliveries,
        delay,
        ttl,
        one.properties,
        one.body,
    )


def take_once(wire: Wire, once: Once, taking: Taking) -> Taken:
    """Settle and take; see `Dialect.take_once`. Leaves its transaction open if it raises."""
    tokens = [token for token in dict.fromkeys(taking.settle) if is_token(token)]
    gone = set(tokens)
    session, settled, due, chosen = _look(wire, once, taking, tokens, _SETTLE)
    if session[1] and settled[0] < len(tokens):
        wire.hold(_ROLLBACK)
        wire.answers()
        session, good, due, chosen = _look(wire, once, taking, tokens, _GOOD)
        gone = set(good[1])
        if gone:
            wire.hold(_settling(_SETTLE, gone))
    if not session[1]:
        wire.hold(_ROLLBACK)
        wire.answers()
        return Taken(None, (), ())
    number = int(session[1][0][0])
    wants = sorted(taking.wants.items())
    rows = _kept(_choose_again(wire, once, wants, due[1]) if due[1] else chosen[1])
    if not rows and len(wants) > 1:  # perhaps others were quicker with what it had seen
        rows = _kept(_choose_apart(wire, once, wants))
    if rows:
        wire.hold(fill(_TAKE, (number, taking.fence, tuple(sorted(row[0] for row in rows)))))
    if rows or taking.settle:
        wire.hold(fill(_NOTE, (number, taking.slot, taking.request, taking.fence)))
    wire.hold(_COMMIT)
    wire.answers()
    return Taken(number, [token for token in taking.settle if token not in gone], rows)


def _look(
    wire: Wire, once: Once, taking: Taking, tokens: Sequence[Token], settle: str
) -> Sequence[Answer]:
    """Begin; return the answers about session, settling, messages that are due, and the choice."""
    wire.hold(_BEGIN)
    wire.hold(fill(_SESSION, (taking.session,)))
    if tokens:
        wire.hold(_settling(settle, tokens))
    if taking.wants:
        wire.hold(fill(once.find_due, (tuple(taking.wants),)))
        _hold_choice(wire, once, sorted(taking.wants.items()))
    answers = iter(wire.answers()[1:])
    nothing = 0, ()
    found = [next(answers), next(answers) if tokens else nothing]
    return [*found, *answers] if taking.wants else [*found, nothing, nothing]


def _hold_choice(wire: Wire, once: Once, wants: Sequence[tuple[str, int]]) -> None:
    wire.hold(fill(once.choose(len(wants)), itertools.chain(*wants)))


def _choose_again(
    wire: Wire, once: Once, wants: Sequence[tuple[str, int]], due: Sequence[Any]
) -> Sequence[Any]:
    """Choose after letting those be ready whose delay is over."""
    wire.hold(fill(once.promote, (tuple(sorted(seq for (seq,) in due)),)))
    _hold_choice(wire, once, wants)
    return wire.answers()[-1][1]


def _choose_apart(wire: Wire, once: Once, wants: Sequence[tuple[str, int]]) -> Sequence[Any]:
    """Choose from each queue by itself."""
    for want in wants:
        _hold_choice(wire, once, [want])
    return [row for _, rows in wire.answers() for row in rows]


def _kept(chosen: Sequence[Any]) -> list[Any]:
    """Return those that may be taken together; the rows of a queue stand together, in its order."""
    kept: list[Any] = []
    for _, rows in itertools.groupby(chosen, key=lambda row: row[7]):
        queue = list(rows)
        kept += queue[: together(queue)]
    return kept
