"""How many messages a second one process takes, decodes and acks one by one."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane
from benchmarks.names import named
from benchmarks.timing import timed

QUEUE = named("consume")
PATIENCE = 60.0
CASES = (
    Case("consume", "consume, prefetch 1", "msg/s", {"prefetch": 1}, first=100, most=20_000),
    Case("consume", "consume, prefetch 100", "msg/s", {"prefetch": 100}, first=200, most=100_000),
)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return desk.ask(contestant, job)


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    count = job["count"]
    lane.clear(QUEUE)
    lane.publish_many(QUEUE, count)
    with timed(count) as result:
        subscription = lane.subscribe(QUEUE, job["prefetch"])
        taken = subscription.take(count, PATIENCE)
    subscription.close()
    lane.drop(QUEUE)
    if taken != count:
        raise RuntimeError(f"{taken} of {count} messages came within {PATIENCE:g} s")
    return result
