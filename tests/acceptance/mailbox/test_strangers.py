"""What others send, on each transport: nonsense, floods, forgeries, and captured commands."""

import copy
import gc
import logging
import os
import threading
import time
from pathlib import Path

import pytest

import queue_core.mailbox.node
from queue_core import (
    Connection,
    Exchange,
    Queue,
    RemoteError,
    SystemClock,
)
from queue_core.mailbox import Mailbox, SigningKey
from queue_core.mailbox.pace import BURST
from queue_core.mailbox.wire import parse_command
from queue_core.testing.clocks import FakeClock
from queue_core.testing.eventually import eventually

OPS = SigningKey("ops", "a secret of the operators")
WAIT = 10.0


@pytest.mark.parametrize(
    ("method", "arguments", "why"),
    [
        ("pign", {}, "no command 'pign'; did you mean 'ping'"),
        ("add", {"x": "two"}, "the argument 'x' is wrong"),
        ("add", {}, "needs the argument 'x'"),
        ("add", {"x": 1, "z": 1}, "takes no argument 'z'"),
        ("secret", {}, "the answer cannot be sent"),
        ("large", {}, "the answer cannot be sent"),
    ],
)
def test_a_wrong_command_says_what_is_wrong_and_the_node_lives_on(
    box, start, method, arguments, why
):
    start("a")
    answers = box.call(["a"], method, arguments, timeout=WAIT)
    assert why in str(answers.errors["a"])
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


@pytest.mark.parametrize(
    "options",
    [
        {"body": b"\x00\xff not json", "content_type": "application/json"},
        {"body": b"cos\nsystem\n", "content_type": "application/x-python-serialize"},
        {"body": [1, 2, 3]},
        {"body": {"method": 5}},
        {"body": {"method": "ping", "reply_to": {"exchange": "other", "routing_key": "x"}}},
        {"body": {"method": "ping", "reply_to": {"exchange": "", "routing_key": "orders"}}},
        {"body": {"method": "ping", "reply_to": "far away"}},
        {"body": {"method": "ping", "ticket": "1\na accepted shutdown"}},
        {"body": {"method": "revoke\r", "ticket": "1"}},
        {"body": {"method": "ping", "ticket": "1" * 256}},
    ],
    ids=[
        "no json",
        "pickle",
        "a list",
        "no method",
        "a strange exchange",
        "a strange queue",
        "a queue whose name is too long",
        "a ticket that forges the log",
        "a method that forges the log",
        "a long ticket",
    ],
)
def test_what_is_no_command_is_counted_and_the_node_lives_on(
    any_url, box, start, namespace, options, caplog
):
    node = start("a")
    with Connection(any_url) as connection:
        options = copy.deepcopy(options)
        if isinstance(options["body"], dict) and options["body"].get("reply_to") == "far away":
            key = f"{'x' * 300}.reply.{namespace}.pidbox"
            options["body"]["reply_to"] = {"exchange": "", "routing_key": key}
        connection.producer().publish(options.pop("body"), f"a.{namespace}.pidbox", **options)
    eventually(lambda: node.counts["malformed"] == 1)
    assert "cannot take commands" not in caplog.text
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_only_serializers_that_are_accepted_are_read(any_url, open_box, start, fleet, namespace):
    strict = start("a")
    lenient = open_box(accept=["json", "msgpack"]).node("b", {}, panel=fleet).start()
    with Connection(any_url) as connection:
        for name in "ab":
            connection.producer().publish(
                {"method": "revoke", "arguments": {"task_id": "1"}},
                f"{name}.{namespace}.pidbox",
                serializer="msgpack",
            )
    eventually(lambda: lenient.state.get("revoked") == ["1"])
    eventually(lambda: strict.counts["malformed"] == 1)
    assert "revoked" not in strict.state


