"""What a RabbitMQ's administrator, alarm and timer do to a session: bounded, named, survived."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from queue_core import Connection
from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConnectTimeout,
    NotConfirmed,
    StaleDelivery,
    TransportError,
)
from queue_core.testing.eventually import eventually
from queue_core.topology import Binding, Exchange, Queue

# The keeper of the own node outlives the handle on it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.timeout(180),  # the node takes its time to start
]


def refused(call: Callable[[], object], *names: str) -> None:
    """Make the call, which must be refused soon, in one line that has all of ``names``."""
    begun = time.monotonic()
    with pytest.raises(AccessRefused) as caught:
        call()
    assert time.monotonic() - begun < 9
    text = str(caught.value)
    assert "\n" not in text
    for name in names:
        assert name in text, text


# Permissions.


def test_who_may_not_configure_is_told_at_the_declaration(own_node, own_bench):
    queue = own_bench.queue()
    with own_node.user("", ".*", ".*") as url:
        session = own_bench.open_url(url)
        refused(lambda: session.declare(Queue("new")), "queue 'new'", "configure")
        refused(lambda: session.declare(Exchange("new")), "exchange 'new'", "configure")
        refused(lambda: session.delete(Queue(queue)), queue, "configure")
        assert own_bench.publish(session, own_bench.message(queue)) == ["confirmed"]
        session.subscribe("c", queue, prefetch=1)
        own_bench.ack(session, *own_bench.take(session, "c", 1))
        session.flush("c")
        delayed = own_bench.message(queue)
        delayed.delay = 0.1
        own_bench.session.delete(Exchange("qc.delay"))
        refused(lambda: session.publish([delayed]), "delay", "configure", "qc.delay.*")
        session.close()


def test_who_may_not_write_is_told_at_the_publish(own_node, own_bench):
    exchange, queue = own_bench.exchange(), own_bench.queue()
    own_bench.session.declare(Binding(exchange, queue, "k"))
    with own_node.user(".*", "", ".*") as url:
        session = own_bench.open_url(url)
        for target in ("", exchange):
            message = own_bench.message("k", exchange=target)
            refused(lambda m=message: session.publish([m]), f"exchange '{target or 'amq.default'}'")
        refused(lambda: session.declare(Binding(exchange, queue, "l")), queue)
        assert session.inspect(queue).ready == 0
        with Connection(url) as connection:
            producer = connection.producer(exchange)
            refused(lambda: producer.publish(b"x", "k"), exchange)
            many = [(b"x", "k")] * 50
            refused(lambda: producer.publish_many(many), exchange)
        session.close()


def test_who_may_not_read_is_told_at_the_subscription(own_node, own_bench):
    queue = own_bench.queue()
    with own_node.user(".*", ".*", "") as url:
        session = own_bench.open_url(url)
        refused(lambda: session.subscribe("c", queue, prefetch=1), queue, "read")
        refused(lambda: session.purge(queue), queue, "read")
        with Connection(url) as connection, pytest.raises(AccessRefused, match=queue):
            connection.consumer(queue).receive(timeout=20.0)
        session.close()


def test_who_may_neither_set_a_message_aside_nor_delay_it_gets_it_again_after_a_pause(
    own_node, own_bench, caplog
):
    queue = own_bench.queue()
    wrong = own_bench.message(queue, b"{", content_type="application/json")
    right = own_bench.message(queue, b"1", content_type="application/json")
    assert own_bench.publish(own_bench.session, wrong, right) == ["confirmed"] * 2
    with own_node.user("", ".*", queue) as url, Connection(url) as connection:
        consumer = connection.consumer(queue)
        message = consumer.receive(timeout=20.0)
        assert message.payload == 1
        message.ack()
        assert consumer.receive(timeout=2.0) is None
        with pytest.raises(TransportError, match="1 message that"):
            consumer.flush()
    (line,) = [r.message for r in caplog.records if "cannot be set aside" in r.message]
    assert f"{queue}.dlq" in line
    assert "configure" in line
    assert "permission to configure, write and read exchanges and queues named qc." in caplog.text
    assert own_bench.ready(queue) == 1


def test_who_may_not_enter_a_virtual_host_is_told_at_open(own_node, own_bench):
    own_node.control("add_vhost", "closed")
    with own_node.user(".*", ".*", ".*") as url:
        refused(lambda: own_bench.open_url(f"{url}closed"), "'closed'", "permissions")
        refused(lambda: own_bench.open_url(f"{url}missing"), "'missing'")
        wrong = url.replace(url.split(":")[2].split("@")[0], "wrong-password")
        refused(lambda: own_bench.open_url(wrong), "check user and password")


# The memory alarm.


def test_an_alarm_stops_publishers_in_time_and_lets_consumers_drain(own_node, own_bench, caplog):
    caplog.set_level(logging.INFO, "queue_core")
    queue = own_bench.queue()
    session = own_bench.open()
    own_bench.send(queue, *[b"%d" % n for n in range(50)])
    assert own_bench.publish(session, own_bench.message(queue)) == ["confirmed"]
    with own_node.memory_alarm() as end:
        begun = time.monotonic()
        outcomes = session.publish([own_bench.message(queue, b"late")], timeout=1.0)
        assert time.monotonic() - begun < 8
        assert outcomes[0].status == "unknown"
        assert "alarm" in outcomes[0].detail
        begun = time.monotonic()
        with pytest.raises(BrokerFull, match="memory or disk alarm"):
            session.publish([own_bench.message(queue, b"too late")], timeout=0.5)
        assert time.monotonic() - begun < 8
        assert any("takes no messages" in record.message for record in caplog.records)
        session.subscribe("c", queue, prefetch=10)
        for _ in range(51):
            own_bench.ack(session, *own_bench.take(session, "c", 1))
        session.flush("c")
        end()
        eventually(lambda: any("takes messages again" in r.message for r in caplog.records))
        assert own_bench.publish(session, own_bench.message(queue, b"after")) == ["confirmed"]
    bodies = [delivery.body for delivery in own_bench.take(session, "c", 2)]
    assert bodies == [b"late", b"after"]
    session.cancel("c")


def test_a_connection_that_is_opened_under_an_alarm_fails_in_time_too(own_node, own_bench):
    queue = own_bench.queue()
    with own_node.memory_alarm(), Connection(own_node.url) as connection:
        producer = connection.producer()
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises((NotConfirmed, BrokerFull), match="alarm"):
                producer.publish(b"x", queue, timeout=1.0)
            assert time.monotonic() - begun < 8
        assert connection.inspect(queue).ready == 0


def test_an_alarm_that_outlasts_the_blocked_timeout_ends_the_publishing_connection_only(
    own_node, own_bench
):
    queue = own_bench.queue()
    session = own_bench.open_url(f"{own_node.url}?blocked_timeout=1")
    assert own_bench.publish(session, own_bench.message(queue)) == ["confirmed"]
    with own_node.memory_alarm():
        begun = time.monotonic()
        with pytest.raises(TransportError, match="alarm"):
            session.publish([own_bench.message(queue)], timeout=20.0)
        assert time.monotonic() - begun < 15
        assert not session.closed
    assert own_bench.publish(session, own_bench.message(queue)) == ["confirmed"]


# The ack timeout.


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_message_that_is_unacked_for_too_long_comes_again_and_the_consumer_goes_on(
    own_node, own_bench, caplog, kind
):
    with (
        own_node.impatient(1.5),
    ):
        queue, other = own_bench.queue(queue_type=kind), own_bench.queue()
        session = own_bench.open()
        own_bench.send(queue, b"slow", b"next")
        own_bench.send(other, b"other")
        session.subscribe("c", queue, prefetch=1)
        (slow,) = own_bench.take(session, "c", 1)
        session.subscribe("c", other, prefetch=1)
        (patient,) = own_bench.take(session, "c", 1)
        own_bench.ack(session, patient)
        session.flush("c")
        eventually(lambda: own_bench.ready(queue) == 2, 30.0, what="the broker takes it back")
        (again,) = own_bench.take(session, "c", 1)
        assert again.body == b"slow"
        assert again.redelivered
        assert not session.closed
        if kind == "quorum":
            headers = again.reader.properties(again.raw).headers
            assert headers["x-delivery-count"] == 1
        own_bench.ack(session, slow)
        with pytest.raises(StaleDelivery, match="1 settlement"):
            session.flush("c")
        own_bench.ack(session, again)
        assert own_bench.take(session, "c", 1)[0].body == b"next"
        (line,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        for part in (queue, "consumer_timeout", "delivered again"):
            assert part in line.message


def test_a_client_that_acks_too_late_is_told_and_goes_on(own_node, own_bench):
    queue = own_bench.queue()
    with (
        own_node.impatient(1.5),
        Connection(own_node.url) as connection,
    ):
        producer = connection.producer()
        producer.publish_many([(b"1", queue), (b"2", queue)])
        consumer = connection.consumer(queue, prefetch=1)
        late = consumer.receive(timeout=20.0)
        eventually(lambda: own_bench.ready(queue) == 2, 30.0, what="the broker takes them back")
        late.ack()
        bodies = []
        for _ in range(2):
            message = consumer.receive(timeout=20.0)
            bodies.append(message.body)
            message.ack()
        assert bodies == [b"1", b"2"]
        with pytest.raises(StaleDelivery):
            consumer.flush()
        consumer.flush()
        assert own_bench.ready(queue) == 0
    assert own_bench.rest(queue) == []


# A quorum queue without a majority.


def test_a_queue_that_does_not_answer_holds_up_no_other_after_a_reconnect(
    own_node, own_bench, caplog
):
    silent, other = own_bench.queue(queue_type="quorum"), own_bench.queue()
    with Connection(own_node.url, timeout=3.0) as connection:
        consumers = {name: connection.consumer(name, decode=False) for name in (silent, other)}
        for consumer in consumers.values():
            consumer.start()
        with own_node.silent(silent):
            connection._recovery.session.cut()
            own_bench.send(other, b"other")
            message = consumers[other].receive(timeout=60.0)
            assert message.body == b"other"
            message.ack()
            assert consumers[silent].receive(timeout=0.1) is None
        assert f"{silent!r}: no answer" in caplog.text
        own_bench.send(silent, b"late")
        message = consumers[silent].receive(timeout=60.0)
        assert message.body == b"late"
        message.ack()


def test_who_subscribes_first_to_a_queue_that_does_not_answer_is_told(own_node, own_bench):
    silent, other = own_bench.queue(queue_type="quorum"), own_bench.queue()
    session = own_bench.open()
    with own_node.silent(silent):
        with pytest.raises(ConnectTimeout, match=silent):
            session.subscribe("c", silent, prefetch=1, timeout=1.0)
        session.subscribe("c", other, prefetch=1)
    session.subscribe("c", silent, prefetch=1)
    own_bench.send(silent, b"1")
    own_bench.ack(session, *own_bench.take(session, "c", 1))
