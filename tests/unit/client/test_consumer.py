"""Consumer: handing out, settling, setting aside, and what a new session means for old messages."""

import os
import queue as stdlib_queue
import threading

import pytest

from queue_core.consumer import Consumer
from queue_core.errors import (
    AccessRefused,
    AlreadySettled,
    BrokerFull,
    Closed,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    NotConfirmed,
    QueueNotFound,
    Refused,
    SessionLost,
    StaleDelivery,
    TooLarge,
    TopologyMismatch,
    Unroutable,
)
from queue_core.message import Properties, Publication
from queue_core.producer import Producer
from queue_core.simple_queue import SimpleQueue
from queue_core.topology import Queue
from queue_core.transport import Outcome


@pytest.fixture
def consumer(recovery):
    return Consumer(recovery, ["q"], prefetch=10)


def publication():
    return Publication("", "results", b"1", Properties(), "id-1")


def test_messages_come_one_by_one_and_decoded(broker, consumer):
    broker.batches.append([broker.delivery(b"1"), broker.delivery(b'{"a":2}')])
    assert [consumer.receive(1).payload, consumer.receive(1).payload] == [1, {"a": 2}]
    assert broker.sessions[0].calls[:2] == [("subscribe", "q", 10), ("receive",)]


def test_receive_returns_none_when_nothing_came_in_time(broker, consumer):
    start = broker.clock.monotonic()
    assert consumer.receive(timeout=3.5) is None
    assert broker.clock.monotonic() - start == pytest.approx(3.5)


def test_receive_keeps_trying_while_the_broker_is_away_and_then_returns_none(broker, consumer):
    broker.batches.append([broker.delivery()])
    consumer.receive(1)
    broker.failures.append(ConnectionLost("cut"))
    broker.refusals.extend(ConnectionLost("down") for _ in range(1000))
    assert consumer.receive(timeout=20) is None
    broker.refusals.clear()
    broker.batches.append([broker.delivery(b"2")])
    assert consumer.receive(1).payload == 2


def test_receive_returns_none_when_its_session_ends_at_the_deadline(broker, consumer):
    broker.batches.append([broker.delivery()])
    consumer.receive(1)
    broker.failures.append(SessionLost("its lease ended"))
    assert consumer.receive(timeout=0.01) is None
    broker.batches.append([broker.delivery(b"2")])
    assert consumer.receive(1).payload == 2


def test_a_first_connection_that_fails_is_raised(broker, consumer):
    broker.refusals.extend([ConnectionLost("a"), ConnectionLost("b")])
    with pytest.raises(ConnectionLost):
        consumer.receive(1)


def test_each_message_is_settled_once(broker, consumer):
    broker.batches.append([broker.delivery()])
    message = consumer.receive(1)
    message.ack()
    for again in (message.ack, message.reject, message.requeue):
        with pytest.raises(AlreadySettled):
            again()
    assert [item.action for item in broker.sessions[0].settled] == ["ack"]


def test_reject_and_requeue_carry_their_arguments(broker, consumer):
    broker.batches.append([broker.delivery(), broker.delivery()])
    consumer.receive(1).reject("no such order")
    consumer.receive(1).requeue(5, counted=False)
    rejected, requeued = broker.sessions[0].settled
    assert (rejected.action, rejected.reason) == ("reject", "no such order")
    assert (requeued.action, requeued.delay, requeued.counted) == ("requeue", 5, False)


def test_ack_then_publishes_and_acks(broker, consumer):
    broker.batches.append([broker.delivery()])
    (receipt,) = consumer.receive(1).ack(then=[publication()])
    assert receipt.status == "confirmed"
    assert len(broker.sessions[0].settled) == 1


