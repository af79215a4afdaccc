"""What a consumer and a mailbox's node cost that have nothing to do: their process's CPU, and what
they send to the server. Brokers without TCP have no round trips to count.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.adapter import Adapter
from benchmarks.cases import PLAIN, Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply
from benchmarks.tree import cost

QUEUE = named("idle")
SETTLING = 1.5
SECONDS = 5.0
CASES = tuple(
    Case(
        "idle",
        f"idle {who}",
        "% CPU",
        {"who": who},
        brokers=PLAIN,
        contestants=("ours", "kombu"),
        rounds=1,
    )
    for who in ("consumer", "node")
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return processes.ask(contestant, job)


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    return _node(adapter) if job["who"] == "node" else _consumer(adapter)


def _consumer(adapter: Adapter) -> dict[str, float]:
    adapter.clear(QUEUE)
    subscription = adapter.subscribe(QUEUE, 100)
    subscription.take(1, SETTLING)
    result = cost(lambda: subscription.take(1, SECONDS), [os.getpid()])
    subscription.close()
    adapter.drop(QUEUE)
    return result


def _node(adapter: Adapter) -> dict[str, float]:
    nodes = adapter.nodes([QUEUE])
    time.sleep(SETTLING)
    result = cost(lambda: time.sleep(SECONDS), [os.getpid()])
    nodes.close()
    return result
