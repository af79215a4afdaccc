"""The usual put and the usual claim on PostgreSQL: one statement each, a transaction by itself.

They do what the steps of `put.py` and `claims.py` do, in one round trip and with one commit. What
is not usual in a put (a limit, a stale version or token, a cause that it does not settle) is left
to the steps: the statement does nothing then.

What most puts are, one message that is ready at once, has a short statement of its own, and the
other one when that stored nothing.

The rules:

- A statement sees the moment at which it began; only rows that it locks are looked at anew. So
  table entries and the session are locked and thereby checked, and messages are chosen under a
  lock: what somebody else has changed meanwhile is judged as it is then, or skipped.
- Whoever claims locks the session first: the end of a session waits for claims that have begun,
  and those that begin later find none.
- Parts of one statement run in an order of the planner's, unless one reads another. Settling comes
  before appending because the append reads the count of what was settled.
- What publishes or settles waits for the disk: neither is undone by a crash of the server. A claim
  by itself does not wait; if it is undone, its messages are ready again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from queue_core.message import Token
from queue_core.transport import Envelope, PutResult
from queue_core.transports.sql.dialects import Cursor, Taken, Taking
from queue_core.transports.sql.postgresql_errors import COLLISIONS
from queue_core.transports.sql.put import are_tokens, is_token
from queue_core.transports.sql.statements import SWEEP
from queue_core.transports.sql.tables import ALONE, DEAD, DELAYED, EXPIRED, HELD, PREFIX, READY

_NUMBERS: Final = ("priority", "state", "reason", "max_deliveries", "delay", "ttl")
_COLUMNS: Final = ("queue", "id", *_NUMBERS, "properties", "body")
_LAZY: Final = "set_config('synchronous_commit', 'off', true)"
"""As a column: the commit of this statement does not wait for the disk."""


_SINGLE: Final = """
    SELECT %(queue)s::text, %(id)s::text, %(priority)s::smallint, %(state)s::smallint,
        %(reason)s::smallint, %(max_deliveries)s::integer, %(delay)s::bigint, %(ttl)s::bigint,
        %(properties)b::bytea, %(body)b::bytea"""
_MANY: Final = """
    SELECT * FROM unnest(
        %(queue)s::text[], %(id)s::text[], %(priority)s::smallint[], %(state)s::smallint[],
        %(reason)s::smallint[], %(max_deliveries)s::integer[], %(delay)s::bigint[],
        %(ttl)s::bigint[], %(properties)b::bytea[], %(body)b::bytea[]
    )"""
_HELD: Final = f"""
    held AS MATERIALIZED (
        SELECT m.seq
        FROM unnest(%(seqs)s::bigint[], %(fences)s::bigint[]) AS t (seq, fence)
            JOIN {PREFIX}message AS m ON m.seq = t.seq AND m.fence = t.fence
        ORDER BY m.seq FOR UPDATE OF m
    ),"""
_GONE: Final = f"""
    gone AS (
        DELETE FROM {PREFIX}message AS m USING held
        WHERE m.seq = held.seq AND (SELECT usual FROM usual) RETURNING m.seq
    ),"""


def _put(now: str, *, single: bool, settles: bool) -> str:
    """Return the statement that does everything if all versions and tokens are good, or nothing."""
    return f"""
    WITH kept AS MATERIALIZED (
        SELECT FROM unnest(%(names)s::text[], %(versions)s::bigint[]) AS v (name, version)
            JOIN {PREFIX}entry AS e ON e.name = v.name AND e.version = v.version
        ORDER BY e.name FOR KEY SHARE OF e
    ), {_HELD if settles else ""}
    usual AS MATERIALIZED (
        SELECT (SELECT count(*) FROM kept) = %(known)s
            {"AND (SELECT count(*) FROM held) = %(settled)s" if settles else ""} AS usual
    ), {_GONE if settles else ""}
    added AS (
        INSERT INTO {PREFIX}message (
            queue, id, priority, state, reason, max_deliveries, available_at, expires_at,
            properties, body
        )
        SELECT n.queue, n.id, n.priority, n.state, n.reason, n.max_deliveries,
            (SELECT {now}) + n.delay, (SELECT {now}) + n.ttl, n.properties, n.body
        FROM ({_SINGLE if single else _MANY}) AS n (
            queue, id, priority, state, reason, max_deliveries, delay, ttl, properties, body
        )
        WHERE (SELECT usual FROM usual)
            {"AND (SELECT count(*) FROM gone) >= 0" if settles else ""}
        ON CONFLICT (queue, id) DO NOTHING RETURNING queue, id
    )
    SELECT u.usual, a.queue, a.id,
        (SELECT count(pg_notify(c, '')) FROM unnest(%(channels)s::text[]) AS c),
        ARRAY(
            SELECT q FROM unnest(%(recent)s::text[]) AS q
            WHERE NOT EXISTS (
                SELECT FROM {PREFIX}message AS r WHERE r.state = {READY} AND r.queue = q
            )
        )
    FROM usual AS u LEFT JOIN added AS a ON true"""


def _append(now: str, *, told: bool) -> str:
    """Return the statement for one message that is ready at once, and relies on one table entry.

    It stores nothing and answers nothing if the entry has another version, or the id is there
    already. Else it says whether the queue held nothing before, or sends a hint instead.
    """
    return f"""
    WITH kept AS MATERIALIZED (
        SELECT FROM {PREFIX}entry
        WHERE name = %(name)s AND version = %(version)s FOR KEY SHARE
    )
    INSERT INTO {PREFIX}message (
        queue, id, priority, state, reason, max_deliveries, available_at, expires_at,
        properties, body
    )
    SELECT %(queue)s, %(id)s, %(priority)s, {READY}, 0, %(max_deliveries)s,
        {now}, {now} + %(ttl)s::bigint, %(properties)b::bytea, %(body)b::bytea
    FROM kept
    ON CONFLICT (queue, id) DO NOTHING
    RETURNING {"pg_notify(%(channel)s, '') IS NULL" if told else _EMPTY}"""


_EMPTY: Final = f"""
    NOT EXISTS (SELECT FROM {PREFIX}message AS r WHERE r.state = {READY} AND r.queue = %(queue)s)"""

_SETTLED: Final = f"""
    gone AS (
        DELETE FROM {PREFIX}message AS m
        USING unnest(%(seqs)s::bigint[], %(fences)s::bigint[]) AS t (seq, fence), owner
        WHERE m.seq = t.seq AND m.fence = t.fence RETURNING m.seq, m.fence
    )"""
_OWNER: Final = f"""
    owner AS MATERIALIZED (
        SELECT number FROM {PREFIX}session WHERE name = %(session)s FOR KEY SHARE
    )"""


def _noted(*, settles: bool) -> str:
    return f"""
    noted AS (
        INSERT INTO {PREFIX}request (session, slot, request, fence, stale)
        SELECT number, %(slot)s::bigint, %(request)s::text, %(fence)s::bigint, '' FROM owner
        {"" if settles else "WHERE EXISTS (SELECT FROM taken)"}
        ON CONFLICT (session, slot) DO UPDATE
        SET request = excluded.request, fence = excluded.fence, stale = excluded.stale
    )"""


_GONE_IF_NOT_ALL: Final = """
    CASE WHEN (SELECT count(*) FROM gone) < %(settled)s
        THEN ARRAY(SELECT ARRAY[seq, fence] FROM gone) END"""
_TAKEN: Final = """
    m.seq, m.id, m.body, m.properties, m.attempts, m.priority, m.crashes, m.queue"""


def _settle() -> str:
    return f"""
    WITH owner AS (SELECT), {_SETTLED} SELECT {_GONE_IF_NOT_ALL}"""


def _settling(*, settles: bool) -> tuple[str, str]:
    """Return the part of a claim that settles, and the columns with what was settled and how."""
    return (f"{_SETTLED},", f"{_GONE_IF_NOT_ALL}, NULL") if settles else ("", f"NULL, {_LAZY}")


def _take(now: str, *, settles: bool) -> str:
    """Return the statement that takes from one queue, and settles before.

    It takes nothing, and says so, if there are messages whose delay has ended, or that crashed.
    """
    settled, gone = _settling(settles=settles)
    return f"""
    WITH {_OWNER}, {settled} next AS MATERIALIZED (
        SELECT (
            SELECT available_at FROM {PREFIX}message
            WHERE state = {DELAYED} AND queue = %(queue)s ORDER BY available_at LIMIT 1
        ) - {now} AS due_in
    ), best AS MATERIALIZED (
        SELECT seq, crashes FROM {PREFIX}message
        WHERE state = {READY} AND queue = %(queue)s
            AND (expires_at IS NULL OR expires_at > {now})
            AND EXISTS (SELECT FROM owner) AND coalesce((SELECT due_in FROM next), 1) > 0
        ORDER BY priority DESC, seq LIMIT %(room)s FOR UPDATE SKIP LOCKED
    ), odd AS MATERIALIZED (
        SELECT EXISTS (SELECT FROM best WHERE crashes >= {ALONE}) AS odd
    ), taken AS (
        UPDATE {PREFIX}message AS m SET state = {HELD}, attempts = m.attempts + 1,
            session = (SELECT number FROM owner), fence = %(fence)s
        FROM best WHERE m.seq = best.seq AND NOT (SELECT odd FROM odd)
        RETURNING {_TAKEN}
    ), {_noted(settles=settles)}
    SELECT (SELECT number FROM owner), (SELECT due_in FROM next), (SELECT odd FROM odd),
        {gone}, t.*
    FROM (SELECT) AS h LEFT JOIN taken AS t ON true"""


def _take_many(now: str, *, settles: bool) -> str:
    """Return the statement that takes from several queues, and leaves others beside who crashed.

    Unless it is not ``patient`` it takes nothing if there are messages whose delay has ended.
    """
    settled, gone = _settling(settles=settles)
    return f"""
    WITH {_OWNER}, {settled} wanted AS MATERIALIZED (
        SELECT queue, room
        FROM unnest(%(queues)s::text[], %(rooms)s::integer[]) AS w (queue, room)
    ), next AS MATERIALIZED (
        SELECT min(d.available_at) - {now} AS due_in FROM wanted AS w, LATERAL (
            SELECT available_at FROM {PREFIX}message AS m
            WHERE m.state = {DELAYED} AND m.queue = w.queue ORDER BY available_at LIMIT 1
        ) AS d
    ), best AS MATERIALIZED (
        SELECT m.*, w.queue FROM wanted AS w, LATERAL (
            SELECT seq, crashes, priority FROM {PREFIX}message AS r
            WHERE r.state = {READY} AND r.queue = w.queue
                AND (r.expires_at IS NULL OR r.expires_at > {now})
            ORDER BY r.priority DESC, r.seq LIMIT w.room FOR UPDATE SKIP LOCKED
        ) AS m
        WHERE EXISTS (SELECT FROM owner)
            AND (coalesce((SELECT due_in FROM next), 1) > 0 OR NOT %(patient)s)
    ), placed AS MATERIALIZED (
        SELECT seq, queue, crashes, row_number()
            OVER (PARTITION BY queue ORDER BY priority DESC, seq) AS place
        FROM best
    ), cut AS MATERIALIZED (
        SELECT queue, min(place) AS place FROM placed WHERE crashes >= {ALONE} GROUP BY queue
    ), taken AS (
        UPDATE {PREFIX}message AS m SET state = {HELD}, attempts = m.attempts + 1,
            session = (SELECT number FROM owner), fence = %(fence)s
        FROM placed AS p
        WHERE m.seq = p.seq AND NOT EXISTS (
            SELECT FROM cut WHERE cut.queue = p.queue AND greatest(cut.place, 2) <= p.place
        )
        RETURNING {_TAKEN}
    ), {_noted(settles=settles)}
    SELECT (SELECT number FROM owner), (SELECT due_in FROM next), false, {gone}, t.*
    FROM (SELECT) AS h LEFT JOIN taken AS t ON true"""


def _promote(now: str) -> str:
    return f"""
    UPDATE {PREFIX}message AS m SET state = {READY} FROM (
        SELECT seq FROM {PREFIX}message
        WHERE state = {DELAYED} AND queue = ANY (%(queues)s::text[]) AND available_at <= {now}
        LIMIT {SWEEP} FOR UPDATE SKIP LOCKED
    ) AS d WHERE m.seq = d.seq"""


class Once:
    """The texts of the statements."""

    __slots__ = ("append", "promote", "put", "settle", "take", "take_many")

    def __init__(self, now: str) -> None:
        """``now`` is an SQL expression: the present in microseconds."""
        self.settle = _settle()
        self.append = {told: _append(now, told=told) for told in (False, True)}
        self.put = {
            (single, settles): _put(now, single=single, settles=settles)
            for single in (False, True)
            for settles in (False, True)
        }
        self.take = {settles: _take(now, settles=settles) for settles in (False, True)}
        self.take_many = {settles: _take_many(now, settles=settles) for settles in (False, True)}
        self.promote = _promote(now)


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


def settle_once(cursor: Cursor, once: Once, tokens: Sequence[Token]) -> list[Token]:
    """Forget claims; return the stale tokens."""
    cursor.execute(once.settle, split(tokens))
    return _stale(tokens, cursor.fetchone()[0])


def put_once(
    cursor: Cursor,
    once: Once,
    batch: Sequence[Envelope],
    versions: Mapping[str, int],
    settle: Sequence[Token],
    channels: Sequence[str],
    recent: Sequence[str],
) -> tuple[PutResult, Sequence[str]] | None:
    """Settle and append, and send hints to ``channels``.

    Returns also which of the queues ``recent`` held nothing before. None, and nothing happened, if
    a version or a token is stale: the steps say which.
    """
    if not settle and len(batch) == len(versions) == 1 and _is_plain(batch[0]):
        (entry,) = versions.items()
        cursor.execute(*_appending(once, batch[0], entry, channels))
        if (row := cursor.fetchone()) is not None:
            return PutResult(), recent if row[0] else ()
    values = _columns(batch)
    values["names"], values["versions"] = list(versions), numbers(versions.values())
    values["known"] = len(versions)
    values["channels"], values["recent"] = list(channels), list(recent)
    if settle:
        values |= split(settle)
    cursor.execute(once.put[len(batch) == 1, bool(settle)], values)
    rows = cursor.fetchall()
    if not rows[0][0]:
        return None
    if len(rows) == len(batch) and rows[0][1] is not None:
        return PutResult(), rows[0][4]
    added = {(row[1], row[2]) for row in rows}
    already = []
    for index, one in enumerate(batch):
        try:
            added.remove((one.queue, one.id))
        except KeyError:  # there before, or earlier in this batch
            already.append(index)
    return PutResult(already=already), rows[0][4]


def _is_plain(one: Envelope) -> bool:
    """Whether it is ready at once, for a while or for ever."""
    return one.delay <= 0 and (one.ttl is None or one.ttl > 0)


def _appending(
    once: Once, one: Envelope, entry: tuple[str, int], channels: Sequence[str]
) -> tuple[str, dict[str, object]]:
    """Return the statement that appends this envelope, and its parameters."""
    values: dict[str, object] = {
        "name": entry[0],
        "version": entry[1],
        "queue": one.queue,
        "id": one.id,
        "priority": one.priority,
        "max_deliveries": one.max_deliveries,
        "ttl": None if one.ttl is None else int(one.ttl * 1_000_000),
        "properties": one.properties,
        "body": one.body,
    }
    if channels:
        (values["channel"],) = channels
    return once.append[bool(channels)], values


def _columns(batch: Sequence[Envelope]) -> dict[str, Any]:
    """Return the parameters that hold the envelopes: an array for each column, or the values."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for one in batch:
        delay, ttl = one.delay, one.ttl
        dead = ttl is not None and ttl <= 0
        columns["queue"].append(one.queue)
        columns["id"].append(one.id)
        columns["priority"].append(one.priority)
        columns["state"].append(DEAD if dead else DELAYED if delay > 0 else READY)
        columns["reason"].append(EXPIRED if dead else 0)
        columns["max_deliveries"].append(one.max_deliveries)
        columns["delay"].append(int(delay * 1_000_000) if delay > 0 else 0)
        columns["ttl"].append(None if ttl is None else int(ttl * 1_000_000))
        columns["properties"].append(one.properties)
        columns["body"].append(one.body)
    if len(batch) == 1:
        return {name: values[0] for name, values in columns.items()}
    return {n: numbers(v) if n in _NUMBERS else v for n, v in columns.items()}


