"""Consuming on RabbitMQ: coalesced acks, stale tokens, channels and queues that go away."""

from __future__ import annotations

import random
import threading
import time

import pytest

from queue_core import Connection
from queue_core.errors import AccessRefused, QueueNotFound, StaleDelivery, UsageError
from queue_core.message import Settlement
from queue_core.testing.eventually import eventually
from queue_core.topology import Queue
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.channel import Channel


def only_subscription(session):
    (subscription,) = session._settling.live.values()
    return subscription


def break_channel(session):
    """Make the broker close the consumer's channel: ack what it never delivered."""
    channel = only_subscription(session).channel
    session._link.submit(lambda: session._link.connection.emit(frames.ack(channel.number, 999_999)))
    eventually(lambda: channel.closed is not None)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("seed", range(3))
def test_a_coalesced_ack_never_covers_a_message_that_is_unsettled(bench, kind, seed):
    """Settle at random and die: exactly the unsettled and the requeued ones come again."""
    chance = random.Random(seed)
    queue = bench.queue(queue_type=kind)
    bodies = [b"%03d" % n for n in range(300)]
    bench.send(queue, *bodies)
    session = bench.open()
    session.subscribe("c", queue, prefetch=100)
    held, back = [], set()
    seen = 0
    while seen < len(bodies):
        for delivery in session.receive("c", limit=chance.randrange(1, 40), wait=1.0):
            held.append(delivery)
            seen += 1
        chance.shuffle(held)
        while len(held) > 60 or (held and chance.random() < 0.6):
            batch = [held.pop() for _ in range(min(len(held), chance.randrange(1, 20)))]
            session.settle([Settlement(d, chance.choice(["ack", "reject"])) for d in batch])
    session.flush("c")
    back = {delivery.body for delivery in held}
    session.cut()
    eventually(lambda: session.closed)
    assert sorted(bench.rest(queue)) == sorted(back)


def test_the_window_is_never_exceeded_and_acks_open_it(bench):
    queue = bench.queue()
    bench.send(queue, *[b"%d" % n for n in range(30)])
    bench.session.subscribe("c", queue, prefetch=7)
    held = bench.take(bench.session, "c", 7)
    assert bench.session.receive("c", wait=0.3) == []
    assert bench.ready(queue) == 23
    bench.ack(bench.session, *held[:3])
    assert len(bench.take(bench.session, "c", 3)) == 3
    assert bench.session.receive("c", wait=0.3) == []


def test_an_ack_reaches_the_broker_without_a_flush(bench):
    queue = bench.queue()
    bench.send(queue, b"1", b"2")
    session = bench.open()
    session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(session, "c", 1)
    bench.ack(session, delivery)
    eventually(lambda: bench.ready(queue) == 0)


def test_settling_twice_is_a_local_error_and_the_channel_stays(bench):
    queue = bench.queue()
    bench.send(queue, b"1", b"2")
    bench.session.subscribe("c", queue, prefetch=10)
    first, second = bench.take(bench.session, "c", 2)
    bench.ack(bench.session, first, first)
    with pytest.raises(StaleDelivery, match="1 settlement"):
        bench.session.flush("c")
    bench.ack(bench.session, second)
    bench.session.flush("c")
    assert only_subscription(bench.session).channel.closed is None


def test_settle_then_does_not_tell_of_what_was_stale_before(bench):
    queue, following = bench.queue(), bench.queue()
    bench.send(queue, b"1", b"2")
    session = bench.session
    session.subscribe("c", queue, prefetch=10)
    first, second = bench.take(session, "c", 2)
    bench.ack(session, first, first)
    outcomes = session.settle_then(second, [bench.message(following, b"3")])
    assert [outcome.status for outcome in outcomes] == ["confirmed"]
    with pytest.raises(StaleDelivery, match="1 settlement"):
        session.flush("c")
    assert bench.rest(following) == [b"3"]


def test_a_token_of_an_ended_subscription_is_never_sent(bench):
    queue = bench.queue()
    bench.send(queue, b"1")
    bench.session.subscribe("c", queue, prefetch=10)
    (old,) = bench.take(bench.session, "c", 1)
    bench.session.cancel("c")
    bench.session.subscribe("c", queue, prefetch=10)
    (new,) = bench.take(bench.session, "c", 1)
    assert new.redelivered
    assert new.token != old.token
    bench.ack(bench.session, old)
    with pytest.raises(StaleDelivery):
        bench.session.flush("c")
    bench.ack(bench.session, new)
    bench.session.flush("c")
    assert bench.rest(queue) == []


