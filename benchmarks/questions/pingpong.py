"""How long a message and its answer take between two processes that wait for each other.

Each side publishes as safely as one by one, and acks what it takes.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.adapter import Adapter, payload
from benchmarks.cases import QUORUM, SHARED, Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply
from benchmarks.timing import percentile

PING, PONG = named("ping"), named("pong")
UNTIMED = 3
CASES = (Case("pingpong", "ping-pong", "ms p50", first=5, most=1_000, brokers=(*SHARED, QUORUM)),)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    prepared = processes.ask(contestant, {**job, "side": "prepare"})
    if "error" in prepared or "absent" in prepared:
        return prepared
    jobs = [(contestant, {**job, "side": side}) for side in ("ping", "pong")]
    ping, pong = processes.ask_all(jobs)
    processes.ask(contestant, {**job, "side": "remove"})
    return pong if "error" in pong else ping


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    side = job["side"]
    rounds = job["count"] + UNTIMED
    if side == "prepare":
        adapter.clear(PING, PONG)
    elif side == "remove":
        adapter.drop(PING, PONG)
    elif side == "pong":
        peer = adapter.peer(PING, PONG)
        for _ in range(rounds):
            peer.send(peer.take())
    else:
        return _ping(adapter, rounds)
    return {}


def _ping(adapter: Adapter, rounds: int) -> dict[str, Any]:
    peer = adapter.peer(PONG, PING)
    times = []
    for number in range(rounds):
        start = time.perf_counter()
        peer.send(payload(number))
        body = peer.take()
        times.append(time.perf_counter() - start)
        if body["id"] != number:
            raise RuntimeError(f"answer {body['id']} came to question {number}")
    times = times[UNTIMED:]
    return {
        "value": percentile(times, 0.5) * 1e3,
        "p99": percentile(times, 0.99) * 1e3,
        "seconds": sum(times),
        "count": len(times),
    }
