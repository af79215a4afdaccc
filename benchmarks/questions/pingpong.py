"""How long a message and its answer take between two processes that wait for each other.

Each side publishes as safely as one by one, and acks what it takes.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.cases import QUORUM, SHARED, Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane, payload
from benchmarks.names import named
from benchmarks.timing import percentile

PING, PONG = named("ping"), named("pong")
UNTIMED = 3
CASES = (Case("pingpong", "ping-pong", "ms p50", first=5, most=1_000, brokers=(*SHARED, QUORUM)),)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    prepared = desk.ask(contestant, {**job, "side": "prepare"})
    if "error" in prepared or "absent" in prepared:
        return prepared
    jobs = [(contestant, {**job, "side": side}) for side in ("ping", "pong")]
    ping, pong = desk.ask_all(jobs)
    desk.ask(contestant, {**job, "side": "remove"})
    return pong if "error" in pong else ping


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    side = job["side"]
    rounds = job["count"] + UNTIMED
    if side == "prepare":
        lane.clear(PING, PONG)
    elif side == "remove":
        lane.drop(PING, PONG)
    elif side == "pong":
        courier = lane.courier(PING, PONG)
        for _ in range(rounds):
            courier.send(courier.take())
    else:
        return _ping(lane, rounds)
    return {}


def _ping(lane: Lane, rounds: int) -> dict[str, Any]:
    courier = lane.courier(PONG, PING)
    times = []
    for number in range(rounds):
        start = time.perf_counter()
        courier.send(payload(number))
        body = courier.take()
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
