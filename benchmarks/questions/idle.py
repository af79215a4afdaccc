"""What a consumer costs that has nothing to do: its process's CPU, and round trips to the server.

The round trips are what the server counts meanwhile, less what counting costs.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.cases import Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane

QUEUE = "bench.idle"
SETTLING = 1.5
SECONDS = 5.0
CASES = (Case("idle", "idle consumer", "% CPU", contestants=("ours", "kombu"), rounds=1),)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    clerk = "raw" if job["broker"] != "memory" else contestant
    prepared = desk.ask(contestant, {**job, "side": "prepare"})
    if "error" in prepared or "absent" in prepared:
        return prepared
    before = desk.ask(clerk, {**job, "side": "count", "wait": 1.0})
    jobs = [(contestant, {**job, "side": "wait"})]
    if clerk != contestant:
        jobs.append((clerk, {**job, "side": "count", "wait": SECONDS}))
    replies = desk.ask_all(jobs)
    desk.ask(contestant, {**job, "side": "remove"})
    reply = replies[0]
    if len(replies) > 1 and "trips" in replies[1] and "value" in reply:
        per_second = replies[1]["trips"] - before["trips"]
        reply = {**reply, "round_trips": max(0.0, per_second)}
    return reply


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process, and in the one that counts."""
    if job["side"] == "prepare":
        lane.clear(QUEUE)
        return {}
    if job["side"] == "remove":
        lane.drop(QUEUE)
        return {}
    if job["side"] == "count":
        return _count(lane, job["wait"])
    subscription = lane.subscribe(QUEUE, 100)
    subscription.take(1, SETTLING)
    wall, cpu = time.monotonic(), time.process_time()
    subscription.take(1, SECONDS + SETTLING)
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    return {"value": share * 100}


def _count(lane: Lane, seconds: float) -> dict[str, Any]:
    time.sleep(SETTLING)
    first = lane.round_trips()
    if first is None:
        return {}
    time.sleep(seconds)
    last = lane.round_trips()
    assert last is not None
    return {"trips": (last - first - 1) / seconds}
