"""No step on MariaDB reads more rows than it needs, however many there are.

MariaDB chooses its plans by statistics that are of another moment, and reads a whole table where
one would not expect it (for a list of one pair, for one); this asks it how many rows it has read.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queue_core.transport import Change, Envelope, Limit, SessionOptions
from queue_core.transports.sql.mariadb import MariadbStores
from queue_core.transports.sql.mariadb_dialect import NOW, MariadbDialect
from queue_core.transports.sql.mariadb_once import Once
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse

MANY = 2000
FEW = 150  # rows; one step touches a dozen, some of them by several indexes

Reads = Callable[[Callable[[], object]], int]


def envelopes(queue: str, count: int, **values: Any) -> list[Envelope]:
    return [Envelope(queue, uuid.uuid4().hex, b"body", b"", **values) for _ in range(count)]


@pytest.fixture
def store(mysql_broker: str) -> Iterator[SqlStore]:
    """Ready, delayed, mortal and held messages, thousands of each, in two queues."""
    store = MariadbStores().open(parse(mysql_broker), SessionOptions())
    store.open_session("me", 60.0)
    store.open_session("other", 60.0)
    for queue in ("q", "r"):
        store.put(envelopes(queue, MANY), {})
        store.put(envelopes(queue, MANY, delay=600.0), {})
        store.put(envelopes(queue, MANY, delay=0.0, ttl=600.0), {})
        store.claim("other", f"take {queue}", {queue: MANY}, 0.0)
    for number in range(MANY // 10):
        store.key_set(f"key {number}", b"value", ttl=600.0)
    yield store
    store.close()


@pytest.fixture
def reads(store: SqlStore) -> Reads:
    """Count the rows that a call has the server read."""

    def total() -> int:
        cursor = store._dialect.cursor()
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler\\_read%'")
        return sum(int(value) for _, value in cursor.fetchall())

    def count(call: Callable[[], object]) -> int:
        own = -total() + total()
        before = total()
        call()
        return total() - before - own

    return count


def test_no_step_reads_more_than_it_needs(store: SqlStore, reads: Reads) -> None:
    requests = map(str, itertools.count())

    def claim(*queues: str, settle: Any = ()) -> list[Any]:
        wants = dict.fromkeys(queues, 1)
        claims = store.claim("me", next(requests), wants, 0.0, settle=settle).claims
        assert len(claims) == len(queues)
        return [claim.token for claim in claims]

    first, second, third = claim("q"), claim("q", "r"), claim("q")
    assert store.write_table([Change(str(i), 0, b"") for i in range(100)])
    entry = store.read_table(["7"])["7"]
    limits = {"small": Limit(5)}
    found = {
        "claim": reads(lambda: claim("q")),
        "claim of two queues": reads(lambda: claim("q", "r")),
        "claim and settle one": reads(lambda: claim("q", settle=first)),
        "claim and settle two": reads(lambda: claim("q", settle=second)),
        "claim of nothing": reads(lambda: store.claim("me", "-", {"empty": 9}, 0.0)),
        "put": reads(lambda: store.put([Envelope("q", "new", b"", b"")], {"7": entry.version})),
        "put again": reads(lambda: store.put([Envelope("q", "new", b"", b"")], {})),
        "put within a limit": reads(lambda: store.put(envelopes("small", 7), {}, limits=limits)),
        "settle": reads(lambda: store.put([], {}, settle=third)),
        "settle what is stale": reads(lambda: store.put([], {}, settle=third)),
        "release": reads(lambda: store.release(claim("q"))),
        "release later": reads(lambda: store.release(claim("q"), delay=60.0)),
        "heartbeat": reads(lambda: store.heartbeat(["me"])),
        "collect": reads(lambda: store.collect("me", 10)),
        "owned": reads(lambda: store.owned("me")),
        "read_table": reads(lambda: store.read_table(["7"])),
        "key_set": reads(lambda: store.key_set("key 1", b"other")),
        "key_increment": reads(lambda: store.key_increment("count")),
        "key_get": reads(lambda: store.key_get("key 1")),
        "end_session": reads(lambda: store.end_session("me")),
    }
    assert {step: rows for step, rows in found.items() if rows > FEW} == {}


@pytest.fixture
def collisions(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What the server undid because of somebody else's locks, which a store does once more."""
    found: list[Exception] = []
    look = MariadbDialect.collided

    def collided(dialect: MariadbDialect, error: Exception) -> bool:
        found.append(error)
        return look(dialect, error)

    monkeypatch.setattr(MariadbDialect, "collided", collided)
    return found


