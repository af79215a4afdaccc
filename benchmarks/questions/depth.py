"""What a message costs to take from a queue that holds many.

The queue is filled to its depth; then, several times, a new consumer takes a thousand messages,
which is timed, and a thousand are published again, which is not. RabbitMQ's goal is relative to the
bare driver; elsewhere a contestant is compared with itself.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.adapter import Adapter
from benchmarks.cases import PLAIN, Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply
from benchmarks.timing import timed

QUEUE = named("depth")
TAKE = 1_000
TIMES = 25
PATIENCE = 60.0
DEPTHS = {"1 k": 1_000, "100 k": 100_000, "1 M": 1_000_000}
CONTESTANTS = {name: ("ours",) for name in PLAIN} | {"amqp": ("ours", "raw")}
CASES = tuple(
    Case(
        "depth",
        f"consume at depth {name}",
        "msg/s",
        {"depth": depth, "prefetch": 100},
        brokers=(broker,),
        contestants=contestants,
        rounds=1,
        thorough=depth > 1_000,
    )
    for broker, contestants in CONTESTANTS.items()
    for name, depth in DEPTHS.items()
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return processes.ask(contestant, job)


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    adapter.clear(QUEUE)
    adapter.publish_many(QUEUE, job["depth"])
    samples = []
    for _ in range(TIMES):
        with timed(TAKE) as sample:
            subscription = adapter.subscribe(QUEUE, job["prefetch"])
            taken = subscription.take(TAKE, PATIENCE)
        subscription.close()
        if taken != TAKE:
            raise RuntimeError(f"{taken} of {TAKE} messages came within {PATIENCE:g} s")
        samples.append(sample)
        adapter.publish_many(QUEUE, TAKE)
    adapter.drop(QUEUE)
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
