"""What a worker with two processes needs: to start, when it has nothing to do, and for tasks that
are to run much later.

"idle worker": ``ready`` is seconds from the start of its process until a task has run that waited
in the queue; then CPU and memory of all its processes together, and what they send to the server.
"10,000 tasks in an hour": by how much its memory grows when they are sent.
"""

from __future__ import annotations

import time

from benchmarks.cases import Case
from benchmarks.library_run import LibraryRun
from benchmarks.processes import Failed, Job, Processes, Reply
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


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    with LibraryRun(processes, contestant, job) as run:
        found = _later(run, job["later"]) if "later" in job else _idle(run)
        return {**found, "facts": run.facts}


def _everybody(run: LibraryRun) -> list[int]:
    return [pid for tree in run.trees for pid in tree.everybody()]


def _idle(run: LibraryRun) -> Reply:
    run.order("fill", 1)
    begun = time.monotonic()
    run.start_workers()
    ready = run.wait(1) - begun
    time.sleep(SETTLING)
    pids = _everybody(run)
    found = cost(lambda: time.sleep(SECONDS), pids)
    return {**found, "idle_cpu": found["value"], "value": memory(pids), "ready": ready}


def _later(run: LibraryRun, count: int) -> Reply:
    run.order("fill", WARMING)
    run.start_workers()
    run.wait(WARMING)
    before = _settled(run)
    run.order("send_later", count)
    return {"value": _settled(run) - before, "count": count}


def _settled(run: LibraryRun) -> float:
    """The memory when it has not grown for a while."""
    deadline = time.monotonic() + TO_SETTLE
    now = memory(_everybody(run))
    while time.monotonic() < deadline:
        before = now
        time.sleep(SETTLING)
        now = memory(_everybody(run))
        if now < before + STEADY:
            return now
    raise Failed(f"its memory still grew after {TO_SETTLE:g} s")
