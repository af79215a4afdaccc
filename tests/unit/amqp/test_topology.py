"""Queues as AMQP arguments, and the combinations that are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from queue_core.errors import ConfigError, Unsupported
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transports.amqp.topology import (
    BACKSTOP,
    FEATURES,
    UNREACHABLE_LIMIT,
    dead_letters_of,
    described,
    exchanges_of,
    named,
    need,
    queue_arguments,
    queue_type,
)

QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": UNREACHABLE_LIMIT}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "quorum"),
        ({"durable": False}, "classic"),
        ({"exclusive": True}, "classic"),
        ({"auto_delete": True}, "classic"),
        ({"max_priority": 5}, "classic"),
        ({"arguments": {"x-max-priority": 5}}, "classic"),
        ({"max_length": 5}, "quorum"),
        ({"max_length": 5, "overflow": "reject-publish"}, "classic"),
        ({"message_ttl": 1.0, "expires": 60.0, "dead_letter_exchange": ""}, "quorum"),
        ({"queue_type": "classic"}, "classic"),
        ({"queue_type": "quorum", "max_length": 1, "overflow": "reject-publish"}, "quorum"),
        ({"arguments": {"x-queue-type": "classic"}}, "classic"),
        ({"arguments": {"x-dead-letter-strategy": "at-least-once"}}, "quorum"),
    ],
)
def test_auto_chooses_quorum_where_everything_asked_for_works(
    fields: dict[str, Any], kind: str
) -> None:
    assert queue_type(Queue("q", **fields)) == kind


def test_a_queue_with_a_generated_name_is_classic() -> None:
    queue = named(Queue(exchange="x", routing_key="k"))
    assert queue.name.startswith("qc.gen-")
    assert queue.all_bindings() == (Binding("x", queue.name, "k"),)
    assert queue_type(queue) == "classic"
    assert named(queue) is queue


def test_a_plain_queue_gets_type_and_a_limit_out_of_reach() -> None:
    assert queue_arguments(Queue("q")) == QUORUM


def test_a_classic_queue_gets_no_argument_that_celery_would_not_send() -> None:
    assert queue_arguments(Queue("q", durable=False)) == {}
    assert queue_arguments(Queue("q", queue_type="classic")) == {"x-queue-type": "classic"}


def test_every_field_becomes_its_argument() -> None:
    queue = Queue(
        "q",
        queue_type="classic",
        expires=60.0,
        message_ttl=0.25,
        max_length=10,
        overflow="reject-publish",
        max_priority=9,
        dead_letter_exchange=Exchange("dead"),
        dead_letter_routing_key="key",
    )
    assert queue_arguments(queue) == {
        "x-queue-type": "classic",
        "x-expires": 60_000,
        "x-message-ttl": 250,
        "x-max-length": 10,
        "x-overflow": "reject-publish",
        "x-max-priority": 9,
        "x-dead-letter-exchange": "dead",
        "x-dead-letter-routing-key": "key",
    }


def test_the_users_own_arguments_win() -> None:
    queue = Queue("q", arguments={"x-delivery-limit": 3, "x-single-active-consumer": True})
    assert queue_arguments(queue) == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 3,
        "x-single-active-consumer": True,
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"queue_type": "quorum", "durable": False}, "durable=False"),
        ({"queue_type": "quorum", "exclusive": True}, "exclusive=True"),
        ({"queue_type": "quorum", "auto_delete": True}, "auto_delete=True"),
        ({"queue_type": "quorum", "max_priority": 3}, "max_priority"),
        ({"queue_type": "classic", "arguments": {"x-delivery-limit": 3}}, "x-delivery-limit"),
        (
            {"queue_type": "classic", "arguments": {"x-dead-letter-strategy": "at-least-once"}},
            "x-dead-letter-strategy",
        ),
        (
            {"arguments": {"x-dead-letter-strategy": "at-least-once"}},
            "needs a dead_letter_exchange",
        ),
        (
            {"arguments": {"x-dead-letter-strategy": "at-least-once"}, "dead_letter_exchange": "x"},
            "needs overflow='reject-publish'",
        ),
    ],
)
def test_combinations_that_fail_or_lose_messages_are_refused(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        queue_arguments(Queue("the-queue", **fields))
    assert "the-queue" in str(caught.value)


def test_at_least_once_dead_lettering_is_accepted_when_it_is_complete() -> None:
    queue = Queue(
        "q",
        dead_letter_exchange="x",
        max_length=10,
        overflow="reject-publish",
        arguments={"x-dead-letter-strategy": "at-least-once"},
    )
    assert queue_arguments(queue)["x-dead-letter-strategy"] == "at-least-once"


@pytest.mark.parametrize(
    "fields", [{"queue_type": "classic"}, {"durable": False}, {"exclusive": True}]
)
def test_max_deliveries_of_a_classic_queue_are_unsupported_with_advice(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(Unsupported, match="quorum queue") as caught:
        queue_arguments(Queue("q", max_deliveries=3, **fields))
    assert caught.value.feature == "max_deliveries"
    assert caught.value.transport == "amqp"


def test_max_deliveries_put_the_brokers_own_limit_above_it() -> None:
    limited = {"x-queue-type": "quorum", "x-delivery-limit": 3 + BACKSTOP}
    assert queue_arguments(Queue("q", max_deliveries=3)) == limited
    refusing = Queue("q", max_deliveries=3, max_length=5, overflow="reject-publish")
    assert queue_type(refusing) == "quorum"


def test_where_dead_letters_go() -> None:
    assert dead_letters_of(Queue("q")) is None
    assert dead_letters_of(Queue("q", dead_letter_exchange="")) == ("", None)
    own = Queue("q", dead_letter_exchange=Exchange("dead"), dead_letter_routing_key="k")
    assert dead_letters_of(own) == ("dead", "k")
    raw = {"x-dead-letter-exchange": "raw", "x-dead-letter-routing-key": "r"}
    assert dead_letters_of(Queue("q", arguments=raw)) == ("raw", "r")


@pytest.mark.parametrize("feature", ["transactions", "key_value", "deduplicate"])
def test_missing_features_are_named(feature: str) -> None:
    assert not getattr(FEATURES, feature)
    with pytest.raises(Unsupported, match=feature):
        need(feature)
    need("durable")


def test_the_exchanges_of_a_queue_are_told_apart() -> None:
    orders = Exchange("orders", "topic")
    queue = Queue(
        "q",
        exchange=orders,
        bindings=(Binding("other", "q"), Binding("other", "q", "k"), Binding("orders", "q", "x")),
        dead_letter_exchange="dead",
    )
    assert exchanges_of(queue) == ([orders], ["other", "dead"])
    assert exchanges_of(Queue("q", dead_letter_exchange="")) == ([], [])
    raw = Queue("q", arguments={"x-dead-letter-exchange": "raw"})
    assert exchanges_of(raw) == ([], ["raw"])


def test_entities_are_described_for_people() -> None:
    assert described(Exchange("x")) == "exchange 'x'"
    assert described(Queue("q")) == "queue 'q'"
    assert described(Binding("x", "q", "k")) == "binding of queue 'q' to exchange 'x' with key 'k'"


def test_a_shared_classic_queue_says_so_since_a_virtual_host_may_have_another_default() -> None:
    for fields in ({"max_priority": 5}, {"max_length": 1, "overflow": "reject-publish"}):
        assert queue_arguments(Queue("q", **fields))["x-queue-type"] == "classic"
    for fields in ({"exclusive": True}, {"auto_delete": True}, {"durable": False}):
        assert "x-queue-type" not in queue_arguments(Queue("q", **fields))
