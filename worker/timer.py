"""One thread that calls functions at their time, for everything in a worker that waits."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from queue_core import Clock, SystemClock
from queue_core.worker.guarding import Fail, guarded, unheard

logger = logging.getLogger(__name__)


class Timer:
    """Calls functions later, on a thread of its own. They must not block for long. Thread-safe."""

    def __init__(self, clock: Clock | None = None, fail: Fail = unheard) -> None:
        """Start nothing yet. ``fail`` is told if the thread fails."""
        self._fail = fail
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._entries: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call this in so many seconds, unless the timer is stopped before."""
        with self._changed:
            due = self._clock.monotonic() + seconds
            heapq.heappush(self._entries, (due, next(self._numbers), call))
            self._changed.notify()

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=guarded(self._run, self._fail), name="timer", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Call nothing more; blocks until a call that is under way has returned."""
        with self._changed:
            self._stopped = True
            self._entries.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def run_due(self) -> float | None:
        """Call what is due; return the seconds until the next, None if there is none."""
        while True:
            with self._changed:
                wait = self._left()
                if wait is None or wait > 0:
                    return wait
                _, _, call = heapq.heappop(self._entries)
            try:
                call()
            except Exception:
                logger.exception("a timed call failed")

    def _left(self) -> float | None:
        """Return the seconds until the first call, None if there is none."""
        return self._entries[0][0] - self._clock.monotonic() if self._entries else None

    def _run(self) -> None:
        while not self._stopped:
            self.run_due()
            with self._changed:  # asked anew: an earlier call may have come meanwhile
                left = self._left()
                if not self._stopped and (left is None or left > 0):
                    self._changed.wait(left)

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._entries)
