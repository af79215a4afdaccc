"""With nobody consuming or publishing, dead messages reach the dead-letter queue all the same."""

from __future__ import annotations

import time

from queue_core import Connection

IDLE = 5.0


def test_expired_and_overflowing_messages_are_buried_while_nobody_does_anything(broker, actors):
    """One process published and died; another is connected and idle. Nobody looks until the end."""
    publisher, _idle = actors(broker, 2)
    dead, grave = broker.name("dead"), broker.name("grave")
    short, small = broker.name("short"), broker.name("small")
    publisher.tell("exchange", name=dead, type="fanout")
    publisher.tell("queue", name=grave, exchange=dead)
    publisher.tell("queue", name=short, message_ttl=1.0, dead_letter_exchange=dead)
    publisher.tell("queue", name=small, max_length=2, dead_letter_exchange=dead)
    publisher.tell("publish", exchange="", key=short, bodies=["expired-1", "expired-2"])
    publisher.tell(
        "publish", exchange="", key=small, bodies=["over-1", "over-2", "kept-1", "kept-2"]
    )
    publisher.kill()
    time.sleep(IDLE)
    with Connection(broker.url) as connection:
        ready = {name: connection.inspect(name).ready for name in (grave, short, small)}
        assert ready == {grave: 4, short: 0, small: 2}
        with connection.consumer(grave, prefetch=10) as consumer:
            stories = {}
            for _ in range(4):
                message = consumer.receive(timeout=30)
                assert message is not None
                death = message.headers["x-death"][0]
                stories[message.payload] = (death["queue"], death["reason"])
                message.ack()
    assert stories == {
        "expired-1": (short, "expired"),
        "expired-2": (short, "expired"),
        "over-1": (small, "maxlen"),
        "over-2": (small, "maxlen"),
    }
