"""A node that nobody asks anything costs next to nothing."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from queue_core.testing import eventually

SETTLING, WATCHED = 1.5, 4.0
MOST = 0.03
"""Of one CPU; by ticks of 10 ms, so that the goal of 1 % itself is the benchmark's to see."""
SETTLED = 20.0
"""Seconds after which it has started on any machine."""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_idle_node_uses_next_to_no_cpu(broker, scripts):
    node = scripts("control.py", broker.url, f"qc-test-{uuid.uuid4().hex[:8]}", "a")
    assert node.hear(60) == "ready"
    time.sleep(SETTLING)

    def used() -> float:
        before = cpu_seconds(node.process.pid)
        time.sleep(WATCHED)
        return cpu_seconds(node.process.pid) - before

    eventually(lambda: used() <= MOST * WATCHED, SETTLED)
