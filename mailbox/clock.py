"""Logical time: a counter per node that never runs behind a message that the node has seen.

Lamport's rules (Time, Clocks, and the Ordering of Events in a Distributed System, 1978): a node
ticks before it sends and writes the tick on the message; on receipt it takes the larger of its own
time and the message's, and ticks. So an answer is always later than its question, whatever the
clocks on the walls say, and ``(time, node)`` orders everything that happened in one way for all.

Stamps come from strangers. One that is no whole number, negative, or further ahead than any honest
node can be is ignored and counted; otherwise a single forged message would push every node to the
end of the numbers.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from queue_core import check_count

MAX_TIME: Final = 2**62
MAX_JUMP: Final = 2**40
"""Ticks that a stamp may be ahead of us: a million a second for twelve days."""


class Stamp(NamedTuple):
    """When and where: compares by logical time first, then by the name of the node."""

    time: int
    node: str


class LamportClock:
    """One node's logical time. Thread-safe; nothing blocks."""

    def __init__(self, value: int = 0) -> None:
        """Begin at ``value``. Raises ConfigError unless it is a whole number from 0 to MAX_TIME."""
        check_count("the value of a clock", value, 0, MAX_TIME)
        self._lock = threading.Lock()
        self._value = value
        self._ignored = 0

    @property
    def value(self) -> int:
        """The present, without a tick."""
        return self._value

    @property
    def ignored(self) -> int:
        """How many stamps could not be honest and were ignored."""
        return self._ignored

    def forward(self) -> int:
        """Tick, and return the new time: for what is about to be sent."""
        with self._lock:
            self._value += 1
            return self._value

    def adjust(self, other: object) -> int:
        """Take note of a received stamp, tick, and return the new time, which is later than it.

        A stamp that is not believed only ticks.
        """
        with self._lock:
            if isinstance(other, int) and not isinstance(other, bool) and self._believes(other):
                self._value = max(self._value, other) + 1
            else:
                self._ignored += 1
                self._value += 1
            return self._value

    def _believes(self, other: int) -> bool:
        return 0 <= other < MAX_TIME and other - self._value <= MAX_JUMP

    def __repr__(self) -> str:
        """Show the time."""
        return f"<LamportClock {self._value}>"