@pytest.mark.parametrize(
    ("outcomes", "error", "blamed"),
    [
        ([Outcome("refused", "full")], Refused, 0),
        ([Outcome("confirmed"), Outcome("unknown", "no answer")], NotConfirmed, 1),
        ([Outcome("refused", "because of another"), Outcome("unroutable", "none")], Unroutable, 1),
    ],
)
def test_ack_then_does_not_ack_when_a_publication_is_not_taken(
    broker, consumer, outcomes, error, blamed
):
    broker.batches.append([broker.delivery()])
    broker.outcomes.append(outcomes)
    message, then = consumer.receive(1), [publication() for _ in outcomes]
    with pytest.raises(error, match=outcomes[blamed].detail) as caught:
        message.ack(then=then)
    assert caught.value.publication is then[blamed]
    assert not message.settled
    assert broker.sessions[0].settled == []


def test_messages_of_a_lost_session_are_stale(broker, consumer, recovery):
    broker.batches.append([broker.delivery(), broker.delivery()])
    consumer.receive(1).ack()
    message = consumer.receive(1)
    broker.failures.append(ConnectionLost("cut"))
    recovery.call(lambda session, left: session.purge("q"), timeout=10)
    broker.batches.append([broker.delivery(b"3")])
    with pytest.raises(StaleDelivery):
        message.ack()
    with pytest.raises(StaleDelivery):
        message.ack(then=[publication()])
    with pytest.raises(StaleDelivery):
        consumer.flush()
    assert broker.published == []


def test_what_was_flushed_is_not_reported_lost_with_the_session(broker, consumer, recovery):
    broker.batches.append([broker.delivery()])
    consumer.receive(1).ack()
    consumer.flush()
    broker.failures.append(ConnectionLost("cut"))
    recovery.call(lambda session, left: session.purge("q"), timeout=10)
    broker.batches.append([broker.delivery(b"2")])
    consumer.receive(1).ack()
    consumer.flush()


def test_a_flush_whose_session_ended_says_once_that_nothing_is_certain(broker, consumer, recovery):
    broker.batches.append([broker.delivery()])
    consumer.receive(1).ack()
    broker.failures.append(ConnectionLost("cut"))
    with pytest.raises(StaleDelivery):
        consumer.flush()
    consumer.flush()


def test_an_ack_with_publications_never_reaches_the_session_after_its_own(broker, consumer):
    broker.batches.append([broker.delivery()])
    message = consumer.receive()
    broker.failures.append(ConnectionLost("the connection broke"))
    with pytest.raises(StaleDelivery):
        message.ack(then=[publication()])
    first, second = broker.sessions
    assert first.closed
    assert not second.settled
    assert ("publish", "id-1") not in second.calls


def test_a_flush_that_was_interrupted_leaves_the_settlements_uncertain(broker, consumer):
    broker.batches.append([broker.delivery()])
    consumer.receive().ack()
    broker.failures.append(KeyboardInterrupt())
    broker.dies = False
    with pytest.raises(KeyboardInterrupt):
        consumer.flush()
    consumer.flush()
    assert broker.sessions[0].calls.count(("flush",)) == 2


def test_a_flush_that_got_no_answer_leaves_the_settlements_uncertain(broker, consumer, recovery):
    broker.batches.append([broker.delivery()])
    consumer.receive(1).ack()
    broker.failures.append(BrokerFull("no room for the log"))
    broker.dies = False
    with pytest.raises(BrokerFull):
        consumer.flush()
    consumer.flush()
    assert broker.sessions[0].calls.count(("flush",)) == 2


def test_after_a_new_session_the_buffer_of_the_old_one_is_not_handed_out(
    broker, consumer, recovery
):
    broker.batches.append([broker.delivery(b"1"), broker.delivery(b"2")])
    assert consumer.receive(1).payload == 1
    broker.failures.append(ConnectionLost("cut"))
    recovery.call(lambda session, left: session.purge("q"), timeout=10)
    broker.batches.append([broker.delivery(b"3")])
    assert consumer.receive(1).payload == 3


