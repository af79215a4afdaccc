"""The gate: writers of one SQLite file take turns.

SQLite lets one writer in and has the others sleep and try again, so whoever has just written is the
most likely to write next: eight processes at once made 10,282 commits against 1, 1, 1 and so on.
One lock file is not enough either. Two are: a writer takes A, then B, releases A, works, and
releases B. Whoever holds A is next for certain, and a writer that has just finished must queue at A
like everybody else.

The rules:

- The gate is for fairness only; SQLite's own lock keeps the data right. So nobody waits at it
  without an end: after ``patience`` seconds a writer goes on without, and leaves the gate alone for
  a while, since its holder is stopped (Ctrl-Z, a debugger) or something foreign holds the file.
- ``flock`` belongs to the open file, so the kernel releases it when the process is killed, and
  handles of one process exclude each other like processes. A forked child closes its copy at once,
  or the lock of a dead parent would live on in the child.
- Waiting is polling: a blocking ``flock`` cannot be given up. Only the one who holds A, and is
  next, polls often.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import random
import time
import weakref
from collections.abc import Callable

_NEXT_POLL = 0.00003
_QUEUE_POLL = 0.0003
_DISTRUST = 5.0


class Gate:
    """One handle's way through the gate of one database. One thread at a time."""

    __slots__ = ("__weakref__", "_a", "_b", "_distrusted_until", "_inside", "_open", "_patience")

    def __init__(self, open_file: Callable[[str], int], patience: float) -> None:
        """Open nothing yet.

        ``open_file`` opens ``gate-a`` and ``gate-b``, and returns the descriptor; ``patience`` is
        in seconds.
        """
        self._open = open_file
        self._patience = patience
        self._a = -1
        self._b = -1
        self._inside = False
        self._distrusted_until = 0.0

    def enter(self, within: float = math.inf) -> None:
        """Wait for the turn, at most ``patience`` or ``within`` seconds; then go on without one."""
        if self._a < 0:
            self._a, self._b = self._open("gate-a"), self._open("gate-b")
            _gates.add(self)
        try:
            if not _lock(self._a):
                self._queue(within, holds_a=False)
            elif not _lock(self._b):
                self._queue(within, holds_a=True)
            else:
                fcntl.flock(self._a, fcntl.LOCK_UN)
                self._inside = True
        except OSError:  # a file system without locks has no turns either
            self._distrusted_until = time.monotonic() + _DISTRUST

    def _queue(self, within: float, *, holds_a: bool) -> None:
        start = time.monotonic()
        patience = 0.0 if start < self._distrusted_until else min(self._patience, within)
        deadline = start + patience
        while not holds_a:
            if time.monotonic() >= deadline:
                self._distrusted_until = time.monotonic() + _DISTRUST
                return
            time.sleep(_QUEUE_POLL * (0.5 + random.random()))
            holds_a = _lock(self._a)
        try:
            while not _lock(self._b):
                if time.monotonic() >= deadline:
                    self._distrusted_until = time.monotonic() + _DISTRUST
                    return
                time.sleep(_NEXT_POLL)
            self._inside = True
        finally:
            fcntl.flock(self._a, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let the next one in. Does nothing for who is not inside."""
        if self._inside:
            self._inside = False
            fcntl.flock(self._b, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files, which releases what is held. May be called twice."""
        self._inside = False
        for descriptor in (self._a, self._b):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._a = self._b = -1


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def _close_inherited() -> None:
    for gate in list(_gates):
        gate.close()


os.register_at_fork(after_in_child=_close_inherited)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