def test_a_channel_that_the_broker_closed_is_replaced_and_its_deliveries_are_stale(bench):
    queue, other = bench.queue(), bench.queue()
    bench.send(queue, b"1", b"2")
    bench.send(other, b"other")
    session = bench.open()
    session.subscribe("c", queue, prefetch=10)
    first, second = bench.take(session, "c", 2)
    bench.ack(session, first)
    session.flush("c")
    break_channel(session)
    assert not session.closed
    (again,) = bench.take(session, "c", 1)
    assert again.body == b"2"
    assert again.redelivered
    bench.ack(session, second)
    with pytest.raises(StaleDelivery):
        session.flush("c")
    bench.ack(session, again)
    session.flush("c")


def busy_and_broken(bench):
    """Return a session whose consumer has a queue that never ends, and one to subscribe again."""
    busy, broken = bench.queue(), bench.queue()
    session = bench.open()
    session.subscribe("c", broken, prefetch=10)
    break_channel(session)
    session.subscribe("c", busy, prefetch=100)
    bench.send(broken, b"broken")
    bench.send(busy, *[b"busy"] * 100)
    eventually(lambda: len(session._consuming._inboxes["c"].deliveries) == 100)
    return session


def test_a_subscription_that_broke_comes_back_while_another_queue_is_busy(bench):
    session = busy_and_broken(bench)
    assert [len(session.receive("c", limit=1)) for _ in range(4)] == [0, 1, 1, 1]
    assert b"broken" in {delivery.body for delivery in bench.take(session, "c", 98)}


def test_a_subscription_that_cannot_come_back_leaves_other_queues_their_turn(bench, monkeypatch):
    session, got = busy_and_broken(bench), []

    def refuse(*arguments):
        raise AccessRefused("somebody took the permission away")

    monkeypatch.setattr(session._consuming, "_subscribe", refuse)
    for _ in range(30):
        try:
            got += session.receive("c", limit=1)
        except AccessRefused:
            got.append(None)
    assert got.count(None) == 15
    assert len(got) == 30


def test_settlements_without_proof_count_as_stale_when_the_channel_ends(bench):
    queue = bench.queue()
    bench.send(queue, b"1")
    session = bench.open()
    session.subscribe("c", queue, prefetch=10)
    (delivery,) = bench.take(session, "c", 1)
    bench.ack(session, delivery)
    break_channel(session)
    with pytest.raises(StaleDelivery):
        session.flush("c")
    session.flush("c")


def test_a_queue_deleted_under_its_consumer_is_reported_once(bench):
    queue, kept = bench.queue(), bench.queue()
    bench.send(queue, b"1", b"2")
    session = bench.open()
    session.subscribe("c", queue, prefetch=10)
    session.subscribe("c", kept, prefetch=10)
    held = bench.take(session, "c", 2)
    bench.session.delete(Queue(queue))
    with pytest.raises(QueueNotFound, match=queue):
        for _ in range(50):
            session.receive("c", wait=0.2)
    assert session.receive("c", wait=0.2) == []
    bench.ack(session, *held)
    session.flush("c")
    bench.send(kept, b"still")
    assert bench.take(session, "c", 1)[0].body == b"still"
    bench.session.declare(Queue(queue))
    session.subscribe("c", queue, prefetch=10)
    bench.send(queue, b"new")
    assert bench.take(session, "c", 1)[0].body == b"new"


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_that_its_own_session_replaces_at_once_ends_the_subscription(bench, kind):
    """RabbitMQ 3.10 says nothing of it when a quorum queue is replaced so quickly."""
    queue = bench.queue(queue_type=kind)
    session = bench.session
    for turn in range(3):
        session.subscribe("c", queue, prefetch=10)
        bench.send(queue, b"%d" % turn)
        (held,) = bench.take(session, "c", 1)
        session.delete(Queue(queue))
        session.declare(Queue(queue, queue_type=kind))
        with pytest.raises(QueueNotFound, match=queue) as caught:
            for _ in range(10):
                session.receive("c", wait=0.2)
        assert caught.value.ended == queue
        bench.ack(session, held)
        session.flush("c")


def test_a_consumer_cancelled_by_rabbitmq_4_3_goes_on_if_its_queue_is_there(bench, caplog):
    """That version cancels for a late ack too; here another reason has to do."""
    queue = bench.queue(queue_type="classic")
    bench.send(queue, b"1")
    session = bench.open()
    session._link.connection.server_properties["version"] = "4.3.0"
    session.subscribe("c", queue, prefetch=10)
    (held,) = bench.take(session, "c", 1)
    bench.session.delete(Queue(queue))
    bench.session.declare(Queue(queue, queue_type="classic"))
    bench.send(queue, b"2")
    (new,) = bench.take(session, "c", 1)
    assert new.body == b"2"
    bench.ack(session, held, new)
    session.flush("c")
    assert f"subscribed again to queue {queue!r}" in caplog.text
    bench.session.delete(Queue(queue))
    with pytest.raises(QueueNotFound, match=queue) as caught:
        for _ in range(10):
            session.receive("c", wait=0.5)
    assert caught.value.ended == queue


