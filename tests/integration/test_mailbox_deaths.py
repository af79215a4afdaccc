"""Nodes and callers that are killed or frozen: nobody waits for the dead, and nothing is left."""

from __future__ import annotations

import time
import uuid

import pytest

from queue_core import Backoff, Connection, NotConfirmed, QueueNotFound, TransportError
from queue_core.mailbox import Mailbox
from queue_core.testing import FaultProxy, eventually
from queue_core.url import parse

LEASE = 3.0
GONE = 4 * LEASE + 5.0
"""Seconds after which nobody can take a dead process for living: its lease, the same again for
those who watch it, and room for a busy machine."""


@pytest.fixture
def namespace():
    return f"qc-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def nodes(broker, scripts, namespace):
    """Start nodes, each a process; return them by name when they serve."""

    def start(*names):
        started = {
            name: scripts("control.py", "node", broker.url, namespace, name) for name in names
        }
        for script in started.values():
            assert script.hear(60) == "ready"
        return started

    return start


@pytest.fixture
def box(broker, namespace):
    with Connection(broker.url, lease=LEASE) as connection, Mailbox(namespace, connection) as made:
        yield made


def test_two_of_five_killed_during_a_call_are_not_waited_for_beyond_it(box, nodes):
    started = nodes("a", "b", "c", "d", "e")
    eventually(lambda: len(box.nodes()) == 5)
    box.multi_call("ping", timeout=10)
    for name in ("d", "e"):
        started[name].kill()
    begun = time.monotonic()
    answers = box.multi_call("nap", {"seconds": 0.2}, timeout=1.0)
    assert time.monotonic() - begun < 1.25
    assert set(answers) == {"a", "b", "c"}
    assert answers.missing <= {"d", "e"}


def test_a_fresh_process_does_not_wait_for_a_node_that_was_frozen_for_a_lease(
    broker, box, nodes, namespace
):
    started = nodes("a", "b")
    eventually(lambda: len(box.nodes()) == 2)
    started["b"].pause()
    try:
        eventually(lambda: set(box.nodes()) == {"a"}, GONE)
        with Connection(broker.url) as connection, Mailbox(namespace, connection) as fresh:
            begun = time.monotonic()
            assert set(fresh.multi_call("ping", timeout=30)) == {"a"}
            assert time.monotonic() - begun < 10
    finally:
        started["b"].resume()
    eventually(lambda: "b" in box.call(["b"], "ping", timeout=1), 60)


def test_a_node_that_was_away_does_not_come_back_to_a_name_that_is_anothers(box, nodes, scripts):
    old = nodes("a")["a"]
    old.pause()
    try:
        new = nodes("a")["a"]  # when the lease of the old one is over
    finally:
        old.resume()
    eventually(lambda: box.call(["a"], "whoami", timeout=2.0).get("a") == new.process.pid, 30)
    for _ in range(20):
        assert box.call(["a"], "whoami", timeout=10)["a"] == new.process.pid


def test_killed_callers_leave_nothing(broker, nodes, scripts, box, namespace):
    nodes("a")
    left = []
    for _ in range(5):
        script = scripts("control.py", "caller", broker.url, namespace)
        left.append(script.hear(30))
        script.kill()

    def is_gone(name):
        try:
            box._connection.inspect(name)
        except QueueNotFound:
            return True
        return False

    for name in left:
        eventually(lambda name=name: is_gone(name), GONE)


def test_a_node_that_was_killed_can_come_back_under_its_name(box, nodes):
    nodes("a")["a"].kill()
    nodes("a")
    assert box.call(["a"], "ping", timeout=10)["a"] == {"ok": "pong"}


@pytest.mark.parametrize("server", ["redis_broker", "amqp_url"])
def test_calls_while_connections_break_are_answered_or_end_in_time(
    request, scripts, namespace, server
):
    url = request.getfixturevalue(server)
    address = parse(url)
    node = scripts("control.py", "node", url, namespace, "a")
    assert node.hear(30) == "ready"
    with FaultProxy(address.host, address.port) as proxy:
        through = url.replace(f":{address.port}/", f":{proxy.port}/")
        backoff = Backoff(base=0.05, cap=0.2)
        with Connection(through, lease=LEASE, backoff=backoff) as connection:
            box = Mailbox(namespace, connection)
            answered = 0
            for number in range(20):
                if number % 4 == 1:
                    proxy.reset()
                begun = time.monotonic()
                try:
                    answered += "a" in box.call(["a"], "ping", timeout=1.0)
                except (TransportError, NotConfirmed):
                    pass  # the command could not be sent in time
                assert time.monotonic() - begun < 1.5
            assert answered >= 10
            assert box.call(["a"], "ping", timeout=10)["a"] == {"ok": "pong"}
            box.close()