def test_the_steps_on_a_small_table_do_not_wait_for_rows_of_others(
    mysql_broker: str, collisions: list[Exception]
) -> None:
    """A table of few rows is read, and locked, as a whole if the planner may choose."""
    store = MariadbStores().open(parse(mysql_broker + "?timeout=2"), SessionOptions())
    stranger = MariadbStores().open(parse(mysql_broker), SessionOptions())
    store.open_session("me", 60.0)
    store.put(envelopes("other", 2), {})
    cursor = stranger._dialect.cursor()
    cursor.execute("START TRANSACTION")
    cursor.execute("SELECT seq FROM queue_core_message WHERE queue = 'other' FOR UPDATE")
    assert len(cursor.fetchall()) == 2
    looker = store._dialect.cursor()

    def take() -> list[Any]:
        store.put(envelopes("q", 10), {})
        looker.execute("ANALYZE TABLE queue_core_message")
        assert looker.fetchall()
        claims = store.claim("me", uuid.uuid4().hex, {"q": 10}, 0.0).claims
        assert len(claims) == 10
        return [claim.token for claim in claims]

    def settle_and_take(*tokens: Any) -> list[Any]:
        return list(store.claim("me", uuid.uuid4().hex, {"q": 1}, 0.0, settle=tokens).stale_tokens)

    stale = (1 << 40, 1 << 62)
    try:
        assert settle_and_take(*take()) == []
        assert settle_and_take(*take(), stale) == [stale]
        assert not store.put([], {}, settle=take()).stale_tokens
        store.put(envelopes("new", 1), {}, settle=take(), limits={"new": Limit(5)})
        store.release(take(), delay=0.001)
        time.sleep(0.002)
        assert len(store.claim("me", "due", {"q": 99}, 0.0).claims) == 10
        assert store.end_session("me")
    finally:
        stranger.close()
        store.close()
    assert collisions == []


@pytest.mark.parametrize("queues", [1, 2])
def test_who_skips_what_another_one_chose_keeps_no_lock_of_it(
    mysql_broker: str, queues: int
) -> None:
    """However they choose: else the one could not take what it chose before the other is done."""
    stores = [MariadbStores().open(parse(mysql_broker), SessionOptions()) for _ in range(2)]
    stores[0].put([*envelopes("q", 5), *envelopes("r", 5)], {})
    once = Once(NOW)
    wires = [store._dialect.cursor() for store in stores]
    for wire, several in zip(wires, (queues, 3 - queues), strict=True):
        wire.execute("SET innodb_lock_wait_timeout = 1")
        wire.execute("START TRANSACTION")
        wire.execute(once.choose(several), ["q", 5, "r", 5][: 2 * several])
        rows = wire.fetchall()
        assert len(rows) == (5 * several if wire is wires[0] else 5 * (several - 1))
    wires[0].execute("UPDATE queue_core_message SET state = 5 WHERE queue = 'q'")
    assert wires[0].rowcount == 5
    for store in stores:
        store.close()


def test_claimants_side_by_side_lock_nothing_that_another_one_needs(
    mysql_broker: str, collisions: list[Exception]
) -> None:
    stores = [MariadbStores().open(parse(mysql_broker), SessionOptions()) for _ in range(6)]
    for batch in range(12):
        stores[0].put(envelopes(f"q{batch % 2}", 100, max_deliveries=batch + 1), {})
    stores[0].put(envelopes("q0", 100, delay=0.1, ttl=60.0), {})
    taken: list[str] = []

    def consume(number: int) -> None:
        store, name, held = stores[number], f"s{number}", []
        store.open_session(name, 60.0)
        while len(taken) < 1300 and time.monotonic() < deadline:
            claimed = store.claim(name, str(uuid.uuid4()), {"q0": 5, "q1": 5}, 0.2, settle=held)
            held = [claim.token for claim in claimed.claims]
            taken.extend(claim.id for claim in claimed.claims)
        store.put([], {}, settle=held)

    deadline = time.monotonic() + 40.0
    threads = [threading.Thread(target=consume, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50.0)
    for store in stores:
        store.close()
    assert len(taken) == 1300
    assert collisions == []
