"""Connection.close has one deadline for everything."""

import sys
import threading

import pytest

from queue_core import Connection
from queue_core.errors import Closed, ConnectTimeout


@pytest.fixture
def switching():
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_closing_many_consumers_of_a_silent_broker_takes_one_timeout_not_one_for_each(broker):
    connection = Connection("memory://a", transport=broker, clock=broker.clock, timeout=10.0)
    consumers = [connection.consumer(f"q{number}") for number in range(5)]
    for consumer in consumers:
        consumer.start()
    (session,) = broker.sessions

    def silent(consumer, queue=None, *, timeout=10.0):
        broker.clock.advance(timeout)
        raise ConnectTimeout("no answer")

    session.cancel = silent
    before = broker.clock.monotonic()
    connection.close()
    assert broker.clock.monotonic() - before <= 10.0
    assert session.closed
    assert connection.closed
    connection.close()


@pytest.mark.parametrize("error", [Closed("another thread was faster"), RuntimeError("a driver")])
def test_a_consumer_that_cannot_be_closed_keeps_nothing_else_open(broker, error):
    connection = Connection("memory://a", transport=broker, clock=broker.clock)
    consumers = [connection.consumer(f"q{number}") for number in range(3)]
    for consumer in consumers:
        consumer.start()
    (session,) = broker.sessions
    cancelled = []

    def fail_once(consumer, queue=None, *, timeout=10.0):
        cancelled.append(consumer)
        if len(cancelled) == 1:
            raise error

    session.cancel = fail_once
    try:
        connection.close()
    except RuntimeError as raised:
        assert raised is error
    assert sorted(cancelled) == sorted(consumer._tag for consumer in consumers)
    assert session.closed and connection.closed


def test_a_connection_can_be_closed_while_threads_still_make_consumers(broker, switching):
    for _ in range(20):
        connection = Connection("memory://a", transport=broker, clock=broker.clock)
        consumers = [connection.consumer("q") for _ in range(200)]
        thread = threading.Thread(
            target=lambda c=connection, kept=consumers: kept.extend(
                c.consumer("q") for _ in range(200)
            )
        )
        thread.start()
        connection.close()
        thread.join(30)
