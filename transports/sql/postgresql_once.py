"""The usual put and the usual claim on PostgreSQL: one statement each, a transaction by itself.

They do what the steps of `put.py` and `claims.py` do, in one round trip and with one commit. A put
with limits, or of a copy that does not settle its cause, is left to the steps.

The rules:

- A statement sees the moment at which it began; only rows that it locks are looked at anew. So
  table entries and the session are locked and thereby checked, and messages are chosen under a
  lock: what somebody else has changed meanwhile is judged as it is then, or skipped.
- Whoever claims locks the session first: the end of a session waits for claims that have begun,
  and those that begin later find none.
- Parts of one statement run in an order of the planner's, unless one reads another. Settling comes
  before appending because the append reads the count of what was settled.
- Settling and claiming do not wait for the disk: a crash of the server may take back the last
  moments of it, and the messages come again. A statement that publishes waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from queue_core.message import Token
from queue_core.transport import Envelope, PutResult
from queue_core.transports.sql.dialects import Cursor, Taken, Taking
from queue_core.transports.sql.put import is_token
from queue_core.transports.sql.statements import SWEEP
from queue_core.transports.sql.tables import ALONE, DEAD, DELAYED, EXPIRED, HELD, PREFIX, READY

_EVER: Final = 1 << 62
_LAZY: Final = "set_config('synchronous_commit', 'off', true)"


class Once:
    """The texts of the statements."""

    def __init__(self, now: str) -> None:
        """``now`` is an SQL expression: the present in microseconds."""
        gone = f"""
            DELETE FROM {PREFIX}message AS m
            USING unnest(%(seqs)s::bigint[], %(fences)s::bigint[]) AS t (seq, fence)"""
        which = """
                CASE WHEN gone < %(settled)s THEN ARRAY(SELECT seq FROM gone) END,
                CASE WHEN gone < %(settled)s THEN ARRAY(SELECT fence FROM gone) END"""
        self.settle = f"""
            WITH gone AS ({gone}
                WHERE m.seq = t.seq AND m.fence = t.fence RETURNING m.seq, m.fence
            )
            SELECT {_LAZY}, {which} FROM (SELECT count(*) AS gone FROM gone) AS counted"""
        self.put = f"""
            WITH kept AS MATERIALIZED (
                SELECT name, version FROM {PREFIX}entry
                WHERE name = ANY (%(names)s::text[]) ORDER BY name FOR KEY SHARE
            ), stale AS MATERIALIZED (
                SELECT e.name
                FROM unnest(%(names)s::text[], %(versions)s::bigint[]) AS e (name, version)
                WHERE NOT EXISTS (
                    SELECT FROM kept WHERE kept.name = e.name AND kept.version = e.version
                )
            ), gone AS ({gone}
                WHERE m.seq = t.seq AND m.fence = t.fence AND NOT EXISTS (SELECT FROM stale)
                RETURNING m.seq, m.fence
            ), added AS (
                INSERT INTO {PREFIX}message (
                    queue, id, priority, state, reason, max_deliveries, available_at, expires_at,
                    properties, body
                )
                SELECT n.queue, n.id, n.priority, n.state, n.reason, n.max_deliveries,
                    {now} + n.delay, {now} + n.ttl, n.properties, n.body
                FROM unnest(
                    %(queues)s::text[], %(ids)s::text[], %(priorities)s::smallint[],
                    %(states)s::smallint[], %(reasons)s::smallint[],
                    %(max_deliveries)s::integer[], %(delays)s::bigint[], %(ttls)s::bigint[],
                    %(properties)b::bytea[], %(bodies)b::bytea[], %(causes)s::bigint[]
                ) WITH ORDINALITY AS n (
                    queue, id, priority, state, reason, max_deliveries, delay, ttl, properties,
                    body, cause, place
                )
                WHERE NOT EXISTS (SELECT FROM stale) AND (SELECT count(*) FROM gone) >= 0
                    AND (n.cause IS NULL OR n.cause IN (SELECT seq FROM gone))
                ORDER BY n.place
                ON CONFLICT DO NOTHING
                RETURNING queue, id
            ), counted AS MATERIALIZED (
                SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM added) AS added
            )
            SELECT ARRAY(SELECT name FROM stale), added, {which},
                CASE WHEN added < %(offered)s THEN ARRAY(SELECT queue FROM added) END,
                CASE WHEN added < %(offered)s THEN ARRAY(SELECT id FROM added) END,
                (SELECT count(pg_notify(c, '')) FROM unnest(%(channels)s::text[]) AS c)
            FROM counted"""
        self.take = f"""
            WITH owner AS MATERIALIZED (
                SELECT number FROM {PREFIX}session WHERE name = %(session)s FOR KEY SHARE
            ), gone AS ({gone}, owner
                WHERE m.seq = t.seq AND m.fence = t.fence RETURNING m.seq, m.fence
            ), wanted AS MATERIALIZED (
                SELECT queue, room FROM unnest(%(queues)s::text[], %(rooms)s::integer[])
                AS w (queue, room)
            ), due AS MATERIALIZED (
                SELECT FROM wanted AS w, LATERAL (
                    SELECT FROM {PREFIX}message AS d
                    WHERE d.state = {DELAYED} AND d.queue = w.queue
                        AND d.available_at <= least({now}, %(at)s::bigint)
                    LIMIT 1
                ) AS d LIMIT 1
            ), best AS MATERIALIZED (
                SELECT m.*, w.queue FROM wanted AS w, LATERAL (
                    SELECT seq, crashes, priority FROM {PREFIX}message AS r
                    WHERE r.state = {READY} AND r.queue = w.queue
                        AND (r.expires_at IS NULL OR r.expires_at > {now})
                    ORDER BY r.priority DESC, r.seq LIMIT w.room FOR UPDATE SKIP LOCKED
                ) AS m
                WHERE EXISTS (SELECT FROM owner) AND NOT EXISTS (SELECT FROM due)
            ), placed AS MATERIALIZED (
                SELECT seq, queue, crashes, row_number()
                    OVER (PARTITION BY queue ORDER BY priority DESC, seq) AS place
                FROM best
            ), cut AS MATERIALIZED (
                SELECT queue, min(place) AS place FROM placed WHERE crashes >= {ALONE}
                GROUP BY queue
            ), taken AS (
                UPDATE {PREFIX}message AS m SET state = {HELD}, attempts = m.attempts + 1,
                    session = (SELECT number FROM owner), fence = %(fence)s
                FROM placed AS p
                WHERE m.seq = p.seq AND NOT EXISTS (
                    SELECT FROM cut WHERE cut.queue = p.queue AND greatest(cut.place, 2) <= p.place
                )
                RETURNING m.seq, m.id, m.body, m.properties, m.attempts, m.priority,
                    m.crashes, m.queue
            ), noted AS (
                INSERT INTO {PREFIX}request (session, slot, request, fence, stale)
                SELECT number, %(slot)s, %(request)s, %(fence)s, '' FROM owner
                WHERE %(settled)s::integer > 0 OR EXISTS (SELECT FROM taken)
                ON CONFLICT (session, slot) DO UPDATE
                SET request = excluded.request, fence = excluded.fence, stale = excluded.stale
            ), settled AS MATERIALIZED (SELECT count(*) AS gone FROM gone)
            SELECT h.*, t.* FROM (
                SELECT (SELECT number FROM owner),
                    CASE WHEN EXISTS (SELECT FROM due) THEN {now} END, {_LAZY}, {which}
                FROM settled
            ) AS h LEFT JOIN taken AS t ON true"""
        self.promote = f"""
            UPDATE {PREFIX}message AS m SET state = {READY} FROM (
                SELECT seq FROM {PREFIX}message
                WHERE state = {DELAYED} AND queue = ANY (%(queues)s::text[])
                    AND available_at <= {now}
                LIMIT {SWEEP} FOR UPDATE SKIP LOCKED
            ) AS d WHERE m.seq = d.seq"""


def numbers(values: Iterable[int | None]) -> str:
    """Return an array of numbers as PostgreSQL reads it."""
    inside = ",".join(["NULL" if value is None else str(value) for value in values])
    return f"{{{inside}}}"


def split(tokens: Sequence[Token]) -> dict[str, object]:
    """Return the parameters that name these tokens, in the order in which everybody locks them."""
    tokens = sorted(tokens)
    return {
        "seqs": numbers(seq for seq, _ in tokens),
        "fences": numbers(fence for _, fence in tokens),
        "settled": len(tokens),
    }


def put_once(
    cursor: Cursor,
    once: Once,
    batch: Sequence[Envelope],
    versions: Mapping[str, int],
    settle: Sequence[Token],
    channels: Sequence[str],
) -> PutResult:
    """Run a put without limits, whose versions exist and whose causes are in ``settle``."""
    if not batch and not versions:
        cursor.execute(once.settle, split(settle))
        return PutResult(stale_tokens=_stale(settle, *cursor.fetchone()[1:]))
    values = _columns(batch)
    values |= split(settle)
    values["names"], values["versions"] = list(versions), numbers(versions.values())
    values["channels"] = list(channels)
    cursor.execute(once.put, values)
    stale_entries, added, seqs, fences, queues, ids, _ = cursor.fetchone()
    if stale_entries:
        return PutResult(stale_entries=stale_entries)
    stale = _stale(settle, seqs, fences)
    if added == len(batch):
        return PutResult(stale_tokens=stale)
    already = _already(batch, set(stale), set(zip(queues, ids, strict=True)))
    return PutResult(already=already, stale_tokens=stale)


def _columns(batch: Sequence[Envelope]) -> dict[str, Any]:
    """Return the parameters that hold the envelopes, an array for each column."""
    states, reasons, delays, ttls = [], [], [], []
    for one in batch:
        delay, ttl = one.delay, one.ttl
        states.append(READY if delay <= 0 else DELAYED)
        reasons.append(0)
        delays.append(0 if delay <= 0 else int(delay * 1_000_000))
        ttls.append(None if ttl is None else int(ttl * 1_000_000))
        if ttl is not None and ttl <= 0:
            states[-1], reasons[-1] = DEAD, EXPIRED
    return {
        "queues": [one.queue for one in batch],
        "ids": [one.id for one in batch],
        "priorities": numbers(one.priority for one in batch),
        "states": numbers(states),
        "reasons": numbers(reasons),
        "max_deliveries": numbers(one.max_deliveries for one in batch),
        "delays": numbers(delays),
        "ttls": numbers(ttls),
        "properties": [one.properties for one in batch],
        "bodies": [one.body for one in batch],
        "causes": numbers(None if one.cause is None else one.cause[0] for one in batch),
        "offered": len(batch),
    }


def _already(
    batch: Sequence[Envelope], stale: set[Token], added: set[tuple[str, str]]
) -> list[int]:
    """Return the indices of the envelopes that were stored before."""
    already = []
    for index, one in enumerate(batch):
        if one.cause is not None and one.cause in stale:
            continue
        try:
            added.remove((one.queue, one.id))
        except KeyError:
            already.append(index)
    return already


def _stale(
    tokens: Sequence[Token], seqs: Iterable[int] | None, fences: Iterable[int] | None
) -> list[Token]:
    """Return the tokens that were not settled; None stands for all of them were."""
    if seqs is None or fences is None:
        return []
    gone = set(zip(seqs, fences, strict=True))
    return [token for token in dict.fromkeys(tokens) if token not in gone]


def take_once(cursor: Cursor, once: Once, taking: Taking) -> Taken:
    """Settle and take; see `Dialect.take_once`.

    When messages are found whose delay has ended, they are made ready, which changes nothing that
    anybody could see, and it takes once more what was ready then.
    """
    good = [token for token in taking.settle if is_token(token)]
    values = split(good)
    values["session"], values["request"] = taking.session, taking.request
    values["slot"], values["fence"] = taking.slot, taking.fence
    values["queues"], values["rooms"] = list(taking.wants), numbers(taking.wants.values())
    values["at"] = _EVER
    number, due, stale, rows = _take(cursor, once, values, good)
    if due is not None:
        cursor.execute(once.promote, {"queues": values["queues"]})
        again = {**values, **split(()), "at": due}
        number, due, _, rows = _take(cursor, once, again, ())
        if due is not None:  # somebody else is at it
            number, due, _, rows = _take(cursor, once, {**again, "at": 0}, ())
    stale += [token for token in taking.settle if not is_token(token)]
    return Taken(number, stale, rows)


def _take(
    cursor: Cursor, once: Once, values: dict[str, Any], settle: Sequence[Token]
) -> tuple[int | None, int | None, list[Token], list[Any]]:
    cursor.execute(once.take, values)
    rows = cursor.fetchall()
    number, due, _, seqs, fences, first = rows[0][:6]
    taken = [] if first is None else [row[5:] for row in rows]
    return number, due, _stale(settle, seqs, fences), taken
