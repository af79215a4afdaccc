"""A producer or a consumer that goes on for ever and writes down what it was promised, and when.

Arguments: producer or consumer, the broker's url, the queue, the lease in seconds, a name of its
own, and the file for its notes. Each note is a line: the monotonic time in nanoseconds, which all
processes of a machine share; what happened (confirmed, received since then, or certain for an ack
that was flushed); and the message. Notes are one write, so that SIGKILL leaves whole lines.

Where a broker cannot tell a publish that is repeated, since its confirm was lost, from a new one,
it keeps both: a message that comes for the first time is "new" there, and may come so twice.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

from queue_core import Connection, QueueCoreError

Note = Callable[..., None]


def produce(connection: Connection, queue: str, name: str, note: Note) -> None:
    """Publish single messages and batches; some are delayed, some have a priority."""
    producer = connection.producer()
    for number in range(10**9):
        first = f"{name}.{time.monotonic_ns()}.{number}"
        if number % 3:
            options = random.choice([{}, {"priority": 5}, {"delay": 0.5}])
            producer.publish(first, queue, **options)
            note("confirmed", first)
        else:
            batch = [f"{first}.{part}" for part in range(random.randint(2, 200))]
            producer.publish_many([(body, queue) for body in batch])
            note("confirmed", *batch)
        time.sleep(random.random() * 0.05)


def consume(connection: Connection, queue: str, note: Note) -> None:
    """Ack most messages, requeue some; flush now and then."""
    with connection.consumer(queue, prefetch=random.choice([1, 10, 100])) as consumer:
        while True:
            asked = time.monotonic_ns()  # it may be frozen between the delivery and the note
            if (message := consumer.receive(timeout=1.0)) is None:
                continue
            known = message.redelivered or connection.features.deduplicate
            note("received" if known else "new", message.payload, when=asked)
            if random.random() < 0.05:
                message.requeue()
                continue
            message.ack()
            if random.random() < 0.5:
                consumer.flush()
                note("certain", message.payload)


def main() -> None:
    role, url, queue, lease, name, path = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, *messages: str, when: int | None = None) -> None:
        when = when or time.monotonic_ns()
        os.write(file, "".join(f"{when} {event} {one}\n" for one in messages).encode())

    while True:
        try:
            with Connection(url, lease=float(lease)) as connection:
                if role == "producer":
                    produce(connection, queue, name, note)
                else:
                    consume(connection, queue, note)
        except QueueCoreError:
            time.sleep(0.1)  # it stood still for too long, or its broker went away: once more


if __name__ == "__main__":
    main()
