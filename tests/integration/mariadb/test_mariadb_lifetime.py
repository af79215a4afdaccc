"""Connections that end, servers that stand still or crash, locks, forks, and what wakes whom."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
import pytest

from queue_core import Connection, Queue
from queue_core.errors import ConnectionLost, StoreCorrupt
from queue_core.transport import Envelope
from queue_core.transports.sql import mariadb_dialect
from queue_core.transports.sql.mariadb_wire import Wire
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse
from tests.databases import ack_before_crashes, publish_through_crashes

OpenStore = Callable[..., SqlStore]


def thread_of(store: SqlStore) -> int:
    """Return the server's number of a handle's connection."""
    number: int = store._dialect._connection.thread_id()
    return number


@contextlib.contextmanager
def other(url: str) -> Any:
    """Connect as somebody else who uses the same database."""
    address = parse(url)
    connection = pymysql.connect(
        host=address.host,
        port=address.port or 3306,
        user=address.user,
        password=address.password or "",
        database=address.database,
    )
    with connection:
        yield connection.cursor()


def test_a_statement_that_was_cancelled_is_a_lost_answer_and_changes_nothing(
    mysql_broker: str, open_store: OpenStore
) -> None:
    store = open_store(mysql_broker)
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    token = store.claim("s", "r", {"q": 9}, 0.0).claims[0].token
    with other(mysql_broker) as cursor, other(mysql_broker) as killer:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM queue_core_message FOR UPDATE")
        killer_thread = threading.Timer(0.3, killer.execute, [f"KILL QUERY {thread_of(store)}"])
        killer_thread.start()
        with pytest.raises(ConnectionLost):
            store.put([], {}, settle=[token])
        killer_thread.join()
    assert store.owned("s") == [token]
    assert not store.put([], {}, settle=[token]).stale_tokens


def test_a_server_that_stands_still_is_given_up_after_the_timeout(
    own_server: Any, open_store: OpenStore
) -> None:
    store = open_store(f"{own_server.url}?timeout=2")
    store.open_session("s", 30.0)
    own_server.pause()
    try:
        started = time.monotonic()
        with pytest.raises(ConnectionLost):
            store.heartbeat(["s"])
        assert 1.9 < time.monotonic() - started < 8.0
    finally:
        own_server.resume()
    assert store.heartbeat(["s"]) == []


def test_a_lock_that_somebody_keeps_ends_before_the_timeout(
    mysql_broker: str, open_store: OpenStore
) -> None:
    store = open_store(f"{mysql_broker}?timeout=2")
    store.open_session("s", 30.0)
    with other(mysql_broker) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM queue_core_session FOR UPDATE")
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="Lock wait timeout"):
            store.heartbeat(["s"])
        assert time.monotonic() - started < 12.0
    assert store.heartbeat(["s"]) == []


@pytest.mark.timeout(120)
def test_nothing_that_was_confirmed_is_lost_when_the_server_crashes(own_server: Any) -> None:
    publish_through_crashes(own_server.url, own_server.restart)


@pytest.mark.timeout(120)
def test_nothing_that_was_acked_for_certain_comes_again_when_the_server_crashes(
    own_server: Any,
) -> None:
    ack_before_crashes(own_server.url, own_server.restart)


def test_a_table_that_was_dropped_while_it_was_in_use_is_named(
    mysql_broker: str, open_store: OpenStore
) -> None:
    store = open_store(mysql_broker)
    with other(mysql_broker) as cursor:
        cursor.execute("DROP TABLE queue_core_key")
    with pytest.raises(StoreCorrupt, match="queue_core_key"):
        store.key_set("k", b"v")


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many statements each packet of this process has."""
    sizes: list[int] = []
    answers = Wire.answers

    def noted(wire: Wire) -> Any:
        sizes.append(len(wire._held))
        return answers(wire)

    monkeypatch.setattr(Wire, "answers", noted)
    return sizes


def test_a_put_and_a_claim_cost_two_packets_each(
    mysql_broker: str, open_store: OpenStore, packets: list[int]
) -> None:
    store = open_store(mysql_broker)
    store.open_session("s", 30.0)
    store.put([Envelope("q", "one", b"", b""), Envelope("q", "two", b"", b"")], {})
    packets.clear()
    store.put([Envelope("q", str(number), b"", b"") for number in range(100)], {})
    assert len(packets) == 2
    first = store.claim("s", "r1", {"q": 50}, 0.0).claims
    packets.clear()
    store.claim("s", "r2", {"q": 50}, 0.0, settle=[claim.token for claim in first])
    assert len(packets) == 2


def test_an_idle_consumer_asks_the_server_less_than_three_times_a_second(
    mysql_broker: str, packets: list[int]
) -> None:
    with Connection(mysql_broker) as connection:
        queue = connection.declare(Queue("idle"))
        with connection.consumer(queue, prefetch=10) as consumer:
            assert consumer.receive(timeout=4.0) is None
            packets.clear()
            begun, used = time.monotonic(), time.process_time()
            assert consumer.receive(timeout=6.0) is None
            assert len(packets) < 3 * (time.monotonic() - begun), packets
            assert time.process_time() - used < 0.01 * 6


def delay_of_a_put(waiting: SqlStore, putting: SqlStore) -> float:
    """Return how long after a put a claim that has waited for long comes back."""
    waiting.open_session("s", 30.0)
    put_at: list[float] = []

    def put() -> None:
        put_at.append(time.monotonic())
        putting.put([Envelope("q", "a", b"", b"")], {})

    for number in range(4):  # until it looks seldom
        assert not waiting.claim("s", f"r{number}", {"q": 1}, 1.0).claims
    timer = threading.Timer(0.4, put)
    timer.start()
    assert waiting.claim("s", "r", {"q": 1}, 20.0).claims
    timer.join()
    return time.monotonic() - put_at[0]


def test_a_hint_ends_the_wait_of_a_consumer_on_the_same_machine(
    mysql_broker: str, open_store: OpenStore
) -> None:
    url = f"{mysql_broker}?poll=60"
    assert delay_of_a_put(open_store(url), open_store(url)) < 5.0


def test_without_hints_a_consumer_looks_as_often_as_its_url_says(
    mysql_broker: str,
    open_store: OpenStore,
    packets: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on another machine."""
    monkeypatch.setattr(mariadb_dialect, "_directory", lambda identity: os.devnull)
    url = f"{mysql_broker}?poll=0.2"
    waiting = open_store(url)
    assert delay_of_a_put(waiting, open_store(url)) < 5.0
    assert not waiting.claim("s", "idle", {"q": 1}, 2.0).claims  # until it looks seldom
    packets.clear()
    assert not waiting.claim("s", "idle too", {"q": 1}, 3.0).claims
    assert len(packets) >= 6, "every two seconds, if the URL says nothing"


def test_a_place_for_hints_that_somebody_else_made_is_not_used(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert mariadb_dialect._directory("a").startswith(str(tmp_path))
    assert mariadb_dialect._directory("a") == mariadb_dialect._directory("a")
    assert mariadb_dialect._directory("a") != mariadb_dialect._directory("b")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "links"
    link.mkdir()
    (link / f"queue_core-{os.getuid()}").symlink_to(elsewhere)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(link))
    assert mariadb_dialect._directory("a") == os.devnull
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert mariadb_dialect._directory("a") == os.devnull
