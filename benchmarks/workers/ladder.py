"""Taking delayed messages back out of RabbitMQ, where all share the queues that they wait in."""

from __future__ import annotations

import pika

from queue_core.transports.amqp.ladder import PREFIX, TO_QUEUE, levels, rounded


def take_back(url: str, queue: str, delay: float) -> None:
    """Remove what was just delayed by so many seconds on its way to a queue."""
    waiting = f"{PREFIX}{levels(rounded(delay))[0]}"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for method, properties, _ in channel.consume(waiting, inactivity_timeout=1.0):
            if method is None:
                break
            if properties.headers.get(TO_QUEUE) == queue:
                channel.basic_ack(method.delivery_tag)
