"""How many messages a second one process takes, decodes and acks one by one."""

from __future__ import annotations

from typing import Any

from benchmarks.adapter import Adapter
from benchmarks.cases import Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply
from benchmarks.timing import timed

QUEUE = named("consume")
PATIENCE = 60.0
CASES = (
    Case("consume", "consume, prefetch 1", "msg/s", {"prefetch": 1}, first=100, most=20_000),
    Case("consume", "consume, prefetch 100", "msg/s", {"prefetch": 100}, first=200, most=100_000),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return processes.ask(contestant, job)


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    count = job["count"]
    adapter.clear(QUEUE)
    adapter.publish_many(QUEUE, count)
    with timed(count) as result:
        subscription = adapter.subscribe(QUEUE, job["prefetch"])
        taken = subscription.take(count, PATIENCE)
    subscription.close()
    adapter.drop(QUEUE)
    if taken != count:
        raise RuntimeError(f"{taken} of {count} messages came within {PATIENCE:g} s")
    return result