def test_a_transient_queue_is_declared_on_a_connection_of_its_own_on_rabbitmq_4(bench):
    """Its refusal would end the connection."""
    session = bench.open()
    session._link.connection.server_properties["version"] = "4.3.0"
    queue = Queue("transient-queue", durable=False)
    try:
        assert session.declare(queue) == queue.name
        assert session.inspect(queue.name).ready == 0
    finally:
        session.delete(queue)


def test_a_publisher_bears_a_quorum_queue_that_is_replaced_at_once(bench, amqp_url):
    """RabbitMQ 3.10 may end its connection with 541."""
    queue = Queue(bench.queue(queue_type="quorum"), queue_type="quorum")
    with Connection(amqp_url) as connection:
        producer = connection.producer()
        for _ in range(5):
            producer.publish(b"x", queue.name)
            bench.session.delete(queue)
            bench.session.declare(queue)
            producer.publish_many([(b"y", queue.name)] * 20)
            eventually(lambda: bench.ready(queue.name) >= 20)


def test_subscribing_again_changes_nothing_and_another_prefetch_is_refused(bench):
    queue = bench.queue()
    for _ in range(2):
        bench.session.subscribe("c", queue, prefetch=5)
    assert bench.session.inspect(queue).consumers == 1
    with pytest.raises(UsageError, match="cancel it first"):
        bench.session.subscribe("c", queue, prefetch=6)
    with pytest.raises(UsageError, match="1 to 65535"):
        bench.session.subscribe("c", queue, prefetch=0)


@pytest.mark.parametrize("ending", ["cancel", "cancel_queue", "stop"])
def test_who_subscribes_while_another_thread_ends_it_leaves_nothing_behind(
    bench, monkeypatch, ending
):
    """Else messages go to a consumer that nobody reads."""
    queue = bench.queue()
    bench.send(queue, b"1")
    session = bench.open()
    session.subscribe("c", queue, prefetch=10)
    break_channel(session)
    end = {
        "cancel": lambda: session.cancel("c"),
        "cancel_queue": lambda: session.cancel("c", queue),
        "stop": lambda: session.stop("c"),
    }
    opening = Channel.open

    def open_late(*arguments, **options):
        monkeypatch.undo()
        end[ending]()
        return opening(*arguments, **options)

    monkeypatch.setattr(Channel, "open", open_late)
    assert session.receive("c") == []
    eventually(lambda: bench.session.inspect(queue).consumers == 0)
    assert bench.rest(queue, least=1) == [b"1"]


def test_what_is_set_aside_goes_there_alone_whatever_other_queues_it_was_sent_to(bench, amqp_url):
    """RabbitMQ routes by the header CC: each copy would come to the other queues again."""
    first, second = bench.queue(), bench.queue()
    wrong = bench.message(
        first, b"{", content_type="application/json", headers={"CC": [second], "mine": 1}
    )
    assert bench.publish(bench.session, wrong) == ["confirmed"]
    with Connection(amqp_url) as connection, connection.consumer(first, second) as consumer:
        eventually(lambda: consumer.receive(timeout=0.1) or consumer.set_aside >= 2)
        assert consumer.receive(timeout=0.3) is None
        assert consumer.set_aside == 2
    for queue in (first, second):
        assert bench.rest(f"{queue}.dlq", least=1) == [b"{"]
        bench.session.delete(Queue(f"{queue}.dlq"))
    assert bench.ready(second) == 0


def test_a_failed_subscription_leaves_nothing_behind(bench):
    with pytest.raises(QueueNotFound, match="no-such-queue"):
        bench.session.subscribe("c", "no-such-queue", prefetch=5)
    owner = bench.open()
    name = owner.declare(Queue(exclusive=True, durable=False))
    with pytest.raises(AccessRefused, match=name):
        bench.session.subscribe("c", name, prefetch=5)
    assert not bench.session._settling.live
    assert bench.session.receive("c", wait=0.0) == []


def test_a_receive_is_woken(bench):
    bench.session.subscribe("c", bench.queue(), prefetch=1)
    threading.Timer(0.2, bench.session.wake, ["c"]).start()
    begun = time.monotonic()
    assert bench.session.receive("c", wait=20.0) == []
    assert time.monotonic() - begun < 10


