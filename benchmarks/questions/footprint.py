"""What a worker with two processes needs: to start, when it has nothing to do, and for tasks that
are to run much later.

"idle worker": ``ready`` is seconds from the start of its process until a task has run that waited
in the queue; then CPU and memory of all its processes together, and what they send to the server.
"10,000 tasks in an hour": by how much its memory grows when they are sent.
"""

from __future__ import annotations

import time

from benchmarks.cases import Case
from benchmarks.crew import Crew
from benchmarks.desk import Desk, Failed, Job, Reply
from benchmarks.tree import cost, memory

WARMING = 200
SETTLING = 2.0
SECONDS = 5.0
STEADY = 0.1
TO_SETTLE = 40.0
MANY = 10_000
BROKERS = ("sqlite", "postgresql", "redis", "amqp")
IDLE, LATER = "idle worker", "10,000 tasks in an hour"
CASES = (
    Case(
        "footprint",
        IDLE,
        "MiB",
        brokers=BROKERS,
        contestants=("ours", "celery"),
        rounds=2,
    ),
    Case(
        "footprint",
        LATER,
        "MiB more",
        {"later": MANY},
        brokers=BROKERS,
        contestants=("ours",),
        rounds=1,
    ),
)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    with Crew(desk, contestant, job) as crew:
        found = _later(crew, job["later"]) if "later" in job else _idle(crew)
        return {**found, "facts": crew.facts}


def _everybody(crew: Crew) -> list[int]:
    return [pid for tree in crew.trees for pid in tree.everybody()]


def _idle(crew: Crew) -> Reply:
    crew.tell("fill", 1)
    begun = time.monotonic()
    crew.work()
    ready = crew.wait(1) - begun
    time.sleep(SETTLING)
    pids = _everybody(crew)
    found = cost(lambda: time.sleep(SECONDS), pids)
    return {**found, "idle_cpu": found["value"], "value": memory(pids), "ready": ready}


def _later(crew: Crew, count: int) -> Reply:
    crew.tell("fill", WARMING)
    crew.work()
    crew.wait(WARMING)
    before = _settled(crew)
    crew.tell("send_later", count)
    return {"value": _settled(crew) - before, "count": count}


def _settled(crew: Crew) -> float:
    """The memory when it has not grown for a while."""
    deadline = time.monotonic() + TO_SETTLE
    now = memory(_everybody(crew))
    while time.monotonic() < deadline:
        before = now
        time.sleep(SETTLING)
        now = memory(_everybody(crew))
        if now < before + STEADY:
            return now
    raise Failed(f"its memory still grew after {TO_SETTLE:g} s")
