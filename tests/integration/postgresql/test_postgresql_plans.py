"""No step reads its way through a queue, whatever the statistics say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from queue_core.transport import Envelope
from queue_core.transports.sql.statements import Change, Statement
from queue_core.transports.sql.store import SqlStore

OpenStore = Callable[..., SqlStore]
WHOLE = {"sessions", "entries"}
"""What is asked for whole."""


@pytest.fixture
def store(postgres_broker: str, open_store: OpenStore) -> SqlStore:
    store = open_store(postgres_broker)
    store.open_session("s", 30.0)
    for queue in ("q", "r"):
        for start in range(0, 3000, 1000):
            batch = [Envelope(queue, f"{n}", b"b", b"p") for n in range(start, start + 1000)]
            store.put(batch, {})
    return store


def texts(store: SqlStore) -> Iterator[tuple[str, str]]:
    for name, value in vars(store._statements).items():
        if isinstance(value, Change):
            value = value.read or value.apply
        if isinstance(value, Statement):
            yield name, value.text
        elif isinstance(value, str):
            yield name, value
    once = store._dialect._once
    for settles in (False, True):
        also = " and settle" if settles else ""
        yield f"take{also}", once.take[settles]
        yield f"take many{also}", once.take_many[settles]
    yield "settle once", once.settle
    yield "promote once", once.promote
    yield from ((f"put once {kind}", text) for kind, text in once.put.items())
    yield from ((f"append {kind}", text) for kind, text in once.append.items())


def plan(store: SqlStore, text: str) -> str:
    """Return the plan that serves all values, as the handle's session makes it."""
    places: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        name = match[1] or f"#{len(places)}"
        return places.setdefault(name, f"${len(places) + 1}")

    numbered = re.sub(r"%(?:\((\w+)\))?[sb]", number, text).replace("%%", "%")
    link = store._dialect._link
    link.execute(f"PREPARE looked_at AS {numbered}")
    nulls = f"({', '.join(['NULL'] * len(places))})" if places else ""
    rows = link.execute(f"EXPLAIN EXECUTE looked_at{nulls}").fetchall()
    link.execute("DEALLOCATE looked_at")
    return "\n".join(row[0] for row in rows)


def test_every_statement_uses_an_index(store: SqlStore) -> None:
    found = dict(texts(store))
    assert len(found) > 50
    for name, text in found.items():
        if re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)", text):
            steps = plan(store, text)
            scans = re.findall(r"Seq Scan on (queue_core_\w+)", steps)
            assert not scans or name in WHOLE, f"{name}:\n{steps}"


@pytest.mark.parametrize(
    "name",
    ["take", "take and settle", "take many", "claim", "look", "unclaimed", "lowest", "oldest"],
)
def test_the_order_of_a_queue_comes_from_its_index(store: SqlStore, name: str) -> None:
    steps = plan(store, dict(texts(store))[name])
    ready = steps[: steps.index("queue_core_ready")].splitlines()[-3:]
    assert "queue_core_ready" in steps
    assert not any("Sort" in step for step in ready), steps


def test_a_claim_reads_a_few_pages_however_deep_the_queue_is(store: SqlStore) -> None:
    """Taking ten of three thousand, after half of them were taken and settled."""
    claims = store.claim("s", "first", {"q": 1500}, 0.0).claims
    store.put([], {}, settle=[claim.token for claim in claims])
    link = store._dialect._link
    link.execute("VACUUM queue_core_message")
    before = _fetched(store)
    assert len(store.claim("s", "second", {"q": 10}, 0.0).claims) == 10
    assert _fetched(store) - before < 100


def _fetched(store: SqlStore) -> int:
    link = store._dialect._link
    link.execute("SELECT pg_stat_force_next_flush()")
    row = link.execute(
        "SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'queue_core_message' "
        "AND schemaname = current_schema()"
    ).fetchone()
    return int(row[0])
