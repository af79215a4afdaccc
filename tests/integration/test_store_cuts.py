"""A connection to a store that is cut in the middle of a step: the step happened, or did not.

The cut comes after a number of bytes, to the server or from it: before the statement is complete,
between two packets of a transaction, after the commit and before its answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from queue_core import Backoff, Connection, Queue
from queue_core.testing import FaultProxy, eventually
from queue_core.url import parse

PLACES = {"up": range(0, 600, 30), "down": (0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 50, 65, 80)}


@pytest.fixture(params=["postgres_broker", "mysql_broker", "redis_broker"])
def cut(request: pytest.FixtureRequest) -> Iterator[tuple[FaultProxy, Connection, Connection]]:
    """A proxy, a connection through it and one that is never cut."""
    url = request.getfixturevalue(request.param)
    address = parse(url)
    with FaultProxy(address.host, address.port) as proxy, Connection(url) as direct:
        through = url.replace(f":{address.port}/", f":{proxy.port}/")
        with Connection(through, timeout=30.0, backoff=Backoff(0.01, 0.05)) as connection:
            yield proxy, connection, direct
            proxy.heal()


def contents(connection: Connection, queue: str) -> Counter[int]:
    """Take all that is in the queue."""
    found: Counter[int] = Counter()
    with connection.consumer(queue, prefetch=1000) as consumer:
        while (message := consumer.receive(timeout=0.5)) is not None:
            found[message.payload] += 1
            message.ack()
        consumer.flush()
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_publish_that_is_cut_anywhere_is_stored_once(cut, direction):
    proxy, connection, direct = cut
    connection.declare(Queue("q"))
    producer = connection.producer()
    producer.publish(-1, "q")
    for place in PLACES[direction]:
        proxy.cut_after(place, direction=direction, times=1)
        assert producer.publish(place, "q").status == "confirmed"
    proxy.heal()
    assert proxy.accepted > len(PLACES[direction]) / 4, "the cuts hit nothing"
    assert contents(direct, "q") == Counter([-1, *PLACES[direction]])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_message_that_is_handed_on_is_cut_anywhere_and_handed_on_once(cut, direction):
    """Taken, and acked with its successor: both connections and every statement may be cut."""
    proxy, connection, direct = cut
    for name in ("in", "out"):
        connection.declare(Queue(name))
    direct.producer().publish_many([(place, "in") for place in PLACES[direction]])
    producer = connection.producer()
    with connection.consumer("in", prefetch=1) as consumer:
        for place in PLACES[direction]:
            proxy.cut_after(place, direction=direction, times=1)
            message = eventually(lambda: consumer.receive(timeout=1.0), 60.0)
            proxy.cut_after(place, direction=direction, times=1)
            message.ack(then=[producer.prepare(message.payload, "out")])
        proxy.heal()
        consumer.flush()
    assert proxy.accepted > len(PLACES[direction]) / 4, "the cuts hit nothing"
    assert contents(direct, "out") == Counter(PLACES[direction])
    assert contents(direct, "in") == Counter()