def test_answers_for_nobody_are_dropped_and_counted(any_url, box, start, hears_at):
    start("a")
    where = hears_at(box)
    with Connection(any_url) as connection:
        connection.producer().publish_many(
            connection.producer().prepare(
                {"a": "x" * 100_000},
                where.routing_key,
                exchange=where.exchange,
                headers={"ticket": f"guess-{number}"},
            )
            for number in range(50)
        )
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    eventually(lambda: box.call(["a"], "ping", timeout=WAIT)["a"] and box.unclaimed == 50)


def test_where_keys_are_known_changes_need_one_and_looking_does_not(
    open_box, start, caplog, namespace
):
    node = start("a", keys=[OPS])
    stranger, operator = open_box(), open_box(key=OPS)
    with caplog.at_level(logging.INFO, "queue_core.mailbox.audit"):
        assert stranger.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
        answers = stranger.call(["a"], "revoke", {"task_id": "1"}, timeout=WAIT)
        assert answers.refused == {"a": "it is not signed"}
        with pytest.raises(RemoteError, match="Refused: it is not signed"):
            answers["a"]
        assert operator.call(["a"], "revoke", {"task_id": "2"}, timeout=WAIT)["a"] == "ok"
    assert node.state["revoked"] == ["2"]
    lines = [record.getMessage() for record in caplog.records if "audit" in record.name]
    assert any("a refused revoke" in line for line in lines)
    assert any("a accepted revoke" in line and "by ops" in line for line in lines)


def test_a_captured_command_cannot_be_used_for_another_node(
    any_url, open_box, start, namespace, caplog
):
    first, second = start("a", keys=[OPS]), start("b", keys=[OPS])
    operator = open_box(key=OPS)
    captured = []
    publish = operator._sender._publish
    operator._sender._publish = lambda command, *rest, **more: (
        captured.append(command),
        publish(command, *rest, **more),
    )
    operator.cast(["a"], "revoke", {"task_id": "1"})
    eventually(lambda: first.state.get("revoked") == ["1"])
    [command] = captured
    with Connection(any_url) as connection:
        producer = connection.producer()
        moved = {**command.body(), "destination": ["b"]}
        producer.publish(moved, f"b.{namespace}.pidbox", headers=command.headers())
        again = {**command.body(), "ticket": "another"}
        producer.publish(again, f"a.{namespace}.pidbox", headers=command.headers())
        producer.publish(command.body(), f"a.{namespace}.pidbox", headers=command.headers())
    eventually(lambda: second.counts["refused"] == 1)
    eventually(lambda: first.counts["refused"] == 1 and first.counts["repeated"] == 1)
    assert first.state["revoked"] == ["1"]
    assert "revoked" not in second.state


def test_a_flood_of_commands_is_taken_at_a_bounded_rate(box, start):
    node = start("a")
    begun = time.monotonic()
    for _ in range(int(BURST) + 100):
        box.cast(["a"], "ping")
    eventually(lambda: node.counts["handled"] >= BURST + 100, 30)
    assert time.monotonic() - begun >= 0.4
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def flood(any_url, namespace, count):
    """What a program in a wild loop sends: so many commands that nobody waits for."""
    commands = ({"method": "ping", "ticket": str(n), "destination": ["a"]} for n in range(count))
    with Connection(any_url) as connection:
        queue = f"a.{namespace}.pidbox"
        connection.producer().publish_many((command, queue) for command in commands)


def test_a_call_overtakes_a_flood_of_commands_that_nobody_waits_for(any_url, box, start, namespace):
    node = start("a")
    flood(any_url, namespace, 2500)  # it takes ten seconds to handle them
    assert box.call(["a"], "ping", timeout=30)["a"] == "pong"
    assert node.counts["handled"] < 2400