def test_what_was_fetched_waits_while_others_may_have_it(broker, consumer):
    broker.batches.append([broker.delivery(b"1"), broker.delivery(b"2")])
    assert consumer.receive(1).payload == 1
    broker.sessions[0].fenced = True
    assert consumer.receive(1) is None
    broker.sessions[0].fenced = False
    assert consumer.receive(1).payload == 2


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"{", "application/json", "DecodeError"),
        (b"cos\nsystem\n", "application/x-python-serialize", "ContentDisallowed"),
        (b"x", "", "ContentDisallowed"),
        (b"[" * 100 + b"]" * 100, "application/json", "TooLarge"),
    ],
)
def test_what_cannot_be_read_goes_to_a_dead_letter_queue_with_the_reason(
    broker, consumer, body, content_type, reason
):
    broker.batches.append([broker.delivery(body, content_type), broker.delivery(b"2")])
    assert consumer.receive(1).payload == 2
    (copy,) = broker.published
    assert (copy.exchange, copy.routing_key, copy.body) == ("", "q.dlq", body)
    assert copy.properties.headers["qc-error"].startswith(reason)
    assert copy.properties.headers["lang"] == "en"
    assert consumer.set_aside == 1
    assert len(broker.sessions[0].settled) == 1


def test_a_dead_letter_exchange_is_used_for_them_when_the_queue_has_one(broker, recovery):
    queue = Queue("q", dead_letter_exchange="dlx", dead_letter_routing_key="dead")
    consumer = Consumer(recovery, [queue])
    broker.batches.append([broker.delivery(b"{")])
    assert consumer.receive(1) is None
    assert [(copy.exchange, copy.routing_key) for copy in broker.published] == [("dlx", "dead")]


def test_an_undecodable_message_is_handed_out_when_asked_for(broker, recovery):
    consumer = Consumer(recovery, ["q"], decode=False)
    broker.batches.append([broker.delivery(b"{")])
    assert consumer.receive(1).body == b"{"


def test_pickle_is_decoded_only_when_accepted(broker, recovery):
    consumer = Consumer(recovery, ["q"], accept=["pickle"])
    broker.batches.append([broker.delivery(b"I7\n.", "application/x-python-serialize")])
    assert consumer.receive(1).payload == 7


def test_run_acks_what_the_handler_left_open(broker, consumer):
    broker.batches.append([broker.delivery(b"1"), broker.delivery(b"2")])
    seen = []

    def handler(message):
        seen.append(message.payload)
        if len(seen) == 1:
            message.requeue()
        else:
            consumer.close()

    consumer.run(handler)
    assert seen == [1, 2]
    assert [item.action for item in broker.sessions[0].settled] == ["requeue", "ack"]


def test_run_stops_and_raises_when_a_handler_fails_and_the_queue_has_no_limit(broker, consumer):
    broker.batches.append([broker.delivery()])

    def handler(message):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        consumer.run(handler)
    (returned,) = broker.sessions[0].settled
    assert (returned.action, returned.counted) == ("requeue", False)


def test_run_returns_a_failed_message_counted_when_the_queue_has_a_limit(broker, recovery):
    consumer = Consumer(recovery, [Queue("q", max_deliveries=3)])
    broker.batches.append([broker.delivery(b"1", attempts=2), broker.delivery(b"2")])

    def handler(message):
        if message.payload == 1:
            raise ValueError("no")
        consumer.close()

    consumer.run(handler)
    returned = broker.sessions[0].settled[0]
    assert (returned.action, returned.counted) == ("requeue", True)
    assert 0 <= returned.delay <= 4


def test_a_deleted_queue_is_reported(broker, consumer):
    consumer.start()
    broker.dies = False
    broker.failures.append(QueueNotFound("queue 'q' was deleted", ended="q"))
    with pytest.raises(QueueNotFound):
        consumer.receive(1)
    consumer.add_queue("q")
    assert broker.sessions[0].calls.count(("subscribe", "q", 10)) == 2


