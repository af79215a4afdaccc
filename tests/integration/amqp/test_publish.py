"""Publishing on RabbitMQ: what each publication is told, whatever happens around it."""

from __future__ import annotations

import contextlib
import threading
import time

import pika
import pytest

from queue_core import Connection
from queue_core.errors import (
    AccessRefused,
    ConnectionLost,
    QueueNotFound,
    TooLarge,
    Unroutable,
    UsageError,
)
from queue_core.testing.eventually import eventually
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transports.amqp.direct_reply import PSEUDO_QUEUE


def test_returns_find_their_publication_among_many(bench):
    queue = bench.queue()
    nowhere = f"{queue}-missing"
    batch = [bench.message(nowhere if n % 3 == 0 else queue, b"%d" % n) for n in range(2000)]
    expected = ["unroutable" if n % 3 == 0 else "confirmed" for n in range(2000)]
    assert bench.publish(bench.session, *batch) == expected
    assert bench.ready(queue) == expected.count("confirmed")


def test_publications_that_share_message_id_exchange_and_key_are_told_apart(bench):
    """Only their headers differ, and a headers exchange takes one of them."""
    exchange, queue = bench.exchange("headers"), bench.queue()
    bench.session.declare(Binding(exchange, queue, arguments={"wanted": True}))
    batch = [
        bench.message("", exchange=exchange, message_id="same", headers={"wanted": wanted})
        for wanted in (False, True, True, False, True)
    ]
    assert bench.publish(bench.session, *batch) == [
        "unroutable",
        "confirmed",
        "confirmed",
        "unroutable",
        "confirmed",
    ]


def test_a_return_whose_properties_the_broker_changed_is_matched_by_exchange_and_key(bench):
    queue = bench.queue()
    nowhere = f"{queue}-missing"
    batch = [
        bench.message(queue, b"1"),
        bench.message(nowhere, b"2", headers={"BCC": [f"{nowhere}-too"], "n": 2}),
        bench.message(queue, b"3"),
    ]
    assert bench.publish(bench.session, *batch) == ["confirmed", "unroutable", "confirmed"]


def test_a_message_carries_no_message_id_that_the_user_did_not_give(bench):
    queue = bench.queue()
    bench.send(queue, b"x")
    bench.session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(bench.session, "c", 1)
    assert delivery.reader.properties(delivery.raw).message_id is None


def test_a_missing_exchange_is_an_error_and_the_next_publish_works(bench):
    queue = bench.queue()
    with pytest.raises(QueueNotFound, match="no-such-exchange"):
        bench.session.publish(
            [bench.message(queue), bench.message("k", exchange="no-such-exchange")]
        )
    bench.send(queue, b"after")
    assert not bench.session.closed


def test_a_missing_exchange_of_one_thread_is_nothing_to_the_others(bench):
    """The broker closes the channel on which it is named; they use another one."""
    exchange, queue = bench.exchange("fanout"), bench.queue()
    bench.session.declare(Binding(exchange, queue))
    assert bench.publish(bench.session, bench.message("", exchange=exchange)) == ["confirmed"]
    seen: set[str] = set()
    stop = threading.Event()
    failures: list[BaseException] = []

    def innocent():
        try:
            while not stop.is_set():
                batch = [bench.message(queue) for _ in range(100)]
                batch += [bench.message("", exchange=exchange) for _ in range(100)]
                seen.update(bench.publish(bench.session, *batch))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=innocent)
    thread.start()
    for _ in range(30):
        with pytest.raises(QueueNotFound, match="no-such-exchange"):
            bench.session.publish([bench.message("k", exchange="no-such-exchange")])
    stop.set()
    thread.join()
    assert not failures
    assert seen == {"confirmed"}


