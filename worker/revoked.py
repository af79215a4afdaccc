"""The ids of tasks that shall not run: each for some hours, and not too many of them. Pure.

Every worker keeps its own list, since a command goes to all of them. What keeps it across restarts
is the state file (`queue_core.worker.steps.state`) and the mailbox's journal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from queue_core import Clock, SystemClock

KEPT = 3 * 3600.0
"""Seconds for which an id is remembered."""
MAX_IDS = 50_000


class Revoked:
    """A set of ids that forgets. Thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        """None yet."""
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}  # in the order of their time
        self._listener: Callable[[], None] | None = None

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this after each change, in the thread that made it."""
        self._listener = listener

    def add(self, ids: Iterable[str], seconds: float = KEPT) -> None:
        """Remember these for so many seconds."""
        self.update(dict.fromkeys(ids, self._clock.time() + seconds))

    def update(self, entries: Mapping[str, float]) -> None:
        """Remember these until so many seconds since 1970."""
        with self._lock:
            now = self._clock.time()
            known = {**self._until, **entries}
            kept = sorted((item for item in known.items() if item[1] > now), key=lambda i: i[1])
            self._until = dict(kept[-MAX_IDS:])
        if self._listener is not None:
            self._listener()

    def __contains__(self, task_id: object) -> bool:
        """Whether it is revoked."""
        until = self._until.get(task_id) if isinstance(task_id, str) else None
        return until is not None and until > self._clock.time()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids, the oldest first."""
        now = self._clock.time()
        return iter([task_id for task_id, until in self._until.items() if until > now])

    def __len__(self) -> int:
        """How many are kept, the forgotten ones of the last moments included."""
        return len(self._until)

    def plain(self) -> dict[str, float]:
        """Return id -> seconds since 1970 until which it counts."""
        return dict(self._until)
