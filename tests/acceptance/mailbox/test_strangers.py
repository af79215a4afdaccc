"""What others send, on each transport: nonsense, floods, forgeries, and captured commands."""

import logging
import time

import pytest

from queue_core import (
    Connection,
    Queue,
    RemoteError,
)
from queue_core.mailbox import SigningKey
from queue_core.mailbox.pace import BURST
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
    ],
    ids=["no json", "pickle", "a list", "no method", "a strange reply address"],
)
def test_what_is_no_command_is_counted_and_the_node_lives_on(
    any_url, box, start, namespace, options
):
    node = start("a")
    with Connection(any_url) as connection:
        options = dict(options)
        connection.producer().publish(options.pop("body"), f"a.{namespace}.pidbox", **options)
    eventually(lambda: node.counts["malformed"] == 1)
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


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


def test_a_consumer_beside_a_flooded_node_goes_on(any_url, box, start, namespace):
    node = start("a")
    with Connection(any_url) as connection:
        producer = connection.producer()
        connection.declare(Queue(f"{namespace}.beside"))
        producer.publish_many((number, f"{namespace}.beside") for number in range(200))
        flood = ({"method": "ping", "ticket": str(n), "destination": ["a"]} for n in range(2000))
        producer.publish_many((command, f"a.{namespace}.pidbox") for command in flood)
    beside = node._wiring.connection.consumer(f"{namespace}.beside")
    taken = []
    for _ in range(200):
        message = beside.receive(timeout=WAIT)
        taken.append(message.payload)
        message.ack()
    beside.close()
    assert taken == list(range(200))
    assert node.counts["handled"] < 2000
    node._wiring.connection.delete(Queue(f"{namespace}.beside"))