def test_who_shares_a_channel_with_a_wrong_message_hears_nothing_of_it(bench):
    """The broker closes the channel; what became of the others on it is unknown, not wrong."""
    queue, wrong = bench.queue(), bench.message("k", exchange="no-such-exchange")
    forged = bench.message(queue, user_id="somebody-else")
    fresh = iter([bench.exchange("fanout") for _ in range(40)])
    seen: set[str] = set()
    stop = threading.Event()
    failures: list[BaseException] = []

    def innocent():
        try:
            while not stop.is_set():
                found = [bench.message(queue) for _ in range(20)]
                seen.update(bench.publish(bench.session, *found))
                if exchange := next(fresh, None):  # it goes where missing ones go
                    new = bench.message("", exchange=exchange)
                    seen.update(bench.publish(bench.session, new))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=innocent) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        with pytest.raises(AccessRefused, match="somebody-else"):
            bench.session.publish([forged])
        with pytest.raises(QueueNotFound, match="no-such-exchange"):
            bench.session.publish([wrong])
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert {"confirmed", "unroutable"} <= seen <= {"confirmed", "unroutable", "unknown"}
    bench.send(queue, b"fine")


def test_an_exchange_that_was_deleted_is_missed(bench):
    exchange, queue = bench.exchange("fanout"), bench.queue()
    bench.session.declare(Binding(exchange, queue))
    assert bench.publish(bench.session, bench.message("", exchange=exchange)) == ["confirmed"]
    bench.session.delete(Exchange(exchange))
    for _ in range(2):
        with pytest.raises(QueueNotFound, match=exchange):
            bench.session.publish([bench.message("", exchange=exchange)])
    bench.send(queue, b"fine")


def test_a_full_queue_refuses_each_message_beyond_its_room(bench):
    queue = bench.queue(max_length=5, overflow="reject-publish")
    batch = [bench.message(queue, b"%d" % n) for n in range(200)]
    assert bench.publish(bench.session, *batch) == ["confirmed"] * 5 + ["refused"] * 195
    assert bench.ready(queue) == 5


def test_large_bodies_arrive_whole_from_many_threads(bench):
    queue = bench.queue()
    bodies = [bytes([n]) * (300_000 + n) for n in range(8)]
    threads = [threading.Thread(target=bench.send, args=(queue, body)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    big = bytes(range(256)) * 20_000
    bench.send(queue, big)
    assert sorted(bench.rest(queue, least=len(bodies) + 1)) == sorted([*bodies, big])


def test_what_amqp_cannot_carry_is_refused_before_anything_is_sent(bench):
    queue = bench.queue()
    for wrong in (
        bench.message(queue, headers={"k": object()}),
        bench.message("k" * 256),
        bench.message(queue, correlation_id="x" * 300),
        bench.message(queue, headers={"CC": "what RabbitMQ takes for a list of keys"}),
        bench.message(queue, headers={"CC": [queue, "amq.rabbitmq.reply-to.a.b"]}),
        bench.message(queue, reply_to="amq.rabbitmq.reply-to"),
        bench.message(queue, expiration=5e6),
        bench.message(queue, headers={"k": list(range(100_000))}),
    ):
        with pytest.raises((UsageError, TooLarge)):
            bench.session.publish([bench.message(queue), wrong])
    assert bench.ready(queue) == 0
    bench.send(queue, b"fine")


def test_a_damaged_address_for_a_direct_reply_is_a_queue_that_does_not_exist(bench):
    """RabbitMQ 3.10 would end the connection, with everybody's publications."""
    queue = bench.queue()
    bench.send(queue, b"first")
    link = bench.session._publisher._link
    damaged = [bench.message("amq.rabbitmq.reply-to.g2dkAA==.k") for _ in range(2)]
    damaged[1].mandatory = False
    outcomes = bench.publish(bench.session, *damaged, bench.message(queue, b"last"))
    assert outcomes == ["unroutable", "confirmed", "confirmed"]
    assert not link.ended
    assert bench.rest(queue) == [b"first", b"last"]


def test_a_client_that_asked_for_a_direct_reply_gets_it(bench, amqp_url):
    """One of another make: its publishing channel must be the one that consumes."""
    queue, answers = bench.queue(), []
    bench.session.subscribe("server", queue, prefetch=1)
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(amqp_url))) as client:
        channel = client.channel()
        channel.basic_consume(PSEUDO_QUEUE, lambda *got: answers.append(got[3]), auto_ack=True)
        channel.basic_publish("", queue, b"?", pika.BasicProperties(reply_to=PSEUDO_QUEUE))
        (question,) = bench.take(bench.session, "server", 1)
        answer = bench.message(question.reader.properties(question.raw).reply_to, b"!")
        answer.mandatory = False
        assert bench.publish(bench.session, answer) == ["confirmed"]
        client.process_data_events(30)
    assert answers == [b"!"]
    bench.ack(bench.session, question)


