"""What the client costs per message: consume and ack, minus the bare store's own loop.

Run it as a file. Both loops work on the memory store in one process, in turn, several times; the
medians and their difference are printed. Wall time, microseconds per message.
"""

from __future__ import annotations

import argparse
import statistics
import time

from queue_core import Connection, Queue
from queue_core.transport import Envelope
from queue_core.transports.memory import MemoryBroker, MemoryStore

BATCH = 100


def bare_loop(count: int) -> float:
    """Seconds for claiming ``count`` messages in batches, each settled with the next claim."""
    store = MemoryStore(MemoryBroker())
    store.open_session("s", 30.0)
    store.put([Envelope("q", str(number), b'{"a":1}', b"") for number in range(count)], {})
    start = time.perf_counter()
    tokens: list[object] = []
    taken = 0
    while taken < count:
        claims = store.claim("s", str(taken), {"q": BATCH}, 0.0, settle=tokens).claims
        tokens = [claim.token for claim in claims]
        taken += len(claims)
    store.put([], {}, settle=tokens)
    return time.perf_counter() - start


def client_loop(count: int, name: str) -> float:
    """Seconds for receiving and acking ``count`` messages through the client, flush included."""
    with Connection(f"memory://{name}") as connection:
        connection.declare(Queue("q"))
        connection.producer().publish_many(({"a": 1}, "q") for _ in range(count))
        with connection.consumer("q", prefetch=BATCH) as consumer:
            start = time.perf_counter()
            for _ in range(count):
                message = consumer.receive(timeout=5.0)
                assert message is not None, "a message is missing"
                message.ack()
            consumer.flush()
            return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    bare, client = [], []
    for number in range(options.rounds):
        bare.append(bare_loop(options.count) / options.count * 1e6)
        client.append(client_loop(options.count, f"overhead-{number}") / options.count * 1e6)
    low, high = statistics.median(bare), statistics.median(client)
    print(
        f"bare store loop  {low:6.1f} us per message (median of {options.rounds} x {options.count})"
    )
    print(f"through client   {high:6.1f} us per message")
    print(f"client's own     {high - low:6.1f} us per message (goal: at most 25)")


if __name__ == "__main__":
    main()