def test_requeued_quorum_messages_keep_their_order_ahead_of_the_others(bench):
    queue = bench.queue(queue_type="quorum")
    bench.send(queue, *[b"%d" % n for n in range(6)])
    bench.session.subscribe("c", queue, prefetch=3)
    held = bench.take(bench.session, "c", 3)
    bench.session.settle([Settlement(delivery, "requeue") for delivery in reversed(held)])
    bench.session.cancel("c")
    assert bench.rest(queue) == [b"%d" % n for n in range(6)]


def test_a_message_is_not_dropped_however_often_it_comes_back(bench):
    queue = bench.queue(queue_type="quorum")
    bench.send(queue, b"1")
    bench.session.subscribe("c", queue, prefetch=1)
    for _ in range(60):
        (delivery,) = bench.take(bench.session, "c", 1)
        bench.session.settle([Settlement(delivery, "requeue")])
    (delivery,) = bench.take(bench.session, "c", 1)
    bench.ack(bench.session, delivery)
    bench.session.flush("c")


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_what_was_flushed_never_comes_again_even_if_the_connection_dies_then(bench, kind):
    """So many acks that a quorum queue's channel keeps some back until others were applied."""
    for _ in range(4):
        queue = bench.queue(queue_type=kind)
        bench.send(queue, *[b"%d" % n for n in range(300)])
        session = bench.open()
        session.subscribe("c", queue, prefetch=300)
        unsettled, *others = bench.take(session, "c", 300)
        bench.ack(session, *others)
        session.flush("c")
        session.cut()
        assert bench.rest(queue) == [unsettled.body]


def test_consumers_that_come_and_go_leave_nothing_behind(bench):
    queue = bench.queue()
    for number in range(20):
        name = f"consumer-{number}"
        bench.session.subscribe(name, queue, prefetch=1)
        bench.session.cancel(name)
    consuming = bench.session._consuming
    assert not consuming._inboxes
    assert not bench.session._settling.live
    assert bench.session.inspect(queue).consumers == 0


def private_queue(bench, count, *, prefetch):
    """Send messages to an exclusive queue and receive them; return them, and its subscription."""
    queue = bench.session.declare(Queue(exclusive=True, durable=False))
    bench.send(queue, *(b"%d" % number for number in range(count)))
    bench.session.subscribe("c", queue, prefetch=prefetch)
    return bench.take(bench.session, "c", count), only_subscription(bench.session)


def unsettled(session):
    """What the I/O thread has not written, once it has done all that it was told to do."""
    return session._link.call(
        lambda future: future.set_result(len(only_subscription(session).unsettled)),
        time.monotonic() + 10.0,
        "look",
    )


def test_acks_of_an_exclusive_queue_wait_until_half_the_window_is_used(bench):
    found, _ = private_queue(bench, 10, prefetch=10)
    bench.ack(bench.session, *found[:2])
    bench.ack(bench.session, found[2])
    assert unsettled(bench.session) == 10
    bench.ack(bench.session, *found[3:5])
    assert unsettled(bench.session) == 5


def test_acks_of_an_exclusive_queue_are_written_when_nothing_more_comes(bench):
    found, subscription = private_queue(bench, 2, prefetch=10)
    bench.ack(bench.session, found[0])
    assert bench.session.receive("c", wait=0.05) == []
    eventually(lambda: len(subscription.unsettled) == 1)


@pytest.mark.parametrize("end", ["flush", "requeue", "cancel"])
def test_acks_of_an_exclusive_queue_are_written_before_anything_else(bench, end):
    found, subscription = private_queue(bench, 2, prefetch=10)
    session, queue = bench.session, subscription.queue
    bench.ack(session, found[0])
    if end == "flush":
        session.flush("c")
        assert subscription.unsettled == {2}
    if end == "requeue":
        session.settle([Settlement(found[1], "requeue")])
        bench.ack(session, *bench.take(session, "c", 1))
    session.cancel("c")
    session.subscribe("d", queue, prefetch=10)
    expected = [] if end == "requeue" else [b"1"]
    assert [item.body for item in bench.take(session, "d", len(expected))] == expected
    assert session.receive("d", wait=0.2) == []


def test_acks_of_an_exclusive_queue_do_not_wait_where_one_message_is_fetched_at_a_time(bench):
    queue = bench.session.declare(Queue(exclusive=True, durable=False))
    bench.send(queue, b"1", b"2", b"3")
    bench.session.subscribe("c", queue, prefetch=1)
    for _ in range(3):
        bench.ack(bench.session, *bench.take(bench.session, "c", 1))