def _stale(tokens: Sequence[Token], gone: list[list[int]] | None) -> list[Token]:
    """Return the tokens that were not settled; None stands for all of them were."""
    if gone is None:
        return []
    settled = {(seq, fence) for seq, fence in gone}
    return [token for token in dict.fromkeys(tokens) if token not in settled]


def take_once(cursor: Cursor, once: Once, taking: Taking) -> Taken:
    """Settle and take; see `Dialect.take_once`.

    When messages are found whose delay has ended, they are made ready, which changes nothing that
    anybody could see, and it takes once more.
    """
    good: Sequence[Token] = taking.settle
    bad: Sequence[Token] = ()
    if not are_tokens(good):
        good = [token for token in taking.settle if is_token(token)]
        bad = [token for token in taking.settle if not is_token(token)]
    wants = list(taking.wants)
    values = {
        **(split(good) if good else {}),
        "session": taking.session,
        "request": taking.request,
        "slot": taking.slot,
        "fence": taking.fence,
        "queues": wants,
        "rooms": numbers(taking.wants.values()),
        "patient": True,
    }
    odd = False
    if len(wants) == 1:
        (values["queue"],) = wants
        values["room"] = room = taking.wants[wants[0]]
        taken, odd = _run(cursor, once.take[bool(good)], values, good)
        taken = taken._replace(left=odd or taken.due_in <= 0 or len(taken.rows) >= room)
    else:
        taken, _ = _run(cursor, once.take_many[bool(good)], values, good)
    stale = [*taken.stale, *bad]
    try:
        if taken.due_in <= 0:
            cursor.execute(once.promote, {"queues": wants})
        if taken.due_in <= 0 or odd:
            again = {**values, "patient": False}
            taken, _ = _run(cursor, once.take_many[False], again, ())
    except Exception as error:
        if getattr(error, "sqlstate", None) not in COLLISIONS:
            raise
        # Nothing was taken, but what is settled would be stale if all were run again.
        taken = taken._replace(rows=(), due_in=0.0)
    return taken._replace(stale=stale)


def _run(
    cursor: Cursor, text: str, values: dict[str, Any], settle: Sequence[Token]
) -> tuple[Taken, bool]:
    cursor.execute(text, values)
    rows = cursor.fetchall()
    number, due_in, odd, gone, _, first = rows[0][:6]
    taken = () if first is None else [row[5:] for row in rows]
    seconds = math.inf if due_in is None else due_in / 1_000_000
    return Taken(number, _stale(settle, gone), taken, seconds), odd
