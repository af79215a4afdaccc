"""What this process sends over TCP, as Linux counts it: segments with data.

A request that is small is one segment, so that this counts round trips.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable

DATA_SEGMENTS_OUT = 156
"""The place of ``tcpi_data_segs_out`` in the structure that TCP_INFO gives."""


def cost(wait: Callable[[], object]) -> dict[str, float]:
    """What this process uses while ``wait`` runs: ``value``, % CPU, and ``round_trips`` per second.

    Without TCP there are no round trips.
    """
    sent, wall, cpu = _sent(), time.monotonic(), time.process_time()
    wait()
    seconds = time.monotonic() - wall
    result = {"value": (time.process_time() - cpu) / seconds * 100}
    if sent is not None:
        result["round_trips"] = ((_sent() or 0) - sent) / seconds
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
