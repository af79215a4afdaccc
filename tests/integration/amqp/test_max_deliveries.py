"""Counted failures on RabbitMQ: who is charged, who is buried, and that nobody is lost."""

from __future__ import annotations

import time
from functools import partial

import pytest

from queue_core import Connection
from queue_core.errors import TransportError, Unsupported
from queue_core.message import Settlement
from queue_core.testing.eventually import eventually
from queue_core.topology import Binding, Queue
from queue_core.transports.amqp.topology import BACKSTOP


def requeue(delivery, **fields):
    return [Settlement(delivery, "requeue", **fields)]


def limited_queue(bench, limit, **fields):
    """Return a queue with ``max_deliveries`` and its grave."""
    grave = bench.queue()
    queue = bench.queue(
        max_deliveries=limit, dead_letter_exchange="", dead_letter_routing_key=grave, **fields
    )
    return queue, grave


def test_an_exhausted_message_is_buried_under_its_own_story(bench):
    queue, grave = limited_queue(bench, 3)
    exchange = bench.exchange("topic")
    bench.session.declare(Binding(exchange, queue, "#"))
    message = bench.message("a.b", b"poison", exchange=exchange, headers={"mine": 1}, priority=3)
    bench.publish(bench.session, message)
    bench.session.subscribe("c", queue, prefetch=5)
    for delay in (0.0, 0.1, 0.0):
        (delivery,) = bench.take(bench.session, "c", 1)
        assert (delivery.exchange, delivery.routing_key) == (exchange, "a.b")
        bench.session.settle(requeue(delivery, delay=delay))
    bench.session.flush("c")
    bench.session.subscribe("g", grave, prefetch=5)
    (dead,) = bench.take(bench.session, "g", 1)
    properties = dead.reader.properties(dead.raw)
    properties.headers.pop("x-delivery-count", None)
    (row,) = properties.headers["x-death"]
    assert row.pop("time") is not None
    assert row == {
        "queue": queue,
        "reason": "delivery_limit",
        "count": 1,
        "exchange": exchange,
        "routing-keys": ["a.b"],
    }
    assert set(properties.headers) == {
        "mine",
        "x-death",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-first-death-exchange",
    }
    assert (properties.priority, dead.attempts) == (3, 0)
    assert bench.rest(queue) == []


def test_an_exhausted_message_is_buried_where_the_queue_says_and_nowhere_else(bench):
    """As the broker does it: a key for dead letters replaces those of the message, all of them."""
    queue, grave = limited_queue(bench, 1)
    other = bench.queue()
    bench.publish(bench.session, bench.message(queue, b"poison", headers={"CC": [other]}))
    assert bench.rest(other) == [b"poison"]
    bench.session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(bench.session, "c", 1)
    bench.session.settle(requeue(delivery))
    bench.session.flush("c")
    assert bench.rest(grave, least=1) == [b"poison"]
    assert bench.ready(other) == 0


def test_one_delivery_is_enough_for_a_limit_of_one(bench):
    queue, grave = limited_queue(bench, 1)
    bench.send(queue, b"poison", b"good")
    bench.session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(bench.session, "c", 1)
    bench.session.settle(requeue(delivery, delay=5.0))
    (good,) = bench.take(bench.session, "c", 1)
    assert good.body == b"good"
    bench.ack(bench.session, good)
    bench.session.flush("c")
    assert bench.rest(grave, least=1) == [b"poison"]


def test_exhausted_messages_without_a_way_out_are_dropped_like_rejected_ones(bench):
    nowhere = bench.exchange("direct")
    for fields in ({}, {"dead_letter_exchange": nowhere}):
        queue = bench.queue(max_deliveries=1, **fields)
        bench.send(queue, b"poison")
        bench.session.subscribe("c", queue, prefetch=1)
        (delivery,) = bench.take(bench.session, "c", 1)
        bench.session.settle(requeue(delivery))
        bench.session.flush("c")
        assert bench.session.receive("c", wait=0.3) == []
        bench.session.cancel("c")
        assert bench.rest(queue) == []


