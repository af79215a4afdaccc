"""How fast commands are taken, so that a flood of them leaves the program beside the node alone."""

from __future__ import annotations

from typing import Final

from queue_core import Clock

RATE: Final = 200.0
"""Commands per second that a node takes in the long run."""
BURST: Final = 400.0
"""Commands that it takes at once after a pause."""


class Pace:
    """A bucket of tokens: `RATE` a second, at most `BURST` of them. One thread."""

    def __init__(self, clock: Clock) -> None:
        """Begin with a full bucket."""
        self._clock = clock
        self._tokens = BURST
        self._at = clock.monotonic()

    def pause(self) -> float:
        """Use a token; return the seconds to wait for it."""
        now = self._clock.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._at) * RATE) - 1
        self._at = now
        return max(0.0, -self._tokens / RATE)
