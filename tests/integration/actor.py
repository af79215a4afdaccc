"""A process that uses the client API as it is told: a JSON command per line in, a JSON answer out.

It ends when its input ends, so that it cannot outlive the test. Each answer carries the monotonic
time, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from queue_core import Binding, Connection, Consumer, Exchange, Message, Queue, QueueCoreError


class Actor:
    """The state between commands."""

    def __init__(self) -> None:
        self.connection: Connection
        self.consumer: Consumer
        self.held: dict[str, Message] = {}

    def open(self, url: str, lease: float) -> None:
        self.connection = Connection(url, lease=lease).connect()

    def exchange(self, **fields: Any) -> None:
        self.connection.declare(Exchange(**fields))

    def queue(self, **fields: Any) -> None:
        self.connection.declare(Queue(**fields))

    def bind(self, source: str, destination: str, routing_key: str) -> None:
        self.connection.declare(Binding(source, destination, routing_key))

    def publish(self, exchange: str, key: str, bodies: list[str], **options: Any) -> None:
        producer = self.connection.producer(exchange)
        for body in bodies:
            producer.publish(body, key, **options)

    def consume(self, queue: str, prefetch: int) -> None:
        self.consumer = self.connection.consumer(queue, prefetch=prefetch)
        self.consumer.start()

    def receive(self, count: int, timeout: float) -> list[str]:
        """Receive up to ``count`` messages, each within ``timeout`` of the one before."""
        got: list[str] = []
        while len(got) < count and (message := self.consumer.receive(timeout=timeout)) is not None:
            self.held[message.payload] = message
            got.append(message.payload)
        return got

    def ack(self, bodies: list[str]) -> None:
        for body in bodies:
            self.held.pop(body).ack()
        self.consumer.flush()

    def inspect(self, queue: str) -> list[int | None]:
        info = self.connection.inspect(queue)
        return [info.ready, info.unacked, info.consumers]

    def close(self) -> None:
        self.connection.close()

    def die(self) -> None:
        """End as if by SIGKILL: no goodbye to anybody."""
        os._exit(9)


def main() -> None:
    """Serve until the input ends."""
    actor = Actor()
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {"begun": time.monotonic()}
        try:
            answer["value"] = getattr(actor, command.pop("do"))(**command)
        except QueueCoreError as error:
            answer["error"] = type(error).__name__
            answer["text"] = str(error)
        answer["ended"] = time.monotonic()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