def test_of_a_flood_no_more_waits_than_can_be_taken_soon(
    any_url, box, start, namespace, monkeypatch, caplog
):
    monkeypatch.setattr(queue_core.mailbox.node, "MAX_WAITING", 300)
    node = start("a")
    flood(any_url, namespace, 2500)
    eventually(lambda: node.counts["dropped"] > 0, 30)
    eventually(lambda: node.counts["handled"] + node.counts["dropped"] >= 2500, 30)
    assert node.counts["handled"] < 2300
    assert "node a dropped" in caplog.text
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_consumer_beside_a_flooded_node_goes_on(any_url, box, start, namespace):
    node = start("a")
    with Connection(any_url) as connection:
        connection.declare(Queue(f"{namespace}.beside"))
        connection.producer().publish_many((n, f"{namespace}.beside") for n in range(200))
    flood(any_url, namespace, 2500)
    beside = node._wiring.connection.consumer(f"{namespace}.beside")
    taken = []
    for _ in range(200):
        message = beside.receive(timeout=WAIT)
        taken.append(message.payload)
        message.ack()
    beside.close()
    assert taken == list(range(200))
    assert node.counts["handled"] < 2500
    node._wiring.connection.delete(Queue(f"{namespace}.beside"))


@pytest.fixture
def overheard(any_url, namespace):
    """What a stranger reads who has a queue of their own on the exchange for commands."""
    with Connection(any_url) as connection:
        exchange = Exchange(f"{namespace}.pidbox", "fanout", durable=False)
        queue = connection.declare(Queue(f"{namespace}.spy", exchange=exchange, expires=60.0))
        with connection.consumer(queue, decode=False) as consumer:

            def read():
                message = consumer.receive(WAIT)
                message.ack()
                return message.payload, dict(message.headers)

            yield read
        connection.delete(queue)


def send(any_url, queue, body, headers):
    with Connection(any_url) as connection:
        connection.producer().publish(body, queue, headers=headers)


def test_an_unsigned_shutdown_is_refused_and_audited_and_the_node_goes_on(open_box, start, caplog):
    node = start("a", keys=[OPS])
    stranger = open_box()
    with caplog.at_level(logging.INFO, "queue_core.mailbox.audit"):
        assert stranger.call(["a"], "shutdown", timeout=WAIT).refused == {"a": "it is not signed"}
        stranger.abcast("shutdown")
        eventually(lambda: node.counts["refused"] == 2)
    assert caplog.text.count("a refused shutdown") == 2
    assert not node.wait(0.1)
    assert stranger.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_captured_shutdown_is_no_good_again_elsewhere_or_a_day_later(
    any_url, open_box, start, namespace, overheard, caplog
):
    first = start("a", keys=[OPS])
    open_box(key=OPS).abcast("shutdown", match="a")
    assert first.wait(30)
    body, headers = overheard()
    again = start("a", keys=[OPS])
    other = start("b", keys=[OPS])
    tomorrow = FakeClock()
    tomorrow.advance(time.time() - tomorrow.time() + 86_400)
    later = start("c", keys=[OPS], time=tomorrow)
    with caplog.at_level(logging.INFO, "queue_core.mailbox.audit"):
        send(any_url, f"a.{namespace}.pidbox", body, headers)
        eventually(lambda: "a refused shutdown" in caplog.text or again.wait(0))
        send(any_url, f"b.{namespace}.pidbox", body, headers)
        send(any_url, f"b.{namespace}.pidbox", {**body, "pattern": "b"}, headers)
        eventually(lambda: "b refused shutdown" in caplog.text)
        forged = parse_command({**body, "pattern": "c"}, headers)
        whole = OPS.within(namespace).sign(forged, SystemClock())
        send(any_url, f"c.{namespace}.pidbox", whole.body(), whole.headers())
        eventually(lambda: "s ago" in caplog.text)
    assert other.counts["others"] == 1
    assert not any(node.wait(0.1) for node in (again, other, later))


def test_a_captured_command_is_no_good_in_another_namespace(
    any_url, open_box, start, namespace, overheard, caplog
):
    here, revoked = start("a", keys=[OPS]), []
    there = f"{namespace}.there"
    with Connection(any_url) as connection:
        with Mailbox(there, connection, keys=[OPS]) as box, box.node("a") as node:
            node.handler(
                lambda state, task_id: revoked.append(task_id), name="revoke", kind="admin"
            )
            open_box(key=OPS).abcast("revoke", {"task_id": "1"})
            eventually(lambda: here.state.get("revoked") == ["1"])
            send(any_url, f"a.{there}.pidbox", *overheard())
            eventually(lambda: node.counts["refused"] == 1 or revoked)
        assert not revoked
        assert "its signature was not made by the key 'ops'" in caplog.text
        for name in (f"{there}.pidbox", f"{there}.pidbox.peers", f"reply.{there}.pidbox"):
            connection.delete(Exchange(name, durable=False))