def test_polite_returns_never_exhaust_a_message_however_many(bench):
    queue, grave = limited_queue(bench, 2)
    bench.send(queue, b"patient")
    bench.session.subscribe("c", queue, prefetch=1)
    for _ in range(2 * BACKSTOP + 10):
        (delivery,) = bench.take(bench.session, "c", 1)
        assert delivery.attempts == 1
        bench.session.settle(requeue(delivery, counted=False))
    (delivery,) = bench.take(bench.session, "c", 1)
    bench.ack(bench.session, delivery)
    bench.session.flush("c")
    assert bench.ready(grave) == 0


def test_the_count_goes_on_in_another_session_that_declared_the_queue(bench):
    queue, _ = limited_queue(bench, 5)
    bench.send(queue, b"x")
    declaration = bench.session._declared[queue]
    for attempt in (1, 2, 3):
        session = bench.open()
        session.declare(declaration)
        session.subscribe("c", queue, prefetch=1)
        (delivery,) = bench.take(session, "c", 1)
        assert delivery.attempts == attempt
        session.settle(requeue(delivery))
        session.close()


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_a_session_that_dies_while_it_returns_messages_loses_none(bench, delay):
    queue = bench.queue(max_deliveries=50)
    bodies = {b"%d" % number for number in range(200)}
    bench.send(queue, *bodies)
    declaration = bench.session._declared[queue]
    for wait in (0.0, 0.02, 0.05):
        session = bench.open()
        session.declare(declaration)
        session.subscribe("c", queue, prefetch=200)
        for delivery in bench.take(session, "c", 200):
            session.settle(requeue(delivery, delay=delay))
        time.sleep(wait)
        session.cut()
        eventually(partial(getattr, session, "closed"))
    time.sleep(2 * delay)
    assert set(bench.rest(queue, least=len(bodies))) == bodies


def test_a_queue_that_refuses_a_copy_keeps_the_original(bench):
    """A quorum queue refuses late, so some copies pass."""
    queue, _ = limited_queue(
        bench, 5, max_length=10, overflow="reject-publish", queue_type="quorum"
    )
    session = bench.session
    bodies = [b"%d" % number for number in range(10)]
    bench.send(queue, *bodies)
    session.subscribe("c", queue, prefetch=10)
    held = bench.take(session, "c", 10)
    while bench.publish(session, bench.message(queue, b"filling")) == ["confirmed"]:
        pass
    refused = 0
    for delivery in held:
        session.settle(requeue(delivery))
        try:
            session.flush("c")
        except TransportError as error:
            assert "refused" in str(error)
            refused += 1
    assert refused
    session.cancel("c")
    assert sorted(body for body in bench.rest(queue) if body != b"filling") == bodies


def test_classic_queues_refuse_with_advice(bench):
    for fields in ({"queue_type": "classic"}, {"max_priority": 5}, {"exclusive": True}):
        with pytest.raises(Unsupported, match="max_deliveries.*quorum queue"):
            bench.session.declare(Queue("refused", max_deliveries=3, **fields))


def test_a_consumer_that_was_given_the_queue_keeps_to_its_limit_undeclared(bench, amqp_url):
    """Another program declared it; this one says what it knows of it, also after a reconnect."""
    name, grave = limited_queue(bench, 3)
    bench.send(name, b"1", b"2")
    declaration = bench.session._declared[name]
    with Connection(amqp_url) as connection:
        consumer = connection.consumer(declaration, prefetch=1, decode=False)
        attempts = []
        while len(attempts) < 6:
            message = consumer.receive(timeout=30)
            assert message is not None
            attempts.append((message.body, message.attempts))
            message.requeue(0.05)
            consumer.flush()
            if len(attempts) == 3:
                session = consumer._recovery.session
                session.cut()
                eventually(partial(getattr, session, "closed"))
        assert consumer.receive(timeout=0.5) is None
        assert sorted(attempts) == [(body, n) for body in (b"1", b"2") for n in (1, 2, 3)]
        consumer.close()
    assert sorted(bench.rest(grave, least=2)) == [b"1", b"2"]
