"""What wakes a thread that waits for descriptors: a pipe for any thread, and for signal handlers.

An event would not do: a signal handler cannot set one, and nobody waits for an event and for
sockets together.
"""

from __future__ import annotations

import contextlib
import os
import threading


class WakePipe:
    """One thread waits until ``readable`` can be read, and then drains it; `wake` is for all.

    Attributes:
        readable: the descriptor to wait for.
        writable: the other end, for `signal.set_wakeup_fd`; -1 when it is closed.
    """

    def __init__(self) -> None:
        """Open both ends; neither blocks."""
        self.readable, self.writable = os.pipe()
        for end in (self.readable, self.writable):
            os.set_blocking(end, False)
        self._lock = threading.RLock()  # a signal handler may interrupt its holder

    def wake(self) -> None:
        """End the wait, or the next one. Does not block; does nothing once it is closed."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it is awake already
            if self.writable >= 0:
                os.write(self.writable, b"w")

    def drain(self) -> None:
        """Forget the wakes so far. For the thread that waits."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.readable, 4096)

    def close(self) -> None:
        """Close both ends. May be called once, by the thread that waits."""
        with self._lock:
            os.close(self.readable)
            os.close(self.writable)
            self.writable = -1
