"""What a consumer costs that has nothing to do: CPU of its process while it waits.

Run it as a file with one or more broker URLs. Each is consumed from an empty queue for some
seconds; printed is the CPU time as a share of the wall time (goal: below 1 %).
"""

from __future__ import annotations

import argparse
import time

from queue_core import Connection, Queue


def idle_share(url: str, seconds: float) -> float:
    """CPU time of this process per second of waiting."""
    with Connection(url) as connection:
        queue = connection.declare(Queue(exclusive=True))
        with connection.consumer(queue) as consumer:
            consumer.receive(timeout=1.0)
            wall, cpu = time.monotonic(), time.process_time()
            consumer.receive(timeout=seconds)
            return (time.process_time() - cpu) / (time.monotonic() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    for url in options.urls:
        scheme = url.partition(":")[0]
        print(f"{scheme:10} {idle_share(url, options.seconds):7.3%} of one CPU while idle")


if __name__ == "__main__":
    main()
