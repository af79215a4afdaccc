"""What a caller passes by mistake ends as an error of ours that names it, whatever its type."""

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from queue_core import (
    Binding,
    ConfigError,
    Connection,
    Exchange,
    Queue,
)
from queue_core.transport import KeyWrite

THING = object()
NO_NUMBER = ("5", [1], {1: 2}, b"x", THING, 10**400)
NO_TEXT = (5, [1], {1: 2}, b"x", THING, True)


def nested(levels):
    """Return a list with a list in it, and so on."""
    found = []
    for _ in range(levels - 1):
        found = [found]
    return found


@pytest.fixture
def connection():
    with Connection("memory://arguments", timeout=2.0) as connection:
        connection.declare(Queue("inbox"))
        yield connection
        connection.purge("inbox")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("ttl", (*NO_NUMBER, True, math.nan, -1)),
        ("delay", (*NO_NUMBER, None, True, math.nan, -1)),
        ("timeout", (*NO_NUMBER, math.nan)),
        ("timestamp", (*NO_NUMBER, True, math.nan)),
        ("priority", ("high", None, 1.5, True, [1], 10)),
        ("headers", ([1], ["a", "b"], "text", 5, THING)),
        ("exchange", (5, [1], {1: 2}, THING, b"x", "x" * 256)),
        ("serializer", (5, [1], {1: 2}, THING, "jsn")),
        ("compression", (5, [1], {1: 2}, THING, "zip")),
        ("mandatory", ("no", None, 1, THING)),
        ("durable", ("no", None, 1, THING)),
        *[
            (name, NO_TEXT)
            for name in ("correlation_id", "reply_to", "message_id", "type", "app_id")
        ],
    ],
)
def test_an_option_of_a_publish_that_is_no_such_thing_is_refused_by_its_name(
    connection, option, values
):
    producer = connection.producer()
    for value in values:
        with pytest.raises(ConfigError, match=option):
            producer.publish("x", "inbox", **{option: value})
    assert connection.inspect("inbox").ready == 0


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1, 2}, "a set"),
        (date(2026, 1, 1), "a date"),
        (timedelta(1), "a timedelta"),
        (UUID(int=1), "a UUID"),
        (THING, "object"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (2**63, "64 bits"),
        (2**64, "ints"),
        (nested(32), "32 levels"),
        (nested(900), "32 levels"),
        ({1: "one"}, "named by strings"),
        ("\udc80", "surrogates"),
    ],
)
def test_a_header_that_some_broker_cannot_carry_is_refused_by_its_name(connection, value, says):
    for held in ([value], [None, value], {"in": [value]}):
        with pytest.raises(ConfigError, match=f"'wrong'.*{says}"):
            connection.producer().prepare("x", headers={"right": 1, "wrong": held})


def test_a_header_that_every_broker_can_carry_is_sent(connection):
    held = [None, True, -(2**63), 2**63 - 1, 0.5, "é", b"x", datetime(2026, 1, 1, tzinfo=UTC)]
    headers = {"one": held, "two": {"in": (Decimal("1.5"), held)}, "deep": nested(32)}
    assert connection.producer().prepare("x", headers=headers).properties.headers == headers


@pytest.mark.parametrize(
    "option",
    ["correlation_id", "reply_to", "message_id", "type", "app_id", "content_type"],
)
def test_a_text_that_is_no_unicode_is_refused_by_its_name(connection, option):
    for text in ("\ud800", "a\udc80"):
        with pytest.raises(ConfigError, match=f"{option}.*Unicode"):
            connection.producer().prepare(b"x", **{option: text})


@pytest.mark.parametrize("option", ["content_type", "content_encoding"])
def test_what_says_how_a_body_is_encoded_is_text(connection, option):
    options = {"content_type": "text/plain"}
    for value in NO_TEXT:
        with pytest.raises(ConfigError, match=option):
            connection.producer().publish(b"x", "inbox", **{**options, option: value})


def test_something_else_than_messages_cannot_be_published(connection):
    producer = connection.producer()
    for messages in (None, 5, THING):
        with pytest.raises(ConfigError, match="publish_many takes"):
            producer.publish_many(messages)


def test_a_message_is_acked_together_with_publications_only(connection):
    connection.producer().publish("x", "inbox")
    message = connection.consumer("inbox").receive(timeout=30)
    for then in (5, "text", ["text"], [None], THING):
        with pytest.raises(ConfigError, match="prepare"):
            message.ack(then=then)
    for delay in (*NO_NUMBER, None, True, math.nan, -1):
        with pytest.raises(ConfigError, match="delay"):
            message.requeue(delay)
    message.ack()


