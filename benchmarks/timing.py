"""Wall and CPU time of a block in a contestant's process, and percentiles."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def timed(count: int) -> Iterator[dict[str, float]]:
    """Fill in ``value``, operations per second, and ``cpu_us``, this process's CPU for each."""
    result: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield result
    seconds = time.perf_counter() - wall
    result.update(
        value=count / seconds,
        seconds=seconds,
        count=count,
        cpu_us=(time.process_time() - cpu) / count * 1e6,
    )


def percentile(sample: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the sample lies; nearest rank."""
    ordered = sorted(sample)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
