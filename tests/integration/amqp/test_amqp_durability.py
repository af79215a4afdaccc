"""What RabbitMQ tells about a queue of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from queue_core.durability import Survives
from queue_core.errors import QueueNotFound
from queue_core.topology import Queue


@pytest.mark.parametrize(
    ("fields", "survives"),
    [
        ({}, Survives.POWER_CUT),
        ({"max_deliveries": 3, "message_ttl": 60.0}, Survives.POWER_CUT),
        ({"queue_type": "classic"}, Survives.SERVER_CRASH),
        ({"max_priority": 5}, Survives.SERVER_CRASH),
        ({"auto_delete": True}, Survives.SERVER_CRASH),
        (
            {
                "max_length": 3,
                "overflow": "reject-publish",
                "message_ttl": 60.0,
                "expires": 600.0,
                "dead_letter_exchange": "amq.direct",
                "dead_letter_routing_key": "it's dead",
                "arguments": {"x-single-active-consumer": True},
            },
            Survives.SERVER_CRASH,
        ),
        ({"durable": False, "exclusive": True}, Survives.NOTHING),
    ],
)
def test_the_type_of_a_queue_is_found_out(
    bench: Any, fields: dict[str, Any], survives: Survives
) -> None:
    name = bench.queue(**fields)
    assert bench.session.durability(name).survives is survives


def test_a_queue_that_is_not_durable_is_said_to_be_lost_with_its_node(bench: Any) -> None:
    name = bench.queue(durable=False, queue_type="classic")
    found = bench.session.durability(name)
    assert found.survives is Survives.CLIENTS
    assert "durable=True" in found.warnings[0].remedy


def test_asking_makes_no_queue_and_leaves_consumers_alone(bench: Any) -> None:
    with pytest.raises(QueueNotFound):
        bench.session.durability("no-such-queue-here")
    with pytest.raises(QueueNotFound):
        bench.session.declare(Queue("no-such-queue-here"), passive=True)
    name = bench.queue()
    bench.session.subscribe("c", name, prefetch=1)
    bench.session.durability(name)
    bench.send(name, b"still here")
    assert [delivery.body for delivery in bench.session.receive("c", wait=1.0)] == [b"still here"]


def test_the_server_says_who_it_is(bench: Any) -> None:
    assert bench.session.durability().broker.startswith("RabbitMQ 3.")
