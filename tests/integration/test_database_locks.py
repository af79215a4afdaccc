"""A row that somebody's transaction keeps locked holds up nothing else.

A console that was left open, a program that was stopped between two statements: the key that it has
locked waits, or the session of which it has locked something, and nobody waits with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy

from queue_core.message import Token
from queue_core.transport import Envelope
from queue_core.transports.sql.store import SqlStore
from queue_core.transports.sql.tables import key, message, session
from tests.databases import Database, database_at, open_store


@pytest.fixture(params=["postgres_broker", "mysql_broker"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    with database_at(request.getfixturevalue(request.param)) as database:
        yield database


@pytest.fixture
def store(database: Database) -> Iterator[SqlStore]:
    """A handle that gives up soon what has to wait."""
    with contextlib.closing(open_store(f"{database.url}?timeout=1")) as store:
        for name in ("dying", "other"):
            store.open_session(name, 30.0)
        yield store


@contextlib.contextmanager
def kept(database: Database, row: sqlalchemy.ColumnElement[bool]) -> Iterator[None]:
    """Keep one row locked."""
    with database.engine.begin() as somebody:
        lock = sqlalchemy.select(sqlalchemy.literal(1)).where(row).with_for_update()
        assert len(somebody.execute(lock).all()) == 1
        yield


def _hold(store: SqlStore, *ids: str) -> Sequence[Token]:
    """Put messages, and have the dying session claim them."""
    store.put([Envelope("q", one, b"", b"") for one in ids], {})
    return [claim.token for claim in store.claim("dying", "r", {"q": len(ids)}, 0.0).claims]


def _ready(store: SqlStore) -> list[str]:
    return [claim.id for claim in store.claim("other", "r", {"q": 9}, 0.0).claims]


def test_a_dead_session_stays_whole_while_a_message_of_it_is_locked(
    database: Database, store: SqlStore
) -> None:
    """Its owner may be in the middle of an ack, and go on with the rest as long as it is there."""
    tokens = _hold(store, "a", "b", "c")
    beats = store.sessions()["dying"].beats
    with kept(database, message.c.seq == tokens[1][0]):
        assert not store.end_session("dying", beats)
        assert store.owned("dying") == tokens
        assert _ready(store) == []
    assert store.end_session("dying", beats)
    claims = store.claim("other", "r2", {"q": 9}, 0.0).claims
    assert [(claim.id, claim.attempts) for claim in claims] == [("a", 2), ("b", 2), ("c", 2)]
    assert list(store.sessions()) == ["other"]


def test_a_dead_session_whose_own_row_is_locked_goes_on_until_it_is_free(
    database: Database, store: SqlStore
) -> None:
    tokens = _hold(store, "a")
    beats = store.sessions()["dying"].beats
    with kept(database, session.c.name == "dying"):
        assert not store.end_session("dying", beats)
        assert store.owned("dying") == tokens
    assert store.end_session("dying", beats)
    assert _ready(store) == ["a"]


def test_an_old_key_that_is_locked_keeps_no_other_one(database: Database, store: SqlStore) -> None:
    for name in ("locked", "old"):
        store.key_set(name, b"", ttl=0.0)
    store.key_set("kept", b"")
    with kept(database, key.c.key == "locked"):
        store.collect("other", 1)
        assert _keys(database) == ["kept", "locked"]
        for _ in range(64):  # now and then a write looks after them, too
            store.key_set("kept", b"")
    store.collect("other", 1)
    assert _keys(database) == ["kept"]


def _keys(database: Database) -> list[str]:
    with database.engine.connect() as connection:
        return list(connection.scalars(sqlalchemy.select(key.c.key).order_by(key.c.key)))
