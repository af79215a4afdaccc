"""How slow the machine is while a test measures something, so that a bound can be the real one.

The machine that runs the tests has other things to do, too, and a bound that bears its worst hour
proves little. So a process of its own sleeps five milliseconds, works for half of one, and again;
what it takes in truth, compared with that, is how slow the machine is at that moment. A promise
"within its lease and five seconds" then reads ``machine.within(lease, 5.0)``: the lease is told by
a clock, however busy the machine is, and for the five seconds' work it may take longer by as much
as the process took longer at the same time. On a quiet machine the factor is about 1.1.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_SOURCE = """
import mmap, os, struct, sys, time
with open(sys.argv[1], "r+b") as file:
    told = mmap.mmap(file.fileno(), 16)
parent, took, usual = os.getppid(), 0.0, 0.0
while os.getppid() == parent:
    begun, worked = time.monotonic(), time.thread_time()
    time.sleep(0.005)
    while time.thread_time() < worked + 0.0005:
        pass
    took += time.monotonic() - begun - 0.005
    usual += time.thread_time() - worked
    struct.pack_into("dd", told, 0, took, usual)
"""


class Machine:
    """A context manager; the process runs until it is left. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """``path`` is of a file to make, in which the process says what it measured."""
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._told = mmap.mmap(file.fileno(), 16)
        self._process = subprocess.Popen([sys.executable, "-ISc", _SOURCE, str(path)])
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        """Wait until the process measures."""
        self._next_beat()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._told.close()

    @contextlib.contextmanager
    def within(self, by_clock: float, work: float) -> Iterator[None]:
        """Fail unless the block ends within these seconds.

        Args:
            by_clock: what passes by the clock: a lease, a deadline, a sleep.
            work: what the machine has to do besides: as much longer as it is slow meanwhile.
        """
        took, usual = self._read()
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        if seconds > by_clock + work:
            self._next_beat()  # which may have begun before the block ended
            now_took, now_usual = self._read()
            slow = max(1.0, (now_took - took) / max(now_usual - usual, 0.0005))
            assert seconds <= by_clock + work * slow, (
                f"took {seconds:.3f} s; {by_clock:g} s and {work:g} s of work are promised, and "
                f"the machine was {slow:.1f} times slower than usual"
            )

    def _next_beat(self) -> None:
        before, deadline = self._read(), time.monotonic() + 60
        while self._read() == before:
            assert time.monotonic() < deadline, "the process that measures is gone"
            time.sleep(0.001)

    def _read(self) -> tuple[float, float]:
        took, usual = struct.unpack_from("dd", self._told)
        return took, usual
