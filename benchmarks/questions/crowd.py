"""What eight processes take that claim from one queue as fast as they can, and who gets how much.

All begin at the same moment and stop after a fixed time; the queue holds more than they can take.
``single`` is one process alone, measured just before; ``least`` is the share of the process that
got least, relative to the mean.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.cases import SHARED, Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane

QUEUE = "bench.crowd"
PROCESSES = 8
TO_OPEN = 1.5
SECONDS = 1.5
CASES = tuple(
    Case(
        "crowd",
        f"8 processes, prefetch {prefetch}",
        "msg/s",
        {"prefetch": prefetch, "fill": fill},
        brokers=SHARED,
        contestants=("ours", "raw"),
    )
    for prefetch, fill in ((10, 60_000), (100, 120_000))
)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    desk.warm(contestant, PROCESSES)
    single = _race(desk, contestant, job, 1)
    if "value" not in single:
        return single
    crowd = _race(desk, contestant, job, PROCESSES)
    if "value" not in crowd:
        return crowd
    return {**crowd, "single": single["value"], "gain": crowd["value"] / single["value"]}


def _race(desk: Desk, contestant: str, job: Job, processes: int) -> Reply:
    filled = desk.ask(contestant, {**job, "side": "fill"})
    if "error" in filled or "absent" in filled:
        return filled
    run = {**job, "side": "take", "start": time.time() + TO_OPEN}
    replies = desk.ask_all([(contestant, run)] * processes)
    desk.ask(contestant, {**job, "side": "remove"})
    for reply in replies:
        if "error" in reply:
            return reply
    taken = [reply["taken"] for reply in replies]
    if not sum(taken):
        return {"error": "nobody got a message"}
    return {
        "value": sum(reply["rate"] for reply in replies),
        "least": min(taken) / (sum(taken) / len(taken)),
        "count": sum(taken),
        "drained": float(sum(taken) >= job["fill"]),
        "facts": replies[0]["facts"],
    }


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    if job["side"] == "fill":
        lane.clear(QUEUE)
        lane.publish_many(QUEUE, job["fill"])
        return {}
    if job["side"] == "remove":
        lane.drop(QUEUE)
        return {}
    late = time.time() - job["start"]
    if late > 0:
        raise RuntimeError(f"the process was ready {late:.1f} s too late")
    time.sleep(-late)
    start = time.perf_counter()
    taken = lane.subscribe(QUEUE, job["prefetch"]).take(job["fill"], SECONDS)
    return {"taken": taken, "rate": taken / (time.perf_counter() - start)}
