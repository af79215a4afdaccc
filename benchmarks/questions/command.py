"""How long ``queue-core inspect ping`` takes as a whole process, without its driver's import.

One node answers. The time of ``python -c 'import DRIVER'`` is taken off, run by run in turn;
``whole`` is with it. celery is asked for the same (``celery inspect ping``), at a node of kombu in
celery's namespace: it waits until its timeout of a second, as it cannot know whom to wait for.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.cases import Case
from benchmarks.processes import ROOT, Job, Processes, Reply

TIMES = 2
CASES = (
    Case(
        "command",
        "inspect ping as a process, less the driver's import",
        "ms",
        brokers=("sqlite", "redis", "amqp"),
        contestants=("ours", "kombu"),
        rounds=2,
    ),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return processes.ask(contestant, job)


def measure(adapter: Any, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process, which has the node."""
    nodes, module, arguments, driver = adapter.pinged()
    try:
        runs = [
            (_run("-c", f"import {driver}"), _run("-m", module, *arguments)) for _ in range(TIMES)
        ]
    finally:
        nodes.close()
    bare, whole = (statistics.median(times) * 1e3 for times in zip(*runs, strict=True))
    return {"value": whole - bare, "whole": whole, "count": TIMES}


def _run(*arguments: str) -> float:
    """Seconds that a process takes; it must succeed."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=30.0
    )
    return time.perf_counter() - begun