@pytest.mark.parametrize("what", [5, [1], {1: 2}, THING, b"x", None])
def test_a_name_that_is_none_is_refused_wherever_one_is_expected(connection, what):
    for call in (
        connection.producer,
        connection.declare,
        connection.delete,
        connection.inspect,
        connection.purge,
        connection.durability_of,
        connection.simple_queue,
        connection.consumer,
        connection.consumer("inbox").add_queue,
        connection.consumer("inbox").cancel_queue,
    ):
        with pytest.raises(ConfigError):
            call(what)


def test_seconds_to_wait_are_a_number_in_every_call(connection):
    simple = connection.simple_queue("simple")
    for value in (*NO_NUMBER, math.nan):
        for call in (
            connection.connect,
            lambda timeout: connection.key_value(timeout=timeout),
            connection.consumer("inbox").receive,
            connection.consumer("inbox").flush,
            connection.consumer("inbox").close,
            lambda timeout: simple.put(1, timeout),
            lambda timeout: simple.get(timeout=timeout),
        ):
            with pytest.raises(ConfigError, match="timeout"):
                call(value)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("lease", (*NO_NUMBER, None, 0)),
        ("timeout", (*NO_NUMBER, None, 0)),
        ("connect_timeout", (*NO_NUMBER, None, 0)),
        ("node", (5, None, [1], b"x", THING)),
        ("backoff", (5, "1s", THING)),
        ("limits", (5, None, THING)),
        ("codecs", (5, None, THING)),
    ],
)
def test_an_option_of_a_connection_that_is_no_such_thing_is_refused_by_its_name(option, values):
    for value in values:
        with pytest.raises(ConfigError, match=option):
            Connection("memory://arguments", **{option: value})


def test_serializers_to_accept_are_names(connection):
    for accept in (5, True, THING, [5], [[1]]):
        with pytest.raises(ConfigError, match="serializer"):
            connection.consumer("inbox", accept=accept)


def test_keys_values_and_versions_are_of_their_kinds(connection):
    store = connection.key_value()
    for wrong in (None, 5, [1], b"x", THING):
        for call in (
            store.key_get,
            store.key_delete,
            store.key_increment,
            lambda key: store.key_set(key, b"x"),
            lambda key: store.key_set_many([KeyWrite(key, b"x")]),
            lambda write: store.key_set_many([write]),
        ):
            with pytest.raises(ConfigError):
                call(wrong)
    for wrong in (None, "text", 5, [1], THING):
        with pytest.raises(ConfigError, match="bytes"):
            store.key_set("x", wrong)
    for wrong in ("text", [1], THING, True, 1.5, -1):
        with pytest.raises(ConfigError, match="version"):
            store.key_set("x", b"x", version=wrong)
        with pytest.raises(ConfigError, match="version"):
            store.key_delete("x", version=wrong)
    for wrong in (*NO_NUMBER, math.nan):
        with pytest.raises(ConfigError, match="ttl"):
            store.key_set("x", b"x", ttl=wrong)
    for wrong in (None, "text", 1.5, [1], THING, True):
        with pytest.raises(ConfigError, match="amount"):
            store.key_increment("n", wrong)
    with pytest.raises(ConfigError):
        store.key_set_many(5)
    assert store.key_get("x") is None
    assert store.key_get("n") is None


@pytest.mark.parametrize("flag", ["durable", "exclusive", "auto_delete"])
def test_a_flag_of_a_queue_or_an_exchange_is_true_or_false(flag):
    for value in ("no", None, 1, [1], THING):
        with pytest.raises(ConfigError, match=flag):
            Queue("q", **{flag: value})
        if flag != "exclusive":
            with pytest.raises(ConfigError, match=flag):
                Exchange("e", **{flag: value})


def test_other_fields_of_topology_are_of_their_kinds_too():
    for value in (5, "text", THING, [1]):
        with pytest.raises(ConfigError, match="arguments"):
            Queue("q", arguments=value)
        with pytest.raises(ConfigError, match="arguments"):
            Exchange("e", arguments=value)
        with pytest.raises(ConfigError, match="arguments"):
            Binding("e", "q", arguments=value)
    for value in (5, None, THING):
        with pytest.raises(ConfigError, match="bindings"):
            Queue("q", bindings=value)
    for value in ("quorm", 5, None, [1]):
        with pytest.raises(ConfigError, match="queue_type"):
            Queue("q", queue_type=value)
    for value in (5, [1], THING):
        with pytest.raises(ConfigError):
            Queue("q", exchange=value)
        with pytest.raises(ConfigError):
            Queue("q", dead_letter_exchange=value)
    with pytest.raises(ConfigError, match="expires"):
        Queue("q", expires=10**400)
