"""What a process and its descendants use: CPU, memory, and what they send over TCP. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

DATA_SEGMENTS_OUT = 156
"""The place of ``tcpi_data_segs_out`` in the structure that TCP_INFO gives."""
PIDFD_GETFD = 438
"""A system call that Python has no function for: duplicate another process's descriptor."""


class Tree:
    """A process and its descendants, as they are at each call."""

    def __init__(self, root: int) -> None:
        """The process exists."""
        self.root = root

    def children(self) -> list[int]:
        """Every descendant."""
        parents = dict(_parents())
        found = {self.root}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {self.root})

    def everybody(self) -> list[int]:
        """The process and its descendants."""
        return [self.root, *self.children()]


def _parents() -> Iterator[tuple[int, int]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            yield int(name), int(fields[1])


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU that these processes have used, with all their threads."""
    seconds = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            seconds += time.clock_gettime((~pid << 3) | 2)  # Linux: the clock of a process
    return seconds


def memory(pids: Iterable[int]) -> float:
    """MiB of memory; what several processes share counts in parts (PSS)."""
    kibibytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kibibytes += int(line.split()[1])
    return kibibytes / 1024


def segments(pids: Iterable[int]) -> int | None:
    """How many segments with data the TCP connections of these have sent; None without any.

    A request that is small is one segment, so that this counts round trips.
    """
    found = {}
    for pid in pids:
        for one in _sockets(pid):
            with contextlib.suppress(OSError):  # not TCP
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
                sent = struct.unpack_from("=I", info, DATA_SEGMENTS_OUT)[0]
                found[os.fstat(one.fileno()).st_ino] = sent  # several processes may share one
    return sum(found.values()) if found else None


def cost(wait: Callable[[], object], pids: Sequence[int]) -> dict[str, float]:
    """What these use while ``wait`` runs: ``value``, % CPU, and ``round_trips`` per second.

    Without TCP there are no round trips.
    """
    sent, wall, used = segments(pids), time.monotonic(), cpu(pids)
    wait()
    seconds = time.monotonic() - wall
    result = {"value": (cpu(pids) - used) / seconds * 100}
    if sent is not None:
        result["round_trips"] = ((segments(pids) or 0) - sent) / seconds
    return result


def _sockets(pid: int) -> Iterator[socket.socket]:
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    with contextlib.suppress(OSError), _handle(pid) as handle:
        for name in os.listdir(f"/proc/{pid}/fd"):
            copy = system_call(PIDFD_GETFD, handle, int(name), 0)
            if copy < 0:
                continue  # it was closed meanwhile
            try:
                one = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)  # no socket
                continue
            with one:
                yield one


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)
