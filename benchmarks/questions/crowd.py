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

from benchmarks.adapter import Adapter
from benchmarks.cases import SHARED, Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply

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


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    processes.warm(contestant, PROCESSES)
    replies = []
    for number in (1, PROCESSES):
        filled = processes.ask(contestant, {**job, "side": "fill"})
        if "error" in filled or "absent" in filled:
            return filled
        replies.append(_race(processes, contestant, job, number))
        if "error" in replies[-1]:
            return replies[-1]
    processes.ask(contestant, {**job, "side": "remove"})
    single, crowd = replies
    return {**crowd, "single": single["value"], "gain": crowd["value"] / single["value"]}


def _race(processes: Processes, contestant: str, job: Job, number: int) -> Reply:
    with tempfile.TemporaryDirectory(prefix="queue-core-bench-") as line:
        run = {**job, "side": "take", "line": line, "number": number}
        replies = processes.ask_all([(contestant, run)] * number)
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


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    if job["side"] == "fill":
        adapter.clear(QUEUE)
        adapter.publish_many(QUEUE, job["fill"])
        return {}
    if job["side"] == "remove":
        adapter.drop(QUEUE)
        return {}
    _line_up(Path(job["line"]), job["number"])
    began = time.monotonic()
    subscription = adapter.subscribe(QUEUE, job["prefetch"])
    taken = subscription.take(job["fill"], SECONDS)
    return {"taken": taken, "began": began, "latest": subscription.latest}


def _line_up(line: Path, number: int) -> None:
    """Wait until all the others are there too."""
    (line / str(os.getpid())).touch()
    end = time.monotonic() + TO_OPEN
    while len(os.listdir(line)) < number:
        if time.monotonic() > end:
            raise TimeoutError("the other processes did not come")
        time.sleep(0.002)
