"""Processes that are made to stand still, as under a debugger or on a machine that is suspended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from queue_core.testing import eventually


def freeze(pid: int) -> None:
    """SIGSTOP; return when all threads of the process stand still. It keeps its sockets."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _states(pid) == {"T"}, 30.0, what=f"process {pid} stands still")


def _states(pid: int) -> set[str]:
    found = set()
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            found.add(thread.read_text().rpartition(")")[2].split()[0])
        except OSError:
            continue  # a thread that has ended since
    return found
