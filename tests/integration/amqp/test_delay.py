"""The delay ladder on RabbitMQ: what is delayed or requeued arrives as it was published."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from queue_core.errors import AccessRefused, QueueNotFound, StaleDelivery, TransportError
from queue_core.message import Settlement
from queue_core.testing.eventually import eventually
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transports.amqp.ladder import MARKER

HEADERS = {"text": "é", "list": [1, 2.5, None], "table": {"a": True}, "bytes": b"\x00\xff"}


def shown(delivery):
    """What a handler can see of a delivery, but for the broker's own count."""
    properties = delivery.reader.properties(delivery.raw)
    properties.headers.pop("x-delivery-count", None)
    return (delivery.exchange, delivery.routing_key, delivery.body, properties)


def bound_queue(bench, kind, exchange, **fields):
    queue = bench.queue(**fields)
    if exchange:
        matching = {"x-match": "all", "text": "é"} if kind == "headers" else {}
        key = {"direct": "new.eu", "topic": "*.eu"}.get(kind, "")
        bench.session.declare(Binding(exchange, queue, key, arguments=matching))
    return queue


@pytest.mark.parametrize("limited", [False, True], ids=["plain", "max_deliveries"])
@pytest.mark.parametrize("kind", ["default", "direct", "topic", "fanout", "headers"])
def test_a_delayed_message_requeued_five_times_arrives_unchanged(bench, kind, limited):
    exchange = "" if kind == "default" else bench.exchange(kind)
    fields = {"max_deliveries": 9} if limited else {"max_priority": 9}
    queue = bound_queue(bench, kind, exchange, **fields)
    key = queue if kind == "default" else "new.eu"
    message = bench.message(
        key,
        b"body",
        exchange=exchange,
        headers=dict(HEADERS),
        priority=7,
        expiration=60.0,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1.0,
        type="t",
        app_id="a",
        content_type="text/plain",
    )
    message.delay = 0.15
    sent = (exchange, key, b"body", message.properties)
    begun = time.monotonic()
    assert bench.publish(bench.session, message) == ["confirmed"]
    bench.session.subscribe("c", queue, prefetch=10)
    for turn in range(1, 7):
        (delivery,) = bench.take(bench.session, "c", 1)
        assert time.monotonic() - begun >= 0.15
        assert shown(delivery) == sent
        assert delivery.attempts == (turn if limited else 0)
        assert delivery.redelivered == (turn > 1)
        begun = time.monotonic()
        bench.session.settle([Settlement(delivery, "requeue", delay=0.15)])
        bench.session.flush("c")
    (delivery,) = bench.take(bench.session, "c", 1)
    bench.ack(bench.session, delivery)
    bench.session.flush("c")
    assert bench.session.receive("c", wait=0.3) == []
    assert bench.rest(queue) == []


def test_delays_are_neither_early_nor_much_too_late(bench):
    queue = bench.queue()
    bench.session.subscribe("c", queue, prefetch=1000)
    messages = [bench.message(queue, b"%d" % (n * 7)) for n in range(1, 200)]
    for number, message in enumerate(messages, 1):
        message.delay = number * 0.007
    begun = time.monotonic()
    assert set(bench.publish(bench.session, *messages)) == {"confirmed"}
    sent = time.monotonic()
    left = len(messages)
    while left:
        found = bench.session.receive("c", wait=20.0)
        assert found, f"{left} are missing"
        now = time.monotonic()
        for delivery in found:
            due = int(delivery.body) / 1000
            assert now - begun >= due
            assert now - sent < due * 1.01 + 5.0
        left -= len(found)
        bench.ack(bench.session, *found)


