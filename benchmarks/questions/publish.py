"""How many messages a second one process publishes: one by one, and many at once."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane
from benchmarks.names import named
from benchmarks.timing import timed

QUEUE = named("publish")
CASES = (
    Case("publish", "publish one by one", "msg/s", {"many": False}, first=100, most=20_000),
    Case("publish", "publish_many", "msg/s", {"many": True}, first=200, most=100_000),
)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return desk.ask(contestant, job)


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    publish = lane.publish_many if job["many"] else lane.publish_each
    lane.clear(QUEUE)
    publish(QUEUE, 10)
    with timed(job["count"]) as result:
        publish(QUEUE, job["count"])
    lane.drop(QUEUE)
    return result
