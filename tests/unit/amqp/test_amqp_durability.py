"""What RabbitMQ's refusals tell about a queue: their texts are those of 3.10."""

from __future__ import annotations

from typing import Any

import pytest

from queue_core.durability import Survives
from queue_core.transports.amqp.durability import kind_told_by, of_broker, of_queue

REFUSED = "406 PRECONDITION_FAILED - inequivalent arg '{}' for queue 'q' in vhost '/': {}"


@pytest.mark.parametrize(
    ("argument", "text", "kind"),
    [
        ("x-queue-type", "received 'queue-core-asks' but current is 'quorum'", "quorum"),
        ("x-queue-type", "received 'queue-core-asks' but current is 'stream'", "stream"),
        ("x-queue-type", "received 'queue-core-asks' but current is 'classic'", "classic"),
        (
            "x-queue-type",
            "received the value 'queue-core-asks' of type 'longstr' but current is none",
            "classic",
        ),
        ("x-queue-type", "received 'queue-core-asks' but current is 'new-one'", "unknown"),
        ("durable", "received 'true' but current is 'false'", "transient"),
        ("auto_delete", "received 'false' but current is 'true'", "classic"),
    ],
)
def test_a_refusal_tells_the_kind_of_the_queue(argument: str, text: str, kind: str) -> None:
    assert kind_told_by(REFUSED.format(argument, text), {}) == kind


@pytest.mark.parametrize(
    ("argument", "value", "type_name", "expected"),
    [
        ("x-max-priority", "5", "signedint", 5),
        ("x-dead-letter-exchange", "", "longstr", ""),
        ("x-dead-letter-exchange", "it's 'odd'", "longstr", "it's 'odd'"),
        ("x-single-active-consumer", "true", "bool", True),
    ],
)
def test_a_refusal_of_another_argument_tells_what_to_say_the_next_time(
    argument: str, value: str, type_name: str, expected: object
) -> None:
    learned: dict[str, Any] = {}
    text = f"received none but current is the value '{value}' of type '{type_name}'"
    assert kind_told_by(REFUSED.format(argument, text), learned) is None
    assert learned == {argument: expected}


def test_the_same_refusal_twice_is_given_up() -> None:
    text = "received none but current is the value '5' of type 'signedint'"
    assert kind_told_by(REFUSED.format("x-expires", text), {"x-expires": 5}) == "unknown"


def test_a_text_that_nobody_knows_is_unknown() -> None:
    assert kind_told_by("406 something else", {}) == "unknown"
    text = "received none but current is the value '[5]' of type 'array'"
    assert kind_told_by(REFUSED.format("x-list", text), {}) == "unknown"


@pytest.mark.parametrize(
    ("kind", "survives"),
    [
        ("quorum", Survives.POWER_CUT),
        ("classic", Survives.SERVER_CRASH),
        ("stream", Survives.SERVER_CRASH),
        ("transient", Survives.CLIENTS),
        ("exclusive", Survives.NOTHING),
        ("unknown", Survives.UNKNOWN),
    ],
)
def test_each_kind_of_queue_has_its_promise(kind: Any, survives: Survives) -> None:
    found = of_queue(kind, "orders")
    assert found.survives is survives
    assert "'orders'" in found.found
    assert bool(found.warnings) == (kind in ("classic", "stream", "transient"))


def test_the_server_says_its_version_and_what_to_know() -> None:
    found = of_broker({"product": "RabbitMQ", "version": "4.1.0"})
    assert found.broker == "RabbitMQ 4.1.0"
    assert found.survives is Survives.UNKNOWN
    assert any("30 minutes" in note for note in found.notes)
