"""Connections that end, servers that stand still or crash, and forks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy

from queue_core.errors import ConnectionLost
from queue_core.testing import eventually
from queue_core.transport import Envelope
from queue_core.transports.sql import postgresql_server
from queue_core.transports.sql.store import SqlStore
from tests.databases import ack_before_crashes, publish_through_crashes
from tests.freezing import freeze

OpenStore = Callable[..., SqlStore]


def backend_of(store: SqlStore) -> int:
    pid: int = store._dialect._link.pgconn.backend_pid
    return pid


def test_a_claim_that_waits_notices_the_end_of_its_connection(
    postgres_broker: str, postgres_admin: sqlalchemy.Connection, open_store: OpenStore
) -> None:
    store = open_store(postgres_broker)
    store.open_session("s", 30.0)
    pid = backend_of(store)
    end = f"SELECT pg_terminate_backend({pid}, 5000)"
    timer = threading.Timer(0.3, postgres_admin.exec_driver_sql, [end])
    timer.start()
    started = time.monotonic()
    with pytest.raises(ConnectionLost):
        store.claim("s", "r1", {"q": 1}, 20.0)
    assert time.monotonic() - started < 15.0
    timer.join()
    assert not store.claim("s", "r2", {"q": 1}, 0.0).claims


def test_a_server_that_stands_still_is_given_up_after_the_timeout(
    own_server: str, open_store: OpenStore
) -> None:
    store = open_store(f"{own_server}?timeout=2")
    store.open_session("s", 30.0)
    pid = backend_of(store)
    freeze(pid)
    try:
        started = time.monotonic()
        with pytest.raises(ConnectionLost):
            store.heartbeat(["s"])
        assert 1.9 < time.monotonic() - started < 8.0
        assert store.heartbeat(["s"]) == []  # through another connection
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_lock_that_somebody_keeps_ends_with_the_statement_timeout(
    postgres_broker: str, postgres_admin: sqlalchemy.Connection, open_store: OpenStore
) -> None:
    store = open_store(postgres_broker)
    store.open_session("s", 30.0)
    user = sqlalchemy.make_url(postgres_broker).username
    postgres_admin.exec_driver_sql(f"ALTER ROLE \"{user}\" SET statement_timeout = '1s'")
    impatient = open_store(postgres_broker)
    with psycopg.connect(postgres_broker) as other:
        other.execute("SELECT FROM queue_core_session FOR UPDATE")
        with pytest.raises(ConnectionLost, match="statement_timeout"):
            impatient.heartbeat(["s"])
    assert impatient.heartbeat(["s"]) == []


def test_what_was_given_up_does_not_go_on_in_the_server(
    postgres_broker: str, postgres_admin: sqlalchemy.Connection, open_store: OpenStore
) -> None:
    store = open_store(postgres_broker)
    store.open_session("s", 30.0)
    pid = backend_of(store)
    with psycopg.connect(postgres_broker) as other:
        other.execute("SELECT FROM queue_core_session FOR UPDATE")
        store.expect_by(time.monotonic() + 0.3)
        with pytest.raises(ConnectionLost):
            store.heartbeat(["s"])
        there = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        eventually(lambda: postgres_admin.exec_driver_sql(there).scalar() == 0)


def test_a_repeated_claim_waits_for_the_first_one_which_is_still_at_work(
    own_server: str, open_store: OpenStore
) -> None:
    """The client gave up while the server's process stood still, and that goes on later."""
    slow, quick = open_store(f"{own_server}?timeout=2"), open_store(own_server)
    slow.open_session("holder", 30.0)
    slow.put([Envelope("slow", "a", b"", b"")], {})
    pid = backend_of(slow)
    with psycopg.connect(own_server) as blocker:
        blocker.execute("LOCK TABLE queue_core_request")
        with pytest.raises(ConnectionLost):
            slow.claim("holder", "once", {"slow": 9}, 0.0)
        freeze(pid)
    threading.Timer(0.5, os.kill, [pid, signal.SIGCONT]).start()
    again = quick.claim("holder", "once", {"slow": 9}, 0.0, repeat=True)
    assert [claim.token for claim in again.claims] == list(quick.owned("holder"))
    assert len(again.claims) == 1
    assert quick.end_session("holder")


def test_a_session_behind_a_pooler_keeps_nothing_in_the_server(
    postgres_broker: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler gives its clients process ids of its own, which is how it is told."""
    assert postgresql_server.is_direct(open_store(postgres_broker)._dialect._link, 1) is False
    monkeypatch.setattr(postgresql_server, "is_direct", lambda *_: False)
    store, other = open_store(postgres_broker), open_store(postgres_broker)
    store.open_session("s", 30.0)
    put = threading.Timer(0.3, other.put, [[Envelope("q", "a", b"", b"")], {}])
    put.start()
    started = time.monotonic()
    assert store.claim("s", "r", {"q": 1}, 20.0).claims
    assert time.monotonic() - started < 10.0
    put.join()
    rows = store._dialect.cursor()
    for question in (
        "SELECT count(*) FROM pg_prepared_statements",
        "SELECT count(*) FROM pg_listening_channels()",
        "SELECT count(*) FROM pg_settings WHERE name = 'enable_seqscan' AND setting = 'off'",
    ):
        rows.execute(question)
        assert rows.fetchone() == (0,)


def crash(server: str) -> None:
    """SIGKILL one of its processes: PostgreSQL ends them all and recovers from its log."""
    with psycopg.connect(server) as victim:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.Error):
            victim.execute("SELECT 1")
        victim.close()


@pytest.mark.timeout(120)
def test_nothing_that_was_confirmed_is_lost_when_the_server_crashes(own_server: str) -> None:
    publish_through_crashes(own_server, lambda: crash(own_server))


@pytest.mark.timeout(120)
def test_nothing_that_was_acked_for_certain_comes_again_when_the_server_crashes(
    own_server: str,
) -> None:
    ack_before_crashes(own_server, lambda: crash(own_server))
