"""A server that stops to answer in the middle of a call: each call ends by its own timeout.

The connections are warm, and the timeout of the connection (10 s) is much longer than that of the
calls.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Iterator

import pytest

from queue_core import (
    Backoff,
    Connection,
    ConnectionLost,
    NotConfirmed,
    Queue,
    TransportError,
)
from queue_core.mailbox import Mailbox
from queue_core.testing import FaultProxy, eventually
from queue_core.url import parse

LATE = 0.25
"""Seconds after its timeout at which a call ends at the latest."""
PATIENCE = 1.0
"""Seconds that a receive gives a broker that says nothing, as its docstring says."""

PORTS = {"postgresql": 5432, "mysql": 3306, "redis": 6379}


@pytest.fixture(params=["redis_broker", "postgres_broker", "mysql_broker"])
def broker(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def stalling(broker: str) -> Iterator[tuple[FaultProxy, Connection]]:
    """A connection through a proxy."""
    address = parse(broker)
    with FaultProxy(address.host, address.port or PORTS[address.scheme]) as proxy:
        through = broker.replace(f":{address.port}/", f":{proxy.port}/")
        with Connection(through, timeout=10.0, backoff=Backoff(0.05, 0.2)) as connection:
            yield proxy, connection
            proxy.heal()


@pytest.fixture
def namespace() -> str:
    return f"qc-test-{uuid.uuid4().hex[:8]}"


def test_a_publish_ends_by_its_timeout_and_says_that_nobody_knows(stalling, machine):
    proxy, connection = stalling
    connection.declare(Queue("q"))
    producer = connection.producer()
    producer.publish("before", "q")
    proxy.stall()
    for _ in range(2):  # the second one needs a new connection
        begun = time.monotonic()
        with machine.within(0.5, LATE), pytest.raises((NotConfirmed, ConnectionLost)):
            producer.publish("during", "q", timeout=0.5)
        assert time.monotonic() - begun > 0.4
    proxy.heal()
    producer.publish("after", "q", timeout=20.0)
    consumer, bodies = connection.consumer("q"), []
    eventually(lambda: bodies.append(consumer.receive(1.0).payload) or bodies[-1] == "after")
    assert bodies[0] == "before"


def test_a_receive_ends_soon_after_its_timeout_and_loses_nothing(stalling, machine):
    proxy, connection = stalling
    connection.declare(Queue("q"))
    consumer = connection.consumer("q")
    assert consumer.receive(0.1) is None
    proxy.stall()
    for _ in range(2):
        with machine.within(0.5 + PATIENCE, LATE):
            consumer.receive(0.5)
    proxy.heal()
    connection.producer().publish("later", "q", timeout=20.0)
    assert consumer.receive(20.0).payload == "later"


def test_a_key_is_read_within_its_timeout_or_not_at_all(stalling, machine):
    proxy, connection = stalling
    keys = connection.key_value(timeout=0.5)
    keys.key_set("k", b"1")
    proxy.stall()
    for call in (
        lambda: keys.key_get("k"),
        lambda: keys.key_set("k", b"2"),
        lambda: keys.key_set("k", b"3", version=1),
        lambda: keys.key_increment("n"),
        lambda: keys.key_delete("k"),
    ):
        with machine.within(0.5, LATE), pytest.raises(ConnectionLost):
            call()
    proxy.heal()
    assert connection.key_value(timeout=20.0).key_get("k").value in (b"1", b"2", b"3")


@pytest.mark.parametrize("change", ["set", "delete", "increment"])
def test_a_change_of_a_key_that_was_given_up_does_not_come_after_a_later_one(
    stalling, broker, change
):
    """It reaches the server all the same, as soon as the network is well again."""
    proxy, connection = stalling
    keys = connection.key_value(timeout=0.5)
    keys.key_set("k", b"1")
    changes = {
        "set": lambda: keys.key_set("k", b"2"),
        "delete": lambda: keys.key_delete("k"),
        "increment": lambda: keys.key_increment("k"),
    }
    proxy.stall()
    with pytest.raises(ConnectionLost):
        changes[change]()
    with Connection(broker) as other:
        other.key_value().key_set("k", b"3")
        proxy.heal()
        assert connection.key_value(timeout=20.0).key_get("k").value == b"3"


def test_a_call_to_nodes_ends_by_its_deadline_when_the_store_stalls_under_it(
    stalling, namespace, machine
):
    proxy, connection = stalling
    box = Mailbox(namespace, connection)
    with box, box.node("a") as node:
        node.handler(lambda state: state, name="pong", kind="inspect")
        calls = (
            lambda timeout: box.multi_call("pong", timeout=timeout),
            lambda timeout: box.call(["a"], "pong", timeout=timeout),
        )
        assert [set(call(20.0)) for call in calls] == [{"a"}, {"a"}]
        proxy.stall()
        for ask in (*calls, *calls):
            begun = time.monotonic()
            with machine.within(0.5, LATE), contextlib.suppress(TransportError, NotConfirmed):
                assert not ask(0.5)
            assert time.monotonic() - begun > 0.4
        proxy.heal()
        eventually(lambda: set(box.call(["a"], "pong", timeout=2.0)) == {"a"}, 30)


def test_a_writer_that_keeps_an_sqlite_file_locked_holds_nobody_up_for_longer(tmp_path, machine):
    path = tmp_path / "queue.db"
    with Connection(f"sqlite:///{path}", timeout=10.0) as connection:
        connection.declare(Queue("q"))
        producer = connection.producer()
        producer.publish("before", "q")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            with machine.within(0.3, LATE), pytest.raises((NotConfirmed, ConnectionLost)):
                producer.publish("during", "q", timeout=0.3)
            assert time.monotonic() - begun > 0.2
            other.execute("ROLLBACK")
        producer.publish("after", "q")
        assert connection.inspect("q").ready == 2
