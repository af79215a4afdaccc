"""Producer: what is checked before sending, and how each outcome reaches the caller."""

import itertools
import threading

import pytest

from queue_core.errors import (
    ConfigError,
    ConnectionLost,
    MessageError,
    NotConfirmed,
    PublishError,
    Refused,
    SessionLost,
    TooLarge,
    Unroutable,
)
from queue_core.message import Properties, Publication
from queue_core.outgoing import WINDOW_BYTES, WINDOW_MESSAGES, Outgoing
from queue_core.producer import Producer
from queue_core.testing.eventually import eventually
from queue_core.transport import Outcome

CONFIRMED = Outcome("confirmed")


def publication(number):
    return Publication("", "q", b"%d" % number, Properties(), str(number))


@pytest.fixture
def producer(recovery):
    return Producer(recovery, "orders")


def test_a_confirmed_publish_returns_its_receipt(broker, producer):
    receipt = producer.publish({"id": 1}, "order.new", headers={"lang": "en"}, priority=5, ttl=60)
    (sent,) = broker.published
    assert receipt.status == "confirmed"
    assert (sent.exchange, sent.routing_key, sent.body) == ("orders", "order.new", b'{"id":1}')
    assert (sent.properties.content_type, sent.properties.headers) == (
        "application/json",
        {"lang": "en"},
    )
    assert (sent.properties.priority, sent.properties.expiration) == (5, 60)
    assert sent.id == receipt.id


@pytest.mark.parametrize(
    ("outcome", "error", "words"),
    [
        (Outcome("unroutable"), Unroutable, "mandatory=False"),
        (Outcome("refused", "queue 'q' is full"), Refused, "queue 'q' is full"),
    ],
)
def test_a_message_that_was_not_accepted_raises_and_says_why(
    broker, producer, outcome, error, words
):
    broker.outcomes.append([outcome])
    with pytest.raises(error, match=words) as caught:
        producer.publish(1, "order.new")
    assert "'orders'" in str(caught.value)
    assert "'order.new'" in str(caught.value)


def test_an_unknown_fate_is_asked_again_under_the_same_id(broker, producer):
    broker.outcomes.extend([[Outcome("unknown")], [CONFIRMED]])
    assert producer.publish(1, "key").status == "confirmed"
    first, second = broker.published
    assert first.id == second.id


def test_a_cut_connection_repeats_the_publish_under_the_same_id(broker, producer):
    producer.publish(0, "key")
    broker.failures.append(ConnectionLost("cut"))
    receipt = producer.publish(1, "key")
    calls = [call for session in broker.sessions for call in session.calls if call[0] == "publish"]
    assert calls[-1] == calls[-2] == ("publish", receipt.id)


def test_a_broker_that_stays_away_leaves_the_message_unconfirmed(broker, producer):
    producer.publish(0, "key")
    broker.failures.append(ConnectionLost("cut"))
    broker.refusals.extend(ConnectionLost("down") for _ in range(1000))
    with pytest.raises(NotConfirmed, match="'key'"):
        producer.publish(1, "key")


def test_a_broker_that_was_never_reached_raises_connection_lost(broker, producer):
    broker.refusals.extend([ConnectionLost("down"), ConnectionLost("down")])
    with pytest.raises(ConnectionLost):
        producer.publish(1, "key")


def test_many_messages_keep_their_order_and_come_in_windows(broker, producer):
    count = WINDOW_MESSAGES * 2 + 7
    receipts = producer.publish_many((number, "key") for number in range(count))
    assert [publication.id for publication in broker.published] == [item.id for item in receipts]
    assert [int(publication.body) for publication in broker.published] == list(range(count))


def test_the_first_refusal_stops_the_intake_and_carries_the_receipts(broker, producer):
    broker.outcomes.append(
        [CONFIRMED] * 5 + [Outcome("refused", "full")] + [CONFIRMED] * (WINDOW_MESSAGES - 6)
    )
    source = itertools.count()
    with pytest.raises(Refused) as caught:
        producer.publish_many((number, "key") for number in source)
    assert len(caught.value.receipts) == 5
    assert next(source) <= 2 * WINDOW_MESSAGES + 1


