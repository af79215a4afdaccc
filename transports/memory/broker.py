"""A memory broker: a `State` that all its handles share, with a lock, and claims that wait for it.

The lock makes each method of a handle one atomic step. Nothing under it blocks, and nobody is
called back.

A claim that finds nothing waits on a signal of its own and is woken by what makes a message of its
queues ready, one waiter for each message. With a clock other than the machine's it looks at that
clock every few milliseconds, and ends when ``wait`` seconds have passed on that clock or on the
machine's, whichever comes first: a test whose clock stands still does not hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from queue_core.policy import Clock, SystemClock
from queue_core.state import Message, State

_FAKE_CLOCK_SLICE = 0.005


class Interrupt:
    """What wakes the claims of one handle: ``signal`` for a look, ``requested`` for good."""

    __slots__ = ("requested", "signal")

    def __init__(self, lock: threading.Lock) -> None:
        self.signal = threading.Condition(lock)
        self.requested = False


class Waiter:
    """One claim that waits for messages of some queues."""

    __slots__ = ("queues", "signal")

    def __init__(self, signal: threading.Condition, queues: Sequence[str]) -> None:
        self.signal = signal
        self.queues = queues


class MemoryBroker(State):
    """The state of one memory broker.

    ``with broker`` is one step; the caller of every other method is in it.

    Args:
        clock: decides when delays and ttls are over; the machine's unless a test says otherwise.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock: Clock = clock or SystemClock()
        self.lock = threading.Lock()
        self.waiters: dict[str, dict[Waiter, None]] = {}

    def __enter__(self) -> Self:
        """Begin a step."""
        self.lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        """End the step."""
        self.lock.release()

    def wait_and_take(
        self,
        session: str,
        life: int,
        request: str,
        wants: Mapping[str, int],
        wait: float,
        interrupt: Interrupt,
    ) -> Sequence[Message]:
        """Claim what comes until the time is over, an interrupt, or the end of the life."""
        clock = self.clock
        until, until_really = clock.monotonic() + wait, time.monotonic() + wait
        longest = wait if isinstance(clock, SystemClock) else _FAKE_CLOCK_SLICE
        waiter = Waiter(interrupt.signal, [name for name, room in wants.items() if room > 0])
        while session in self.sessions and self.sessions[session].number == life:
            now = clock.monotonic()
            if taken := self.take(session, request, wants, now):
                return taken
            remaining = min(until - now, until_really - time.monotonic())
            if remaining <= 0 or interrupt.requested:
                return ()
            for name in waiter.queues:
                self.waiters.setdefault(name, {})[waiter] = None
            try:
                waiter.signal.wait(min(remaining, longest, self.until_due(waiter.queues, now)))
            finally:
                self.dismiss(waiter)
        for name in waiter.queues:
            self.wake(name)  # for a message that this claim may have been woken for
        return ()

    def until_due(self, names: Iterable[str], now: float) -> float:
        """Return the seconds until the next delayed message of these queues is due."""
        dues = [queue.next_due() for name in names if (queue := self.queues.get(name))]
        return max(0.0, min((due for due in dues if due is not None), default=now + 1e6) - now)

    def wake(self, name: str, *, everybody: bool = False) -> None:
        """Wake the claim that has waited longest for a message of this queue, or all of them."""
        while waiters := self.waiters.get(name):
            waiter = next(iter(waiters))
            self.dismiss(waiter)
            waiter.signal.notify()
            if not everybody:
                break

    def dismiss(self, waiter: Waiter) -> None:
        """Wake this waiter no more."""
        for name in waiter.queues:
            if waiters := self.waiters.get(name):
                waiters.pop(waiter, None)
                if not waiters:
                    del self.waiters[name]

    def end_session(self, name: str, now: float, *, crashed: bool) -> None:
        """See `State.end_session`. Its claims that wait notice: everybody looks again."""
        super().end_session(name, now, crashed=crashed)
        for queue in list(self.waiters):
            self.wake(queue, everybody=True)