@pytest.mark.parametrize("value", [{1}, 1.5, 2**63, "\ud800"])
def test_an_argument_that_amqp_cannot_carry_is_refused_at_once(bench, amqp_url, value):
    """It was taken for a lost connection, and tried again until the timeout."""
    exchange, queue = bench.exchange("headers"), bench.queue()
    with Connection(amqp_url, timeout=60.0) as connection:
        for entity in (
            Queue(f"{queue}-never", arguments={"x-mine": value}),
            Binding(exchange, queue, arguments={"mine": value}),
        ):
            began = time.monotonic()
            with pytest.raises(UsageError, match=queue):
                connection.declare(entity)
            assert time.monotonic() - began < 30.0


def test_of_a_large_batch_what_is_long_before_the_one_that_cannot_be_carried_is_sent(bench):
    queue = bench.queue()
    batch = [bench.message(queue, b"%d" % n) for n in range(250)]
    batch[230] = bench.message(queue, headers={"k": object()})
    with pytest.raises(UsageError, match="k"):
        bench.session.publish(batch)
    nowhere = bench.message(f"{queue}-missing")
    assert bench.publish(bench.session, batch[240], nowhere) == ["confirmed", "unroutable"]
    assert bench.rest(queue) == [b"%d" % n for n in [*range(200), 240]]


def test_the_loss_of_the_publishing_connection_leaves_the_session_open(bench, proxy):
    session = bench.open(proxy.port)
    queue = bench.queue()
    session.subscribe("c", queue, prefetch=10)
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]
    (delivery,) = bench.take(session, "c", 1)
    session._publisher.cut()
    eventually(lambda: session._publisher._link.ended)
    assert not session.closed
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]
    bench.ack(session, delivery)
    session.flush("c")


def test_a_connection_that_dies_under_a_publish_is_reported_and_nothing_hangs(bench, proxy):
    session = bench.open(proxy.port)
    queue = bench.queue()
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]
    threading.Timer(0.3, proxy.reset).start()
    proxy.delay(0.2)
    begun = time.monotonic()
    with pytest.raises(ConnectionLost, match="unknown"):
        while time.monotonic() < begun + 20:
            session.publish([bench.message(queue) for _ in range(100)], timeout=60.0)
    assert time.monotonic() - begun < 15


def test_a_broker_that_does_not_answer_makes_the_outcome_unknown_in_time(bench, proxy):
    session = bench.open(proxy.port)
    queue = bench.queue()
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]
    proxy.stall()
    begun = time.monotonic()
    outcomes = session.publish([bench.message(queue)], timeout=0.5)
    assert 0.4 < time.monotonic() - begun < 5
    assert outcomes[0].status == "unknown"
    assert "within 0.5 seconds" in outcomes[0].detail
    proxy.heal()
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]


def test_an_interrupt_in_the_middle_of_a_publish_shifts_no_confirm(bench, amqp_url, monkeypatch):
    """Ctrl-C between numbering and sending: later messages must not get the fate of others."""
    queue = bench.queue()
    with Connection(amqp_url) as connection:
        producer = connection.producer()
        producer.publish(b"1", queue)
        session = connection._recovery.session

        def interrupted(data):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(session._publisher._link, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                producer.publish(b"interrupted", queue)
        producer.publish(b"2", queue)
        with pytest.raises(Unroutable):
            producer.publish(b"3", f"{queue}-missing")
        producer.publish(b"4", queue)
    assert bench.rest(queue) == [b"1", b"2", b"4"]


def test_an_interrupt_while_waking_the_io_thread_leaves_it_wakeable(bench, monkeypatch):
    queue = bench.queue()
    session = bench.open()
    session.subscribe("c", queue, prefetch=10)
    bench.send(queue, b"1", b"2")
    first, second = bench.take(session, "c", 2)

    def interrupted(callback):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(session._link.connection.ioloop, "add_callback_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench.ack(session, first)
    bench.ack(session, second)
    session.flush("c", timeout=20.0)
    session.cut()
    assert bench.rest(queue) == []
