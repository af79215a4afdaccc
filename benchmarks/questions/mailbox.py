"""How long a command and its answers take: to one node, and to all of fifty.

Five processes have ten nodes each; who asks is a process of its own, but in memory. Times are from
the question to the last answer. How many there are who asks finds out by itself; kombu is told.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.adapter import Adapter, Caller
from benchmarks.cases import PLAIN, Case
from benchmarks.processes import Job, Processes, Reply
from benchmarks.rendezvous import Rendezvous, run_together
from benchmarks.timing import percentile

UNTIMED = 5
TO_SETTLE = 30.0
TIMEOUT = 10.0
DONE = "done"
CASES = (
    Case(
        "mailbox",
        "command to one node",
        "ms p50",
        {"processes": 1, "each": 1, "all": False},
        first=20,
        most=300,  # a node takes more than that at once no faster than 200 a second
        brokers=PLAIN,
    ),
    Case(
        "mailbox",
        "command to all of 50 nodes",
        "ms p50",
        {"processes": 5, "each": 10, "all": True},
        first=3,
        most=50,
        brokers=("redis", "amqp"),
        contestants=("ours", "kombu"),
    ),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    if job["broker"] == "memory":
        return processes.ask(contestant, {**job, "side": "both"})
    sides = [f"serve {number}" for number in range(job["processes"])] + ["ask"]
    return run_together(processes, [(contestant, {**job, "side": side}) for side in sides])


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    side, _, number = job["side"].partition(" ")
    if side == "both":
        nodes = adapter.nodes(["node-0-0"])
        found = _ask(adapter, job)
        nodes.close()
        return found
    with Rendezvous(job["folder"]) as rendezvous:
        if side == "serve":
            nodes = adapter.nodes([f"node-{number}-{index}" for index in range(job["each"])])
            rendezvous.announce(f"serves-{number}")
            rendezvous.wait_for(DONE)
            nodes.close()
            return {}
        for number in range(job["processes"]):
            rendezvous.wait_for(f"serves-{number}")
        found = _ask(adapter, job)
        rendezvous.announce(DONE)
        return found


def _ask(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    caller = adapter.caller()
    names = None if job["all"] else ["node-0-0"]
    there = job["processes"] * job["each"]
    settle(caller, names, there)
    times = []
    for _ in range(job["count"]):
        start = time.monotonic()
        came = caller.ask(names, TIMEOUT, there)
        times.append(time.monotonic() - start)
        if len(came) != there:
            raise RuntimeError(f"{len(came)} of {there} nodes answered")
    caller.close()
    return {
        "value": percentile(times, 0.5) * 1e3,
        "p99": percentile(times, 0.99) * 1e3,
        "seconds": sum(times),
        "count": len(times),
    }


def settle(caller: Caller, names: list[str] | None, there: int) -> None:
    """Ask until everybody answers, some times more, and wait for no answer that is late."""
    end = time.monotonic() + TO_SETTLE
    answered = 0
    while answered < UNTIMED:
        answered += len(caller.ask(names, 2.0, there)) == there
        if time.monotonic() > end:
            raise TimeoutError(f"never did all of {there} nodes answer")