@pytest.mark.parametrize("item", ["ab", b"ab", ("body",), {"body": 1, "key": 2}, None])
def test_what_is_no_pair_of_body_and_key_is_refused(broker, producer, item):
    with pytest.raises(ConfigError, match="pairs"):
        producer.publish_many([("first", "q"), item])
    assert [publication.body for publication in broker.published] == [b'"first"']


def test_what_is_unroutable_is_said_with_what_to_do(broker, producer):
    for detail in ("", "there is no queue 'q'"):
        broker.outcomes.append([Outcome("unroutable", detail)])
        with pytest.raises(Unroutable, match=f"{detail}.*; declare and bind the queue first"):
            producer.publish("x", "q")


def test_prepared_publications_can_be_sent_with_others(broker, producer):
    prepared = producer.prepare("later", "other", exchange="")
    producer.publish_many([prepared, ("now", "key")])
    assert [item.exchange for item in broker.published] == ["", "orders"]


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 10},
        {"priority": -1},
        {"priority": "high"},
        {"priority": True},
        {"ttl": -1},
        {"ttl": 1e30},
        {"ttl": float("nan")},
        {"delay": -1},
        {"delay": float("inf")},
        {"ttl": 5, "delay": 5},
        {"headers": ["name"]},
        {"headers": {"": 1}},
        {"headers": {"a\n": 1}},
        {"headers": {1: 1}},
        {"headers": {"n" * 256: 1}},
        {"headers": {"object": object()}},
        {"headers": {str(number): 1 for number in range(1001)}},
        {"serializer": "yaml"},
        {"compression": "rot13"},
        {"content_type": "text/plain"},
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(broker, producer, options):
    with pytest.raises(ConfigError):
        producer.publish({}, "key", **options)
    assert broker.published == []


@pytest.mark.parametrize("key", ["k" * 256, "a\x00b", 7])
def test_wrong_routing_keys_are_refused(producer, key):
    with pytest.raises(ConfigError):
        producer.publish({}, key)


def test_what_cannot_be_encoded_or_is_too_large_is_refused(broker, producer):
    with pytest.raises(MessageError):
        producer.publish(object(), "key")
    with pytest.raises(TooLarge):
        producer.publish(b"x" * (16 * 1024 * 1024 + 1), "key")
    with pytest.raises(TooLarge):
        producer.publish(b"x" * (16 * 1024 * 1024 + 1), "key", content_type="application/data")
    with pytest.raises(TooLarge):
        producer.publish(1, "key", headers={"big": "x" * 70_000})
    assert broker.published == []


def test_encoded_bytes_travel_as_they_are(broker, producer):
    producer.publish(b"<a/>", "key", content_type="text/xml", content_encoding="latin-1")
    (sent,) = broker.published
    assert (sent.body, sent.properties.content_type, sent.properties.content_encoding) == (
        b"<a/>",
        "text/xml",
        "latin-1",
    )


def test_compression_is_named_in_the_headers(broker, producer):
    producer.publish("word " * 1000, "key", compression="zlib")
    (sent,) = broker.published
    assert "compression" in sent.properties.headers
    assert len(sent.body) < 1000


def test_an_unrouted_optional_message_is_no_error(broker, producer):
    producer.publish(1, "key", mandatory=False)
    assert broker.published[0].mandatory is False


def test_errors_of_publish_have_one_base(broker, producer):
    broker.outcomes.append([Outcome("unroutable")])
    with pytest.raises(PublishError) as caught:
        producer.publish(1, "key")
    assert caught.value.receipts == ()


def test_a_publish_in_a_transaction_is_not_repeated_in_it(broker, producer):
    producer.publish(0, "key")
    broker.dies = False
    broker.failures.append(ConnectionLost("somebody else wrote first"))
    with pytest.raises(ConnectionLost):
        producer.publish(1, "key", transaction=object())
    calls = [call for call in broker.sessions[0].calls if call[0] == "publish"]
    assert len(calls) == 2


def test_ids_are_unique_and_rise_with_time(broker, producer):
    receipts = producer.publish_many((number, "key") for number in range(1000))
    ids = [receipt.id for receipt in receipts]
    assert len(set(ids)) == 1000
    assert [id_[:16] for id_ in ids] == sorted(id_[:16] for id_ in ids)


