"""Running handlers so that none stands in another's way: threads that come when needed, and go.

Each command has a limit of how many of it run at once; beyond it they wait in turn. So a handler
that hangs keeps its own command busy and no other: ``ping`` is answered meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

Job = Callable[[], None]

MAX_THREADS: Final = 32
MAX_WAITING: Final = 1000
"""Jobs of one command that wait for others of theirs, and jobs that wait for a thread."""
IDLE_SECONDS: Final = 10.0


class Runner:
    """Daemon threads for the handlers of one node. Thread-safe."""

    def __init__(self, name: str) -> None:
        """Start nothing yet; ``name`` is for the threads."""
        self._name = name
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._rest = threading.Condition(self._lock)
        self._ready: deque[tuple[str, Job]] = deque()
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque[Job]] = {}
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._stopped = False

    def submit(self, command: str, limit: int, job: Job) -> bool:
        """Run ``job`` soon, with at most ``limit`` of the same command at once.

        Returns False if it is stopped, or too many of the same command wait, or too many of all for
        a thread. Does not block. ``job`` must not raise.
        """
        with self._lock:
            if self._stopped or len(self._ready) >= MAX_WAITING:
                return False
            if self._running.get(command, 0) >= limit:
                waiting = self._waiting.setdefault(command, deque())
                if len(waiting) >= MAX_WAITING:
                    return False
                waiting.append(job)
                return True
            self._running[command] = self._running.get(command, 0) + 1
            self._ready.append((command, job))
            if self._idle < len(self._ready) and len(self._threads) < MAX_THREADS:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()
            self._work.notify()
            return True

    def is_own_thread(self) -> bool:
        """Whether a handler is asking."""
        return threading.current_thread() in self._threads

    def stop(self, timeout: float) -> bool:
        """Take no more, drop what waits, and wait for what runs.

        Blocks at most ``timeout`` seconds; returns whether everything has ended, but for the
        handler that calls it, if one does.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopped = True
            self._ready.clear()
            self._waiting.clear()
            self._work.notify_all()
            while self._threads - {threading.current_thread()}:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._rest.wait(left)
        return True

    def _serve(self) -> None:
        while (taken := self._next()) is not None:
            command, job = taken
            try:
                job()
            except BaseException:
                logger.exception("%s: %s ended with an error of its own", self._name, command)
            finally:
                self._done(command)

    def _next(self) -> tuple[str, Job] | None:
        with self._lock:
            while not self._ready and not self._stopped:
                self._idle += 1
                came = self._work.wait(IDLE_SECONDS)
                self._idle -= 1
                if not came and not self._ready:
                    break
            if self._ready:
                return self._ready.popleft()
            self._threads.discard(threading.current_thread())
            self._rest.notify_all()
            return None

    def _done(self, command: str) -> None:
        with self._lock:
            waiting = self._waiting.get(command)
            if waiting:
                self._ready.append((command, waiting.popleft()))
                return
            self._waiting.pop(command, None)
            self._running[command] -= 1
            if not self._running[command]:
                del self._running[command]
