"""Nodes and callers that are killed or frozen: nobody waits for the dead, and nothing is left."""

from __future__ import annotations

import time
import uuid

import pytest
import redis
import sqlalchemy

from queue_core import Backoff, Connection, NotConfirmed, QueueNotFound, TransportError
from queue_core.mailbox import Mailbox
from queue_core.testing import FaultProxy, eventually
from queue_core.url import parse

LEASE = 3.0
GONE = 4 * LEASE + 5.0
"""Seconds after which nobody can take a dead process for living: its lease, the same again for
those who watch it, and room for a busy machine."""

LATE = 0.25
"""Seconds after its deadline at which a call ends at the latest."""


@pytest.fixture
def namespace():
    return f"qc-test-{uuid.uuid4().hex[:8]}"


def leftovers(url, part):
    """How many keys or rows of a broker have this in them; RabbitMQ keeps neither."""
    if url.startswith("redis"):
        prefix = parse(url).options["prefix"]
        with redis.Redis.from_url(url.partition("?")[0], decode_responses=True) as client:
            keys = list(client.scan_iter(f"{{{prefix}}}:*", count=1000))
            fields = [key for key in keys if client.type(key) == "hash"]
            return sum(part in key for key in keys) + sum(
                part in field for key in fields for field in client.hkeys(key)
            )
    if url.startswith("amqp"):
        return 0
    scheme, rest = url.split("://", 1)
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
    engine = sqlalchemy.create_engine(f"{driver[scheme]}://{rest}")
    with engine.connect() as connection:
        found = 0
        for table in sqlalchemy.inspect(engine).get_table_names():
            rows = connection.exec_driver_sql(f"SELECT * FROM {table}")
            found += sum(any(part in str(value) for value in row) for row in rows)
    engine.dispose()
    return found


@pytest.fixture
def nodes(broker, scripts, namespace):
    """Start nodes, each a process; return them by name when they serve."""

    def start(*names):
        started = {name: scripts("control.py", broker.url, namespace, name) for name in names}
        for script in started.values():
            assert script.hear(60) == "ready"
        return started

    return start


@pytest.fixture
def box(broker, namespace):
    with Connection(broker.url, lease=LEASE) as connection, Mailbox(namespace, connection) as made:
        yield made


def test_two_of_five_killed_during_a_call_are_not_waited_for_beyond_it(box, nodes, machine):
    started = nodes("a", "b", "c", "d", "e")
    eventually(lambda: len(box.nodes()) == 5, 30)
    box.multi_call("ping", timeout=10)
    for name in ("d", "e"):
        started[name].kill()
    with machine.within(1.5, LATE):
        answers = box.multi_call("nap", {"seconds": 0.2}, timeout=1.5)
    assert set(answers) == {"a", "b", "c"}
    assert answers.missing <= {"d", "e"}


def test_a_fresh_process_does_not_wait_for_a_node_that_was_frozen_for_a_lease(
    broker, box, nodes, namespace
):
    started = nodes("a", "b")
    eventually(lambda: len(box.nodes()) == 2, 30)
    started["b"].pause()
    try:
        # asked by its name, so that nobody notes for the fresh one that it is gone
        eventually(lambda: box.call(["b"], "ping", timeout=0.5).unknown == {"b"}, GONE)
        with Connection(broker.url) as connection, Mailbox(namespace, connection) as fresh:
            begun = time.monotonic()
            assert set(fresh.multi_call("ping", timeout=40)) == {"a"}
            assert time.monotonic() - begun < 20
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


@pytest.mark.timeout(180)
def test_reply_queues_of_killed_callers_leave_nothing(broker, nodes, scripts, namespace, machine):
    nodes("a")
    callers = scripts("killed_callers.py", broker.url, namespace, 30)
    queues = []
    while (line := callers.hear(60)) != "done":
        queues.append(line)
    assert len(set(queues)) == 300
    with Connection(broker.url) as connection:

        def is_gone(name):
            try:
                connection.inspect(name)
            except QueueNotFound:
                return True
            return False

        def all_are_gone():
            while queues and is_gone(queues[-1]):
                queues.pop()
            return not queues and leftovers(broker.url, ".reply.") == 0

        with machine.within(LEASE, 10.0):  # thirty sessions end, one after the other
            eventually(all_are_gone, 60)


def test_a_node_that_was_killed_can_come_back_under_its_name(box, nodes):
    nodes("a")["a"].kill()
    nodes("a")
    assert box.call(["a"], "ping", timeout=10)["a"] == {"ok": "pong"}


