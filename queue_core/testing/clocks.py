"""A clock that moves only when a test says so.

Pass a `FakeClock` wherever a `queue_core.policy.Clock` is asked for. Then an hour of leases, ttls
and delays takes no time, and happens the same way each time.
"""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """A clock set by hand; safe to use from any thread.

    ``monotonic`` and ``time`` move by ``advance`` and by ``sleep``, which returns at once: whoever
    sleeps on this clock finds that the time has passed. ``step`` moves only ``time``, as a machine
    whose clock is corrected does.

    Args:
        monotonic: where the monotonic clock starts, in seconds.
        time: where the wall clock starts, in seconds since the epoch.
    """

    __slots__ = ("_lock", "_monotonic", "_time", "slept")

    slept: list[float]
    """The seconds of every ``sleep`` so far."""

    def __init__(self, monotonic: float = 1_000.0, time: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._time = time
        self.slept = []

    def monotonic(self) -> float:
        """Return the seconds of the monotonic clock."""
        with self._lock:
            return self._monotonic

    def time(self) -> float:
        """Return the seconds since the epoch."""
        with self._lock:
            return self._time

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once; zero or less does nothing but be noted in ``slept``."""
        with self._lock:
            self.slept.append(seconds)
            self._pass(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass.

        Raises:
            ValueError: they are negative; use ``step`` for a clock that is set back.
        """
        if seconds < 0:
            raise ValueError("a monotonic clock does not go back; step() moves the wall clock")
        with self._lock:
            self._pass(seconds)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back if ``seconds`` is negative."""
        with self._lock:
            self._time += seconds

    def _pass(self, seconds: float) -> None:
        self._monotonic += seconds
        self._time += seconds
