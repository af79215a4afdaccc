"""Connection.close has one deadline for everything."""

from queue_core import Connection
from queue_core.errors import ConnectTimeout


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