def test_closing_cancels_and_ends_iteration(broker, consumer):
    with consumer:
        pass
    consumer.close()
    assert broker.sessions[0].calls == [("subscribe", "q", 10), ("cancel", None)]
    assert list(consumer) == []
    with pytest.raises(Closed):
        consumer.receive(1)


def test_queues_can_be_added_and_cancelled(broker, consumer):
    consumer.start()
    consumer.add_queue("r")
    broker.batches.append(
        [broker.delivery(b"1", queue="r"), broker.delivery(b"2"), broker.delivery(b"3", queue="r")]
    )
    assert consumer.receive(1).payload == 1
    consumer.cancel_queue("r")
    assert consumer.receive(1).payload == 2
    assert consumer.receive(1) is None


@pytest.mark.parametrize("prefetch", [0, 65536, True, "many"])
def test_prefetch_is_checked(recovery, prefetch):
    with pytest.raises(ConfigError):
        Consumer(recovery, ["q"], prefetch=prefetch)


def test_a_queue_without_a_name_cannot_be_consumed(recovery):
    with pytest.raises(ConfigError, match="declare"):
        Consumer(recovery, [Queue()])


def test_a_message_shows_its_queue_but_never_its_body(broker, consumer):
    broker.batches.append([broker.delivery(b'"secret"')])
    shown = repr(consumer.receive(1))
    assert "'q'" in shown
    assert "secret" not in shown


def test_a_simple_queue_behaves_like_a_queue(broker, recovery, consumer):
    simple = SimpleQueue("q", Producer(recovery), consumer)
    simple.put({"a": 1})
    assert broker.published[0].routing_key == "q"
    broker.batches.append([broker.delivery(b'{"a":1}')])
    assert simple.get(timeout=1) == {"a": 1}
    with pytest.raises(stdlib_queue.Empty):
        simple.get_nowait()
    broker.outcomes.append([Outcome("refused", "full")])
    with pytest.raises(stdlib_queue.Full):
        simple.put(1)
    simple.close()


@pytest.mark.parametrize("outcome", ["returns", "acks itself", "fails"])
def test_run_goes_on_when_the_session_ends_during_a_handler(broker, recovery, outcome):
    consumer = Consumer(recovery, [Queue("q", max_deliveries=3)])
    broker.batches.append([broker.delivery(b"1")])
    seen = []

    def handler(message):
        seen.append(message.payload)
        if len(seen) == 2:
            consumer.stop()
            return
        broker.failures.append(ConnectionLost("cut"))
        recovery.call(lambda session, left: session.purge("q"), timeout=10)
        broker.batches.append([broker.delivery(b"1", attempts=2)])
        if outcome == "acks itself":
            message.ack()
        if outcome == "fails":
            raise ValueError("no")

    consumer.run(handler)
    assert seen == [1, 1]
    assert [item.action for item in broker.sessions[1].settled] == ["ack"]


def test_run_raises_the_handlers_own_error_when_the_session_ended_too(broker, consumer, recovery):
    broker.batches.append([broker.delivery(b"1")])

    def handler(message):
        broker.failures.append(ConnectionLost("cut"))
        recovery.call(lambda session, left: session.purge("q"), timeout=10)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        consumer.run(handler)


def test_nothing_is_handed_out_after_close(broker, consumer):
    broker.batches.append([broker.delivery(b"1"), broker.delivery(b"2")])
    assert consumer.receive(1).payload == 1
    consumer.close()
    with pytest.raises(Closed):
        consumer.receive(1)


def test_a_consumer_stopped_by_another_thread_while_it_subscribes_takes_nothing(broker, recovery):
    consumer = Consumer(recovery, ["q"])
    broker.on_subscribe = consumer.stop
    assert consumer.receive(timeout=1.0) is None
    (session,) = broker.sessions
    assert "stop" in [call[0] for call in session.calls]
    assert not recovery._subscriptions  # nor after a reconnect