def test_a_ttl_goes_on_while_the_message_waits_and_is_charged_when_it_arrives(bench):
    grave = bench.queue()
    queue = bench.queue(dead_letter_exchange="", dead_letter_routing_key=grave)
    message = bench.message(queue, b"late", expiration=1.5)
    message.delay = 0.1
    assert bench.publish(bench.session, message) == ["confirmed"]
    eventually(lambda: bench.ready(queue) + bench.ready(grave) == 1)
    time.sleep(1.5)
    bench.session.subscribe("c", queue, prefetch=1)
    assert bench.session.receive("c", wait=0.5) == []
    bench.session.subscribe("g", grave, prefetch=1)
    (dead,) = bench.take(bench.session, "g", 1)
    headers = dead.reader.properties(dead.raw).headers
    assert headers["x-death"][0]["reason"] == "expired"
    assert headers["x-first-death-queue"] == queue
    assert not [name for name in headers if name.startswith("qc-")]


def test_a_message_without_a_dead_letter_exchange_that_is_too_late_is_dropped(bench):
    queue = bench.queue()
    message = bench.message(queue, b"late", expiration=1.5)
    message.delay = 0.1
    bench.publish(bench.session, message)
    eventually(lambda: bench.ready(queue) == 1)
    time.sleep(1.5)
    assert bench.rest(queue) == []


def test_unroutable_delayed_messages_hold_up_nobody(bench):
    exchange = bench.exchange("direct")
    queue = bench.queue()
    bench.session.declare(Binding(exchange, queue, "wanted"))
    for key in [*["nobody"] * 60, "wanted"]:
        message = bench.message(key, key.encode(), exchange=exchange)
        message.delay = 0.05
        assert bench.publish(bench.session, message) == ["confirmed"]
    message = bench.message(queue, b"direct")
    message.delay = 0.05
    bench.publish(bench.session, message)
    assert sorted(bench.rest(queue, least=2)) == [b"direct", b"wanted"]


def test_a_full_queue_that_refuses_holds_up_nobody(bench):
    full = bench.queue(max_length=1, overflow="reject-publish", queue_type="quorum")
    other = bench.queue()
    stranger = bench.open()
    messages = [bench.message(full, b"%d" % number) for number in range(40)]
    messages.append(bench.message(other, b"other"))
    for message in messages:
        message.delay = 0.05
    assert set(bench.publish(stranger, *messages)) == {"confirmed"}
    assert bench.rest(other, least=1) == [b"other"]


def test_a_missing_exchange_or_queue_is_told_at_once(bench):
    missing = bench.message("k", exchange="no-such-exchange")
    missing.delay = 1.0
    with pytest.raises(QueueNotFound, match="no-such-exchange"):
        bench.session.publish([missing])
    queue = bench.queue()
    unroutable, optional, good = (bench.message(key) for key in ("no-queue", "no-queue", queue))
    optional.mandatory = False
    for message in (unroutable, optional):
        message.delay = 1.0
    outcomes = bench.publish(bench.session, unroutable, good, optional)
    assert outcomes == ["unroutable", "confirmed", "confirmed"]
    assert bench.rest(queue) == [b"x"]


def test_a_target_that_is_declared_again_gets_what_is_delayed_afterwards(bench):
    queue = bench.queue()
    other = bench.open()
    for body in (b"1", b"2"):
        message = bench.message(queue, body)
        message.delay = 0.05
        assert bench.publish(other, message) == ["confirmed"]
        assert bench.rest(queue, least=1) == [body]
        bench.session.delete(Queue(queue))
        bench.session.declare(Queue(queue))
        time.sleep(1.1)


def test_a_history_of_deaths_survives_the_ladder_and_adds_up(bench):
    """A work queue and its grave, from which messages are requeued with a delay."""
    work_name = bench.queue()
    grave = bench.queue()
    bench.session.delete(Queue(work_name))
    bench.session.declare(Queue(work_name, dead_letter_exchange="", dead_letter_routing_key=grave))
    exchange = bench.exchange("topic")
    bench.session.declare(Binding(exchange, work_name, "#"))
    message = bench.message("a.b", b"bad", exchange=exchange, headers={"mine": 1})
    message.delay = 0.05
    bench.publish(bench.session, message)
    bench.session.subscribe("w", work_name, prefetch=1)
    bench.session.subscribe("g", grave, prefetch=1)
    (delivery,) = bench.take(bench.session, "w", 1)
    bench.session.settle([Settlement(delivery, "reject")])
    for _ in range(3):
        (dead,) = bench.take(bench.session, "g", 1)
        headers = dead.reader.properties(dead.raw).headers
        (row,) = headers["x-death"]
        assert (row["queue"], row["reason"], row["count"]) == (work_name, "rejected", 1)
        assert (row["exchange"], row["routing-keys"]) == (exchange, ["a.b"])
        assert headers["x-first-death-queue"] == work_name
        assert headers["x-first-death-exchange"] == exchange
        assert headers["mine"] == 1
        assert not [name for name in headers if name.startswith("qc-")]
        bench.session.settle([Settlement(dead, "requeue", delay=0.05)])


