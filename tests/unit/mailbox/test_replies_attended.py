"""The reply queue of a process: who is told that an answer is there."""

from __future__ import annotations

import itertools

import pytest

from queue_core import Connection, Deadline, Queue, SystemClock
from queue_core.mailbox import Replies

numbers = itertools.count()


@pytest.fixture
def connection():
    with Connection(f"memory://replies-{next(numbers)}") as made:
        yield made


@pytest.fixture
def replies(connection):
    made: Replies[int] = Replies(
        connection,
        lambda own: Queue(f"replies.{own}", durable=False),
        ticket=lambda message: message.properties.correlation_id,
        read=lambda message: message.payload,
    )
    made.open(soon())
    yield made
    made.close()


def soon(seconds=5.0):
    return Deadline.after(seconds, SystemClock())


def test_who_attends_is_called_once_when_the_answer_is_there(connection, replies):
    ticket, woken = replies.expect("a"), []

    def wake():
        woken.append(list(ticket.arrived))

    assert not replies.attend(ticket, wake)
    assert not replies.attend(ticket, wake)
    producer = connection.producer()
    producer.publish(1, replies.queue, correlation_id="a")
    producer.publish(2, replies.queue, correlation_id="a")
    assert replies.next(ticket, soon()) == 1 and replies.next(ticket, soon()) == 2
    assert woken == [[1]]


def test_who_attends_too_late_is_told_at_once(connection, replies):
    ticket, woken = replies.expect("a"), []
    connection.producer().publish(1, replies.queue, correlation_id="a")
    assert replies.wait(ticket, soon())
    assert replies.attend(ticket, lambda: woken.append(1))
    assert replies.next(ticket, soon()) == 1 and not woken