def test_a_consumer_closed_while_it_subscribes_leaves_no_subscription(broker, consumer):
    broker.batches.append([])
    broker.on_subscribe = consumer.close
    with pytest.raises(Closed):
        consumer.receive(1)
    assert broker.sessions[0].calls[-1] == ("cancel", None)


def test_a_fallback_queue_with_other_arguments_is_used_as_it_is(broker, consumer):
    broker.batches.append([broker.delivery(b"{")])
    consumer.start()
    broker.dies = False
    broker.failures.extend([None, TopologyMismatch("q.dlq is a quorum queue")])
    assert consumer.receive(1) is None
    assert [copy.routing_key for copy in broker.published] == ["q.dlq"]


def test_messages_that_nobody_can_read_do_not_stretch_the_timeout(broker, consumer, monkeypatch):
    def set_aside_slowly(recovery, message, *_):
        broker.clock.advance(0.04)
        message.ack()

    monkeypatch.setattr("queue_core.consumer.set_aside", set_aside_slowly)
    broker.batches.extend([[broker.delivery(b"{")] for _ in range(100)])
    assert consumer.receive(0.1) is None
    assert len(broker.batches) == 97


REFUSALS = [
    AccessRefused("may not declare q.dlq"),
    BrokerFull("q.dlq takes no more"),
    ConnectTimeout("q.dlq does not answer"),
    TooLarge("with the reason, the headers are too large"),
]


@pytest.mark.parametrize("refused", REFUSALS)
def test_what_cannot_be_set_aside_goes_back_for_a_while_and_the_others_come(
    broker, consumer, refused, caplog
):
    broker.batches.append([broker.delivery(b"{"), broker.delivery(b"2")])
    consumer.start()
    broker.dies = False
    broker.failures.extend([None, *[refused] * 100])
    assert consumer.receive(1).payload == 2
    assert [(item.action, item.delay, item.counted) for item in broker.sessions[0].settled] == [
        ("requeue", 60.0, False)
    ]
    assert (broker.published, consumer.set_aside) == ([], 0)
    assert str(refused) in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelname == "ERROR"


def test_run_goes_on_when_what_its_handler_cannot_read_cannot_be_set_aside(broker, recovery):
    consumer = Consumer(recovery, ["q"], decode=False)
    broker.batches.append([broker.delivery(b"{"), broker.delivery(b"2")])
    consumer.start()
    broker.dies = False
    broker.failures.extend([None, AccessRefused("may not declare q.dlq")])
    seen = []

    def handler(message):
        seen.append(message.payload)
        consumer.close()

    consumer.run(handler)
    assert seen == [2]
    assert [item.action for item in broker.sessions[0].settled] == ["requeue", "ack"]


