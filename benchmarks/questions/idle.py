"""What a consumer costs that has nothing to do: its process's CPU, and what it sends to the server.

Requests are counted as segments with data that its TCP connections have sent, which Linux tells: a
request that is small is one segment. Brokers without TCP have none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import Any

from benchmarks.cases import PLAIN, Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane
from benchmarks.names import named

QUEUE = named("idle")
SETTLING = 1.5
SECONDS = 6.0
CASES = (
    Case("idle", "idle consumer", "% CPU", brokers=PLAIN, contestants=("ours", "kombu"), rounds=1),
)
DATA_SEGMENTS_OUT = 156
"""The place of ``tcpi_data_segs_out`` in the structure that TCP_INFO gives."""


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return desk.ask(contestant, job)


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's process."""
    lane.clear(QUEUE)
    subscription = lane.subscribe(QUEUE, 100)
    subscription.take(1, SETTLING)
    sent, wall, cpu = _sent(), time.monotonic(), time.process_time()
    subscription.take(1, SECONDS)
    seconds = time.monotonic() - wall
    result = {"value": (time.process_time() - cpu) / seconds * 100}
    if sent is not None:
        result["round_trips"] = ((_sent() or 0) - sent) / seconds
    subscription.close()
    lane.drop(QUEUE)
    return result


def _sent() -> int | None:
    """How many segments with data this process's TCP connections have sent; None without any."""
    total, connections = 0, 0
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
                total += struct.unpack_from("=I", info, DATA_SEGMENTS_OUT)[0]
                connections += 1
    return total if connections else None
