"""Processes that die at the worst moment, or stand still: nothing is lost or stranded."""

from __future__ import annotations

import pytest

from queue_core import Connection, Queue
from queue_core.testing import eventually
from tests.databases import engine_of

ROUNDS = 100
GRACE = 5.0
"""Seconds after its lease within which the messages of a dead process are there for others."""
LONG = 25.0
"""Seconds after which nothing comes any more."""


@pytest.mark.timeout(180)
def test_a_process_killed_inside_claim_strands_nothing_100_of_100(database, scripts, machine):
    """SIGKILL after claim's commit and before its reply, in a process of its own each time."""
    lease = 0.5
    queue = Queue(database.name("work"))
    bodies = [f"message-{number}" for number in range(ROUNDS)]
    with Connection(database.url, lease=lease) as connection:
        connection.declare(queue)
        connection.producer().publish_many([(body, queue.name) for body in bodies])
    victims = scripts("victims.py", database.url, queue.name, lease)
    taken = []
    for _ in range(ROUNDS):
        victims.say("next")
        taken += victims.hear().split()
        assert victims.hear() == "killed"
    assert len(taken) == ROUNDS
    with Connection(database.url, lease=lease) as connection:
        with machine.within(lease, GRACE):
            got = receive_and_ack(connection, queue, ROUNDS)
        assert sorted(got) == sorted(f'"{body}"' for body in bodies)
        info = connection.inspect(queue)
        assert (info.ready, info.unacked) == (0, 0)
        assert set(taken) <= set(got)
    assert sessions_of(database.url) == 0


def sessions_of(url):
    """Return how many sessions the tables know, as the database itself counts them."""
    engine = engine_of(url)
    with engine.connect() as rows:
        count = rows.exec_driver_sql("SELECT count(*) FROM queue_core_session").scalar_one()
    engine.dispose()
    return count


def receive_and_ack(connection, queue, count):
    """Return the encoded bodies of ``count`` messages, acked for certain."""
    got = []
    with connection.consumer(queue, prefetch=1000) as consumer:
        while len(got) < count:
            message = consumer.receive(timeout=LONG)
            assert message is not None, f"{len(got)} of {count}"
            message.ack()
            got.append(message.body.decode())
        assert consumer.receive(timeout=0.2) is None
        consumer.flush()
    return got


def test_a_killed_consumers_messages_go_to_another_process(broker, actors, machine):
    lease = 2.0
    dying, other = actors(broker, 2, lease)
    queue = broker.name("work")
    bodies = [f"message-{number}" for number in range(20)]
    dying.tell("queue", name=queue)
    dying.tell("publish", exchange="", key=queue, bodies=bodies)
    dying.tell("consume", queue=queue, prefetch=10)
    held = dying.tell("receive", count=10, timeout=20.0)
    assert len(held) == 10
    dying.tell("ack", bodies=held[:3])
    with machine.within(lease, GRACE):
        dying.kill()
        other.tell("consume", queue=queue, prefetch=100)
        got = other.tell("receive", count=17, timeout=LONG)
    assert sorted(got) == sorted(set(bodies) - set(held[:3]))
    other.tell("ack", bodies=got)
    assert other.tell("receive", count=1, timeout=0.3) == []
    assert other.tell("inspect", queue=queue)[0] == 0


def test_a_process_that_stood_still_cannot_ack_what_others_got(broker, actors, machine):
    """SIGSTOP for longer than its lease; it comes back after its messages were given away."""
    lease = 2.0
    frozen, other = actors(broker, 2, lease)
    queue = broker.name("work")
    frozen.tell("queue", name=queue)
    frozen.tell("publish", exchange="", key=queue, bodies=["a", "b"])
    frozen.tell("consume", queue=queue, prefetch=2)
    assert frozen.tell("receive", count=2, timeout=20.0) == ["a", "b"]
    other.tell("consume", queue=queue, prefetch=1)
    frozen.pause()
    with machine.within(1.5 * lease, GRACE):
        # RabbitMQ gives up a silent client after two to three heartbeats of half a lease each.
        assert other.tell("receive", count=1, timeout=LONG) in (["a"], ["b"])
    frozen.resume()
    assert frozen.error("ack", bodies=["a"]) in ("StaleDelivery", "SessionLost", "ConnectionLost")
    first = "a" if "a" in other.last["value"] else "b"
    other.tell("ack", bodies=[first])
    rest = "b" if first == "a" else "a"
    with machine.within(lease, GRACE):
        frozen.kill()
        assert other.tell("receive", count=1, timeout=LONG) == [rest]
    other.tell("ack", bodies=[rest])
    eventually(lambda: other.tell("inspect", queue=queue)[0] == 0)
    assert other.tell("receive", count=1, timeout=0.3) == []


def test_a_process_that_stood_still_hands_out_nothing_that_others_got(broker, actors, machine):
    """What it had fetched before SIGSTOP, and not handed out, was acked by another process."""
    lease = 2.0
    frozen, other = actors(broker, 2, lease)
    queue = broker.name("work")
    bodies = [f"message-{number}" for number in range(20)]
    frozen.tell("queue", name=queue)
    frozen.tell("publish", exchange="", key=queue, bodies=bodies)
    frozen.tell("consume", queue=queue, prefetch=20)
    assert frozen.tell("receive", count=1, timeout=20.0) == ["message-0"]
    frozen.pause()
    other.tell("consume", queue=queue, prefetch=100)
    with machine.within(1.5 * lease, GRACE):
        assert other.tell("receive", count=20, timeout=LONG) == bodies
    other.tell("ack", bodies=bodies)
    frozen.resume()
    assert frozen.tell("receive", count=20, timeout=1.0) == []


def test_a_busy_process_keeps_its_messages_beyond_its_lease(broker, actors):
    """It holds them for several leases without a word from its own code."""
    lease = 2.0
    busy, other = actors(broker, 2, lease)
    queue = broker.name("work")
    busy.tell("queue", name=queue)
    busy.tell("publish", exchange="", key=queue, bodies=["long"])
    busy.tell("consume", queue=queue, prefetch=1)
    assert busy.tell("receive", count=1, timeout=20.0) == ["long"]
    other.tell("consume", queue=queue, prefetch=1)
    assert other.tell("receive", count=1, timeout=3 * lease) == []
    busy.tell("ack", bodies=["long"])
    assert other.tell("receive", count=1, timeout=0.3) == []
