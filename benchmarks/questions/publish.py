"""How many messages a second one process publishes: one by one, and many at once."""

from __future__ import annotations

from typing import Any

from benchmarks.adapter import Adapter
from benchmarks.cases import Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply
from benchmarks.timing import timed

QUEUE = named("publish")
CASES = (
    Case("publish", "publish one by one", "msg/s", {"many": False}, first=100, most=20_000),
    Case("publish", "publish_many", "msg/s", {"many": True}, first=200, most=100_000),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return processes.ask(contestant, job)


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    publish = adapter.publish_many if job["many"] else adapter.publish_each
    adapter.clear(QUEUE)
    publish(QUEUE, 10)
    with timed(job["count"]) as result:
        publish(QUEUE, job["count"])
    adapter.drop(QUEUE)
    return result