def test_a_requeue_with_delay_is_stale_after_a_second_settlement(bench):
    queue = bench.queue()
    bench.send(queue, b"once")
    bench.session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(bench.session, "c", 1)
    bench.session.settle([Settlement(delivery, "requeue", delay=0.2)])
    bench.ack(bench.session, delivery)
    with pytest.raises(StaleDelivery, match="1 settlement "):
        bench.session.flush("c")
    (again,) = bench.take(bench.session, "c", 1)
    assert again.body == b"once"


def test_an_exclusive_queue_is_led_to_by_its_owner_only(bench):
    name = bench.session.declare(Queue(exclusive=True, durable=False))
    message = bench.message(name, b"later")
    message.delay = 0.05
    with pytest.raises(AccessRefused, match=name):
        bench.open().publish([message])
    assert bench.publish(bench.session, message) == ["confirmed"]
    bench.session.subscribe("c", name, prefetch=1)
    assert bench.take(bench.session, "c", 1)[0].body == b"later"


def test_many_may_make_the_ladder_at_the_same_time(bench):
    """As after a rolling start: nobody finds the marker, all declare everything."""
    queue = bench.queue()
    bench.session.delete(Exchange(MARKER))
    sessions = [bench.open() for _ in range(4)]
    ready, outcomes = threading.Barrier(len(sessions)), []

    def publish(session):
        message = bench.message(queue, b"later")
        message.delay = 0.05
        ready.wait(30)
        outcomes.extend(bench.publish(session, message))

    threads = [threading.Thread(target=publish, args=[session]) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert outcomes == ["confirmed"] * len(sessions)
    assert bench.rest(queue, least=len(sessions)) == [b"later"] * len(sessions)


def test_nothing_is_lost_when_the_publishing_connection_ends_under_the_copies(bench):
    queue = bench.queue()
    bodies = {b"%d" % number for number in range(300)}
    session = bench.session
    session.subscribe("c", queue, prefetch=300)
    bench.send(queue, *bodies)
    for wait in (0.0, 0.005, 0.02):
        found = bench.take(session, "c", 300)
        session.settle([Settlement(delivery, "requeue", delay=0.1) for delivery in found])
        time.sleep(wait)
        session._publisher.cut()
        with contextlib.suppress(TransportError):
            session.flush("c")
        seen = {}
        deadline = time.monotonic() + 30.0
        while len(seen) < 300 and time.monotonic() < deadline:
            for delivery in session.receive("c", wait=0.3):
                if delivery.body in seen:
                    bench.ack(session, delivery)
                seen.setdefault(delivery.body, delivery)
        assert set(seen) == bodies
        session.settle([Settlement(delivery, "requeue") for delivery in seen.values()])
    session.close()
    counts, looking = [-2, -1], bench.open()
    while counts[-1] != counts[-2]:  # copies that come to a deleted queue hold up the ladder
        time.sleep(0.3)
        counts.append(looking.inspect(queue).ready)


def test_closing_waits_for_what_was_returned(bench):
    queue = bench.queue()
    bodies = [b"%d" % number for number in range(50)]
    bench.send(queue, *bodies)
    session = bench.open()
    session.subscribe("c", queue, prefetch=50)
    found = bench.take(session, "c", 50)
    session.settle([Settlement(delivery, "requeue", delay=2.0) for delivery in found])
    session.close()
    assert bench.ready(queue) == 0
    eventually(lambda: bench.ready(queue) == 50)
    assert bench.rest(queue) == bodies