def test_a_node_that_stands_still_is_there_as_far_as_anybody_can_know(box, nodes):
    started = nodes("a", "b")
    eventually(lambda: set(box.nodes(timeout=5.0)) == {"a", "b"}, 30)
    started["a"].pause()
    try:
        assert set(box.nodes(timeout=0.5)) == {"a", "b"}
    finally:
        started["a"].resume()


# The others may have handed it over already, and then it is run; see the design notes.
@pytest.mark.parametrize("broker_url", ["sqlite", "postgres", "mysql"], indirect=True)
def test_a_command_that_waited_for_a_frozen_node_is_not_run_when_it_wakes(box, nodes, machine):
    node = nodes("a")["a"]

    def runs():
        return box.call(["a"], "runs", timeout=10)["a"]

    def runs_while_it_was_frozen():
        before = runs()
        time.sleep(0.2)  # it has acked that one, and waits for the next
        node.pause()
        try:
            with machine.within(0.5, LATE):
                assert box.call(["a"], "runs", timeout=0.5).missing == {"a"}
            time.sleep(0.2)  # past its lifetime, and well before the end of the node's lease
        finally:
            node.resume()
        eventually(lambda: "a" in box.call(["a"], "ping", timeout=1.0), 30)
        return runs() - before - 1

    # Frozen in the middle of a look at its queue, it may have been handed the command even so.
    eventually(lambda: runs_while_it_was_frozen() == 0)


@pytest.fixture(params=["redis_broker", "amqp_url", "postgres_broker", "mysql_broker"])
def proxied(request):
    """A proxy before a server, and the URL through it."""
    url = request.getfixturevalue(request.param)
    address = parse(url)
    ports = {"postgresql": 5432, "mysql": 3306, "redis": 6379, "amqp": 5672}
    with FaultProxy(address.host, address.port or ports[address.scheme]) as proxy:
        yield proxy, url.replace(f":{address.port}/", f":{proxy.port}/")


def direct(proxy, url):
    """The URL that goes to the server itself."""
    return url.replace(f":{proxy.port}/", f":{proxy._target[1]}/")


def test_calls_while_connections_break_are_answered_or_end_in_time(
    proxied, scripts, namespace, machine
):
    proxy, url = proxied
    node = scripts("control.py", direct(proxy, url), namespace, "a")
    assert node.hear(60) == "ready"
    with (
        Connection(url, lease=LEASE, backoff=Backoff(base=0.05, cap=0.2)) as connection,
        Mailbox(namespace, connection) as box,
    ):
        answered = 0
        for number in range(20):
            if number % 4 == 1:
                proxy.reset()
            with machine.within(1.0, LATE):
                try:
                    answered += "a" in box.call(["a"], "ping", timeout=1.0)
                except (TransportError, NotConfirmed):
                    pass  # the command could not be sent in time
        assert answered >= 10
        assert box.call(["a"], "ping", timeout=10)["a"] == {"ok": "pong"}


def test_a_call_ends_at_its_deadline_whatever_the_broker_does(proxied, namespace, machine):
    proxy, url = proxied
    for trouble in (proxy.stall, proxy.refuse):
        trouble()
        with Connection(url, timeout=10.0, connect_timeout=10.0) as connection:
            box = Mailbox(namespace, connection)
            raises = pytest.raises((TransportError, NotConfirmed))
            with machine.within(0.5, LATE), raises:
                box.call(["a"], "ping", timeout=0.5)
        proxy.heal()


# On RabbitMQ the queue goes with the connection, and the caller hears that at once.
@pytest.mark.parametrize(
    "proxied", ["redis_broker", "postgres_broker", "mysql_broker"], indirect=True
)
def test_a_command_waits_for_a_node_whose_connection_broke(proxied, namespace):
    proxy, url = proxied
    told = []
    with (
        Connection(url, backoff=Backoff(base=0.05, cap=0.2)) as through,
        Connection(direct(proxy, url)) as connection,
        Mailbox(namespace, through) as far,
        Mailbox(namespace, connection) as box,
        far.node("a") as node,
    ):
        node.handler(lambda state, text: told.append(text), name="note", kind="control")
        proxy.refuse(reset=True)
        box.cast(["a"], "note", {"text": "remember"})
        proxy.heal()
        eventually(lambda: told == ["remember"], 30)
