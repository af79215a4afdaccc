"""What one process declares counts for the very next publish of another."""

from __future__ import annotations

import statistics

import pytest

from queue_core.testing import eventually

ROUNDS = 100


@pytest.mark.timeout(120)
def test_a_binding_made_a_moment_ago_elsewhere_is_never_missed(broker, actors):
    """The publisher declared nothing, and has published to the exchange before."""
    binder, publisher, looker = actors(broker, 3)
    exchange, queue = broker.name("exchange"), broker.name("queue")
    binder.tell("exchange", name=exchange, type="direct")
    binder.tell("queue", name=queue, durable=False)
    publisher.tell("publish", exchange=exchange, key="x", bodies=["warm"], mandatory=False)
    gaps = []
    for number in range(ROUNDS):
        key = f"key-{number}"
        binder.tell("bind", source=exchange, destination=queue, routing_key=key)
        # Mandatory: a binding that was missed would make it unroutable.
        publisher.tell("publish", exchange=exchange, key=key, bodies=[key])
        gaps.append(publisher.last["begun"] - binder.last["ended"])
    assert sorted(gaps)[ROUNDS // 4] < 0.02, gaps
    looker.tell("consume", queue=queue, prefetch=1000)
    got = looker.tell("receive", count=ROUNDS, timeout=20.0)
    assert got == [f"key-{number}" for number in range(ROUNDS)]


def test_a_new_queue_gets_every_message_published_after_it_was_bound(broker, actors):
    binder, publisher = actors(broker, 2)
    exchange = broker.name("exchange")
    binder.tell("exchange", name=exchange, type="fanout")
    queues = []
    for number in range(10):
        queues.append(broker.name("queue"))
        binder.tell("queue", name=queues[-1], exchange=exchange, durable=False)
        publisher.tell("publish", exchange=exchange, key="", bodies=[str(number)])
    for index, queue in enumerate(queues):
        binder.tell("consume", queue=queue, prefetch=100)
        got = binder.tell("receive", count=10 - index, timeout=20.0)
        assert got == [str(number) for number in range(index, 10)]


def test_messages_outlive_every_process(broker, actors):
    (first,) = actors(broker, 1)
    queue = broker.name("queue")
    first.tell("queue", name=queue)
    first.tell("publish", exchange="", key=queue, bodies=["a", "b", "c"])
    first.kill()
    (second,) = actors(broker, 1)
    second.tell("consume", queue=queue, prefetch=10)
    assert second.tell("receive", count=3, timeout=20.0) == ["a", "b", "c"]


def test_a_waiting_process_is_woken_by_another(broker, actors):
    waiting, publisher = actors(broker, 2)
    queue = broker.name("queue")
    waiting.tell("queue", name=queue)
    waiting.tell("consume", queue=queue, prefetch=1)
    delays = []
    for number in range(10):
        waiting.begin("receive", count=1, timeout=20.0)
        publisher.tell("publish", exchange="", key=queue, bodies=[str(number)])
        assert waiting.finish() == [str(number)]
        delays.append(waiting.last["ended"] - publisher.last["ended"])
        waiting.tell("ack", bodies=[str(number)])
    assert statistics.median(delays) < 0.2, delays


def test_an_exclusive_queue_belongs_to_one_process_until_it_dies(broker, actors):
    lease = 1.0
    owner, other = actors(broker, 2, lease)
    queue = broker.name("exclusive")
    owner.tell("queue", name=queue, exclusive=True, durable=False)
    assert other.error("consume", queue=queue, prefetch=1) == "AccessRefused"
    other.tell("publish", exchange="", key=queue, bodies=["from outside"])
    owner.tell("consume", queue=queue, prefetch=1)
    assert owner.tell("receive", count=1, timeout=20.0) == ["from outside"]
    owner.kill()
    # No other use of the queue than publishing is allowed to others, or keeps it alive.
    eventually(
        lambda: other.error("publish", exchange="", key=queue, bodies=["x"]) == "Unroutable",
        3 * lease + 20.0,
    )
