"""What time does to many messages at once is done in bounded steps, and never seen half done."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_core.errors import ConnectionLost
from queue_core.testing.clocks import FakeClock
from queue_core.transport import Envelope, Limit, SessionOptions
from queue_core.transports.sql import open_store
from queue_core.transports.sql.database import Database
from queue_core.transports.sql.keyvalue import Keys
from queue_core.transports.sql.statements import SHRED, SWEEP
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse

MANY = 2 * SWEEP + 500


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Iterator[SqlStore]:
    url = parse(f"sqlite:///{path}?synchronous=normal")
    store = open_store(url, SessionOptions(clock=clock))
    store.open_session("s", 30.0)
    yield store
    store.close()


def _put_many(store: SqlStore, **fields: Any) -> None:
    store.put([Envelope("q", f"{number:06}", b"", b"", **fields) for number in range(MANY)], {})


def test_no_expired_message_is_handed_out_while_many_are_swept(
    store: SqlStore, clock: FakeClock
) -> None:
    _put_many(store, ttl=5.0)
    store.put([Envelope("q", "fresh", b"", b"")], {})
    clock.advance(5.0)
    assert store.inspect("q").ready == 1
    assert [claim.id for claim in store.claim("s", "r", {"q": 100}, 0.0).claims] == ["fresh"]
    found = 0
    while claims := store.collect("s", 5000):
        assert {claim.reason for claim in claims} == {"expired"}
        found += len(claims)
    assert found == MANY


def test_many_that_become_due_together_all_come(store: SqlStore, clock: FakeClock) -> None:
    _put_many(store, delay=5.0)
    assert (store.inspect("q").ready, store.inspect("q").delayed) == (0, MANY)
    clock.advance(5.0)
    assert (store.inspect("q").ready, store.inspect("q").delayed) == (MANY, 0)
    found: list[str] = []
    settle: list[Any] = []
    while claims := store.claim("s", f"r{len(found)}", {"q": 2000}, 0.0, settle=settle).claims:
        settle = [claim.token for claim in claims]
        found += [claim.id for claim in claims]
    assert found == sorted(found)
    assert len(found) == MANY


def test_what_is_beyond_a_limit_dies_in_steps_that_let_others_in(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_many(store)
    dead, commit = [0], store._dialect.commit

    def count(cursor: Any) -> None:
        cursor.execute("SELECT count(*) FROM queue_core_message WHERE state = 4")
        dead.append(cursor.fetchone()[0])
        commit(cursor)

    monkeypatch.setattr(store._dialect, "commit", count)
    store.put([Envelope("q", "last", b"", b"")], {}, limits={"q": Limit(3)})
    assert dead[-1] == MANY - 2
    assert max(after - before for before, after in itertools.pairwise(dead)) <= SHRED


def test_a_surplus_that_is_too_much_for_one_put_is_left_to_the_next(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is stored, whatever becomes of what is beyond the limit."""
    _put_many(store)
    write, puts = store._database.write, 0

    def fail(work: Any, **options: Any) -> Any:
        if puts == 1 and getattr(work, "__name__", "") == "trim":
            raise ConnectionLost("gone")
        return write(work, **options)

    monkeypatch.setattr(Database, "write", lambda self, work, **options: fail(work, **options))
    puts = 1
    result = store.put([Envelope("q", "stored", b"", b"")], {}, limits={"q": Limit(3)})
    assert not result.already
    assert store.inspect("q").ready == MANY + 1 - SHRED
    puts = 2
    store.put([Envelope("q", "last", b"", b"")], {}, limits={"q": Limit(3)})
    assert [c.id for c in store.claim("s", "r", {"q": 9}, 0.0).claims][1:] == ["stored", "last"]


def test_a_limit_that_was_lowered_holds_after_the_next_put(store: SqlStore) -> None:
    _put_many(store)
    store.put([Envelope("q", "last", b"", b"")], {}, limits={"q": Limit(3)})
    assert [c.id for c in store.claim("s", "r", {"q": 9}, 0.0).claims] == [
        f"{MANY - 2:06}",
        f"{MANY - 1:06}",
        "last",
    ]
    assert {claim.reason for claim in store.collect("s", 100)} == {"maxlen"}


def test_expired_keys_do_not_stay(store: SqlStore, clock: FakeClock) -> None:
    for number in range(20):
        store.key_set(f"key-{number}", b"", ttl=1.0)
    store.key_set("kept", b"")
    clock.advance(1.0)
    assert store.key_get("key-3") is None
    store.collect("s", 1)
    rows = store._dialect.cursor()
    rows.execute("SELECT key FROM queue_core_key")
    assert rows.fetchall() == [("kept",)]


def test_notes_of_claims_do_not_pile_up(store: SqlStore) -> None:
    for number in range(50):
        store.put([Envelope("q", "a", b"", b"")], {})
        (claim,) = store.claim("s", f"r{number}", {"q": 1}, 0.0).claims
        store.put([], {}, settle=[claim.token])
    cursor = store._dialect.cursor()
    cursor.execute("SELECT count(*) FROM queue_core_request")
    assert cursor.fetchone()[0] <= 16
    store.end_session("s")
    cursor.execute("SELECT count(*) FROM queue_core_request")
    assert cursor.fetchone() == (0,)


def test_a_death_for_a_reason_of_a_newer_version_hides_no_other(
    store: SqlStore, path: Path
) -> None:
    store.put([Envelope("q", name, b"", b"", ttl=0.0) for name in ("new", "old")], {})
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute("UPDATE queue_core_message SET reason = 99 WHERE id = 'new'")
        newer.commit()
    found = {dead.id: dead.reason for dead in store.collect("s", 9)}
    assert found == {"new": "unknown", "old": "expired"}


def test_old_keys_that_cannot_be_removed_hold_up_no_dead_letter(
    store: SqlStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's transaction may keep a row of them locked."""

    def fail(keys: Keys) -> None:
        raise ConnectionLost("the row stayed locked")

    monkeypatch.setattr(Keys, "purge", fail)
    store.key_set("k", b"v", ttl=1.0)
    clock.advance(2.0)
    store.put([Envelope("q", "dead", b"", b"", ttl=0.0)], {})
    assert [dead.id for dead in store.collect("s", 9)] == ["dead"]
    assert not store.collect("s", 9)