def test_what_an_iterable_gave_before_it_failed_is_sent(broker, producer):
    def failing():
        yield 1, "key"
        yield 2, "key"
        raise ValueError("the file ended in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        producer.publish_many(failing())
    assert [publication.body for publication in broker.published] == [b"1", b"2"]


def test_a_lost_session_at_the_deadline_leaves_the_message_unconfirmed(broker, producer):
    producer.publish(0, "key")
    broker.failures.extend(SessionLost("gone") for _ in range(1000))
    with pytest.raises(NotConfirmed):
        producer.publish(1, "key")


def test_the_next_window_is_filled_while_one_is_being_sent():
    filled = threading.Event()
    sent = []

    def send(window):
        assert filled.wait(20.0)
        sent.extend(window)
        return []

    given = [publication(number) for number in range(WINDOW_MESSAGES + 1)]
    with Outgoing(send, patient=False) as outgoing:
        for one in given:
            outgoing.add(one)
        filled.set()
        outgoing.flush()
    assert sent == given


def test_no_third_window_is_filled_before_the_first_is_sent():
    going, sizes, given = threading.Event(), [], []

    def send(window):
        assert going.wait(20.0)
        sizes.append(len(window))
        return []

    def fill(outgoing):
        for number in range(3 * WINDOW_MESSAGES):
            outgoing.add(publication(number))
            given.append(number)
        outgoing.flush()

    with Outgoing(send, patient=False) as outgoing:
        filling = threading.Thread(target=fill, args=(outgoing,))
        filling.start()
        eventually(lambda: len(given) >= WINDOW_MESSAGES)
        filling.join(0.2)
        assert len(given) < 2 * WINDOW_MESSAGES
        going.set()
        filling.join(20.0)
    assert sum(sizes) == 3 * WINDOW_MESSAGES


def test_whatever_ends_the_thread_that_sends_is_raised_to_the_caller():
    class Ended(BaseException):
        pass

    raised = []

    def send(window):
        raise Ended

    def fill():
        try:
            with Outgoing(send, patient=False) as outgoing:
                for number in range(3 * WINDOW_MESSAGES):
                    outgoing.add(publication(number))
        except Ended as error:
            raised.append(error)

    filling = threading.Thread(target=fill, daemon=True)
    filling.start()
    filling.join(20.0)
    assert len(raised) == 1


def test_a_message_that_fills_a_window_is_not_joined_by_another_one():
    sizes = []

    def send(window):
        sizes.append(len(window))
        return []

    large = Publication("", "q", bytes(WINDOW_BYTES), Properties(), "1")
    with Outgoing(send, patient=False) as outgoing:
        for _ in range(3):
            outgoing.add(large)
        outgoing.flush()
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize("held_back", [1, 5])
def test_what_a_slow_iterable_gave_is_sent_while_it_keeps_us_waiting(broker, producer, held_back):
    def slow():
        for number in range(held_back):
            yield number, "key"
        eventually(lambda: len(broker.published) == held_back, what="what came before")
        yield "last", "key"

    receipts = producer.publish_many(slow())
    assert [receipt.id for receipt in receipts] == [item.id for item in broker.published]
    assert len(receipts) == held_back + 1


def test_a_refusal_while_the_iterable_is_slow_stops_the_intake(broker, producer):
    broker.outcomes.append([Outcome("refused", "full")])

    def slow():
        yield 1, "key"
        eventually(lambda: broker.published, what="the first message")
        yield 2, "key"
        yield 3, "key"

    with pytest.raises(Refused) as caught:
        producer.publish_many(slow())
    assert caught.value.receipts == ()
    assert [publication.body for publication in broker.published] == [b"1"]


def test_the_thread_that_looks_after_slow_iterables_ends_with_the_call(broker, producer):
    before = threading.active_count()
    producer.publish_many((number, "key") for number in range(10))
    with pytest.raises(ZeroDivisionError):
        producer.publish_many((1 // number, "key") for number in (1, 0))
    assert threading.active_count() == before
    assert [publication.body for publication in broker.published][-1] == b"1"
