"""Decisions by the server's version."""

from __future__ import annotations

from typing import Any

import pytest
from pika import exceptions

from queue_core.errors import Unsupported
from queue_core.transports.amqp.errors import translate
from queue_core.transports.amqp.versions import (
    cancel_means_deleted,
    may_refuse_transient,
    version_of,
)


def rabbitmq(version: str) -> dict[str, Any]:
    return {"product": "RabbitMQ", "version": version}


@pytest.mark.parametrize(
    ("properties", "version"),
    [
        (rabbitmq("3.10.8"), (3, 10)),
        (rabbitmq("4.0.0+2"), (4, 0)),
        (rabbitmq("4.3.0-rc.1"), (4, 3)),
        (rabbitmq("12.1"), (12, 1)),
        (rabbitmq("unknown"), (0, 0)),
        ({"product": "RabbitMQ"}, (0, 0)),
        ({"product": "Another", "version": "9.9.9"}, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_a_version_is_read_or_counts_as_old(properties: dict[str, Any], version: object) -> None:
    assert version_of(properties) == version


@pytest.mark.parametrize(
    ("version", "deleted", "transient"),
    [("3.10.8", True, False), ("3.13.7", True, False), ("4.0.5", True, True)]
    + [("4.2.9", True, True), ("4.3.0", False, True), ("5.0.0", False, True)],
)
def test_what_a_cancel_means_and_what_is_refused(
    version: str, deleted: bool, transient: bool
) -> None:
    assert cancel_means_deleted(rabbitmq(version)) is deleted
    assert may_refuse_transient(rabbitmq(version)) is transient


def test_a_refused_transient_queue_is_explained() -> None:
    text = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated."
    error = translate(exceptions.ConnectionClosedByBroker(541, text), "declare queue 'q'")
    assert isinstance(error, Unsupported)
    assert "declare queue 'q'" in str(error)
    assert "durable=True" in str(error)
