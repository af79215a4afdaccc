"""How many jobs may wait behind a running one, and in the worker, from how long they took. Pure.

A second job on a busy child saves a round trip when tasks are short, and makes it wait for minutes
when they are not. So a child gets a job behind another only while the work already there is
expected to take less than `MAX_BEHIND` seconds together; a task that was never measured is expected
to take for ever.

The worker takes as many messages as will be run within `AHEAD` seconds, which is as long as one may
wait here although another worker is idle; of tasks that take longer, or of which nothing is known
yet, only those that run. When short tasks are followed by long ones, what it has is too much: see
`slow_down`.
"""

from __future__ import annotations

import math

MAX_BEHIND = 0.005
MAX_WINDOW = 32
MAX_KINDS = 10_000
AHEAD = 0.1
MAX_AHEAD = 128
LONG = 1.0
"""Seconds that all running tasks have taken already when what waits behind them is given back."""
_WEIGHT = 0.2
_WEIGHT_OF_ALL = 0.005


class Pace:
    """A moving average of the run time of each kind of task."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._average: dict[str, float] = {}
        self._all = 0.0
        self._runs = 0

    def observe(self, name: str, seconds: float) -> None:
        """Take one run into account. A slow one counts at once, fast ones only bit by bit."""
        self._runs += 1
        self._all += max(_WEIGHT_OF_ALL, 1 / self._runs) * (seconds - self._all)
        known = self._average.get(name)
        if known is None:
            if len(self._average) >= MAX_KINDS:
                self._average.clear()
            self._average[name] = seconds
        else:
            self._average[name] = max(known + _WEIGHT * (seconds - known), seconds / 4)

    def expect(self, name: str) -> float:
        """Return the seconds that a task of this kind is expected to take; infinite if unknown."""
        return self._average.get(name, math.inf)

    @property
    def typical(self) -> float:
        """Seconds that a task takes on average; infinite while nothing is known."""
        return self._all if self._runs else math.inf

    @property
    def ahead(self) -> int:
        """How many jobs to have at hand for each that can run at once, itself included."""
        if not self._runs:
            return 1
        return max(1, min(MAX_AHEAD, int(AHEAD / max(self._all, 1e-6))))

    def slow_down(self) -> None:
        """Take note that long tasks run: nothing waits behind one until many were short again."""
        self._all = max(self._all, AHEAD)