def test_what_an_interrupt_kept_from_being_set_aside_is_tried_again(broker, consumer):
    broker.batches.append([broker.delivery(b"{"), broker.delivery(b"2")])
    consumer.start()
    broker.dies = False
    broker.failures.extend([None, KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        consumer.receive(1)
    assert consumer.receive(1).payload == 2
    assert [copy.routing_key for copy in broker.published] == ["q.dlq"]
    assert consumer.set_aside == 1


@pytest.mark.parametrize("refused", [QueueNotFound("none"), AccessRefused("may not write to it")])
def test_what_cannot_be_read_goes_to_the_fallback_when_the_exchange_is_closed_to_us(
    broker, recovery, refused
):
    consumer = Consumer(recovery, [Queue("q", dead_letter_exchange="dlx")])
    broker.batches.append([broker.delivery(b"{")])
    consumer.start()
    broker.dies = False
    broker.failures.extend([None, refused])
    assert consumer.receive(1) is None
    assert [(copy.exchange, copy.routing_key) for copy in broker.published] == [("", "q.dlq")]


def test_what_cannot_be_read_is_no_error_of_receive_when_its_session_ended(broker, consumer):
    broker.batches.append([broker.delivery(b"{")])
    consumer.start()
    broker.failures.extend([None, ConnectionLost("cut")])  # while the fallback is declared
    broker.batches.append([broker.delivery(b"2")])
    assert consumer.receive(1).payload == 2
    assert broker.published == []


def test_a_consumer_used_in_a_forked_child_subscribes_there(broker, consumer, monkeypatch):
    consumer.start()
    pid = os.getpid()
    monkeypatch.setattr("queue_core.process._own", pid + 1)
    broker.batches.append([broker.delivery(b"2")])
    assert consumer.receive(1).payload == 2
    assert broker.sessions[1].calls[0] == ("subscribe", "q", 10)


def test_flush_waits_across_a_connection_that_its_session_survives(broker, consumer):
    broker.batches.append([broker.delivery()])
    consumer.receive(1).ack()
    broker.dies = False
    broker.failures.append(ConnectionLost("the database restarted"))
    consumer.flush()
    assert broker.sessions[0].calls.count(("flush",)) == 2


def test_stop_gives_back_what_was_fetched_and_not_handed_out(broker, consumer):
    broker.batches.append([broker.delivery(b"%d" % number) for number in range(3)])
    first = consumer.receive(timeout=1)
    consumer.stop()
    (session,) = broker.sessions
    assert session.calls[-1] == ("stop",)
    assert [(item.action, item.counted) for item in session.settled] == [("requeue", False)] * 2
    assert consumer.receive() is None
    first.ack()
    assert session.settled[-1].action == "ack"


def test_a_simple_queue_waits_no_longer_when_another_thread_waits_for_ever(broker, recovery):
    entered, release = threading.Event(), threading.Event()

    class Waiting:
        def receive(self, timeout):
            entered.set()
            release.wait(30.0)

    simple = SimpleQueue("q", Producer(recovery), Waiting())
    thread = threading.Thread(target=lambda: pytest.raises(stdlib_queue.Empty, simple.get))
    thread.start()
    assert entered.wait(30.0)
    try:
        for take in (simple.get_nowait, lambda: simple.get(timeout=0.01)):
            with pytest.raises(stdlib_queue.Empty):
                take()
        assert not release.is_set() and thread.is_alive()
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize("error", [QueueNotFound("no queue 'b'"), AccessRefused("not yours")])
def test_a_queue_that_cannot_be_subscribed_to_is_told_once_and_the_others_are_consumed(
    broker, recovery, error
):
    consumer = Consumer(recovery, ["a", "b", "c"], prefetch=10)
    broker.dies = False
    broker.failures.extend([None, error])
    with pytest.raises(type(error)):
        consumer.receive(1)
    broker.batches.append([broker.delivery(b"1", queue="c")])
    assert consumer.receive(1).payload == 1
    (session,) = broker.sessions
    assert [call[1] for call in session.calls if call[0] == "subscribe"] == ["a", "b", "c"]


def test_a_consumer_without_any_queue_that_exists_is_told_so_until_there_is_one(broker, recovery):
    consumer = Consumer(recovery, ["a", "b"], prefetch=10)
    broker.dies = False
    broker.failures.extend([QueueNotFound("no queue")] * 4)
    for _ in range(2):
        with pytest.raises(QueueNotFound):
            consumer.receive(1)
    broker.batches.append([broker.delivery(b"1")])
    assert consumer.receive(1).payload == 1


def test_what_a_fetch_brings_after_the_stop_goes_back_too(broker, consumer):
    def arrive():
        consumer.stop()
        broker.batches.append([broker.delivery(b"1")])

    broker.on_subscribe = arrive
    assert consumer.receive() is None
    assert [item.action for item in broker.sessions[0].settled] == ["requeue"]
    assert list(consumer) == []