def test_a_ticket_that_was_refused_or_asked_with_is_good_for_a_signed_command(
    any_url, open_box, start, namespace
):
    node = start("a", keys=[OPS])
    forged = {"method": "revoke", "arguments": {"task_id": "x"}, "ticket": "T"}
    send(any_url, f"a.{namespace}.pidbox", forged, {})
    send(any_url, f"a.{namespace}.pidbox", {"method": "ping", "ticket": "T"}, {})
    eventually(lambda: node.counts["refused"] == 1)
    whole = parse_command({**forged, "arguments": {"task_id": "1"}}, {})
    signed = OPS.within(namespace).sign(whole, SystemClock())
    send(any_url, f"a.{namespace}.pidbox", signed.body(), signed.headers())
    eventually(lambda: node.state.get("revoked") == ["1"])
    assert node.counts["repeated"] == 0


def test_a_bad_regular_expression_stops_no_node(any_url, open_box, start, namespace):
    name = "a" * 40
    node = start(name)
    for pattern in (r"(\w+-?)*!", r"(a+)+$!", "(a|a)*!", r"(a)\1"):
        body = {"method": "ping", "pattern": pattern, "matcher": "pcre"}
        send(any_url, f"{name}.{namespace}.pidbox", body, {})
    begun = time.monotonic()
    assert open_box().call([name], "ping", timeout=WAIT)[name] == "pong"
    assert time.monotonic() - begun < WAIT
    eventually(lambda: node.counts["others"] == 3)
    eventually(lambda: node.counts["malformed"] == 1)


@pytest.mark.parametrize("stamp", [2**63 - 1, -1, "7", None, True, 1.5], ids=repr)
def test_a_forged_stamp_is_ignored_and_counted(any_url, box, start, namespace, stamp):
    node = start("a")
    clock = node._wiring.clock
    before = clock.ignored
    send(any_url, f"a.{namespace}.pidbox", {"method": "ping"}, {"clock": stamp})
    eventually(lambda: clock.ignored == before + 1)
    assert clock.value < 1000
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


@pytest.mark.timeout(180)
def test_ten_thousand_answers_for_nobody_are_dropped_and_nothing_grows(
    any_url, box, start, hears_at
):
    """Small ones, and large ones of 100 MB together."""
    start("a")
    where = hears_at(box)
    small, large = b'{"a":"x"}', b'{"a":"' + b"x" * 5_000_000 + b'"}'

    def flood(body, count):
        with Connection(any_url) as connection:
            producer = connection.producer(where.exchange)
            for beginning in range(0, count, 500):
                producer.publish_many(
                    producer.prepare(
                        body,
                        where.routing_key,
                        headers={"ticket": f"guess-{number}"},
                        content_type="application/json",
                        durable=False,
                    )
                    for number in range(beginning, min(count, beginning + 500))
                )

    def listen_to(body, count):
        wanted = box.unclaimed + count
        thread = threading.Thread(target=flood, args=(body, count))
        thread.start()
        while thread.is_alive() or box.unclaimed < wanted:
            assert box.call(["a"], "ping", timeout=30)["a"] == "pong"
        thread.join()
        assert box.unclaimed == wanted

    listen_to(small, 500)
    listen_to(large, 2)
    before = resident()
    listen_to(small, 9_500)
    listen_to(large, 20)
    grown = resident() - before
    if not any_url.startswith("memory"):  # there the broker is this process
        assert grown < 80_000_000  # a driver's buffers stay at some 60 MB however many come


def resident():
    """Bytes of memory that this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
