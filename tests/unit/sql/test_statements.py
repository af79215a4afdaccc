"""Nothing that is asked per message or per claim reads its way through a queue."""

from __future__ import annotations

from typing import Any

import pytest

from queue_core.transport import Envelope
from queue_core.transports.sql.statements import Change, Statement, Statements

SCANS = {
    "collect": "SCAN queue_core_message USING INDEX queue_core_dead",
    "duties": "SCAN queue_core_message USING INDEX queue_core_dead",
    "inspect": "SCAN queue_core_message USING COVERING INDEX queue_core_held",
    "sessions": "SCAN queue_core_session",
    "entries": "SCAN queue_core_entry",
}
"""What may read a whole index or table: all that is dead or held, or what is asked for whole."""

SORTS = {"taken", "owned", "oldest_delayed"}
"""What may sort: what one claim or session holds, and the delayed messages of a full queue."""


def _texts(statements: Statements) -> dict[str, str]:
    texts = {}
    for name, value in vars(statements).items():
        if isinstance(value, Change):
            value = value.read or value.apply
        if isinstance(value, Statement):
            texts[name] = value.text
        elif isinstance(value, str):
            texts[name] = value
    return texts


def test_every_statement_uses_an_index(open_handle: Any) -> None:
    store = open_handle()
    raw = store._dialect._raw
    texts = _texts(store._statements)
    assert len(texts) > 40
    for name, text in texts.items():
        plan = raw.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?")).fetchall()
        steps = [row[3] for row in plan]
        scans = [s for s in steps if s.startswith("SCAN queue_core") and s != SCANS.get(name)]
        assert not scans, f"{name} scans: {scans}"
        if name not in SORTS:
            assert not [s for s in steps if "TEMP B-TREE" in s], f"{name} sorts: {steps}"


@pytest.mark.parametrize("name", ["claim", "look", "unclaimed", "lowest", "oldest"])
def test_the_order_of_a_queue_comes_from_its_index(open_handle: Any, name: str) -> None:
    store = open_handle()
    text = _texts(store._statements)[name]
    plan = store._dialect._raw.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))
    assert any("queue_core_ready (queue=? AND state=?" in row[3] for row in plan)


@pytest.mark.parametrize("size", [600, 50_000])
def test_claiming_does_not_write_the_bodies_again(open_handle: Any, path: Any, size: int) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store._dialect._raw.execute("PRAGMA wal_autocheckpoint = 0")
    log = path.with_name("queue.db-wal")
    store.put([Envelope("q", f"{i:03}", bytes(size), b"p") for i in range(100)], {})
    before = log.stat().st_size
    claims = store.claim("s", "r", {"q": 100}, 0.0).claims
    claimed = log.stat().st_size
    store.put([], {}, settle=[claim.token for claim in claims])
    assert len(claims) == 100
    assert claimed - before < 300_000
    assert log.stat().st_size - claimed < 300_000
