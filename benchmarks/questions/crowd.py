"""What eight processes take that claim from one queue as fast as they can, and who gets how much.

All begin at the same moment, and stop after a fixed time or when the queue is empty.
``single`` is one process alone, measured just before; ``least`` is the share of the process that
got least, relative to the mean.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import SHARED, Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane
from benchmarks.names import named

QUEUE = named("crowd")
PROCESSES = 8
TO_OPEN = 30.0
SECONDS = 4.0
CASES = tuple(
    Case(
        "crowd",
        f"8 processes, prefetch {prefetch}",
        "msg/s",
        {"prefetch": prefetch, "fill": fill},
        brokers=SHARED,
        contestants=("ours",),
        rounds=1,
        thorough=prefetch > 10,
    )
    for prefetch, fill in ((10, 50_000), (100, 100_000))
)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    desk.warm(contestant, PROCESSES)
    replies = []
    for processes in (1, PROCESSES):
        filled = desk.ask(contestant, {**job, "side": "fill"})
        if "error" in filled or "absent" in filled:
            return filled
        replies.append(_race(desk, contestant, job, processes))
        if "error" in replies[-1]:
            return replies[-1]
    desk.ask(contestant, {**job, "side": "remove"})
    single, crowd = replies
    return {**crowd, "single": single["value"], "gain": crowd["value"] / single["value"]}


def _race(desk: Desk, contestant: str, job: Job, processes: int) -> Reply:
    with tempfile.TemporaryDirectory(prefix="queue-core-bench-") as line:
        run = {**job, "side": "take", "line": line, "processes": processes}
        replies = desk.ask_all([(contestant, run)] * processes)
    for reply in replies:
        if "error" in reply:
            return reply
    taken = [reply["taken"] for reply in replies]
    if not sum(taken):
        return {"error": "nobody got a message"}
    began = min(reply["began"] for reply in replies)
    latest = max(reply["latest"] for reply in replies)
    return {
        "value": sum(taken) / (latest - began),
        "least": min(taken) / (sum(taken) / len(taken)),
        "count": sum(taken),
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
    _line_up(Path(job["line"]), job["processes"])
    began = time.monotonic()
    subscription = lane.subscribe(QUEUE, job["prefetch"])
    taken = subscription.take(job["fill"], SECONDS)
    return {"taken": taken, "began": began, "latest": subscription.latest}


def _line_up(line: Path, processes: int) -> None:
    """Wait until all the others are there too."""
    (line / str(os.getpid())).touch()
    end = time.monotonic() + TO_OPEN
    while len(os.listdir(line)) < processes:
        if time.monotonic() > end:
            raise TimeoutError("the other processes did not come")
        time.sleep(0.002)
