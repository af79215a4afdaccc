"""How often a task may start. Pure: times are given, in seconds of a clock that never goes back.

A message that comes too early goes back to the broker for a while, so that it takes no place of one
that may run. Those that go back get one moment each: were all told the same, all would come back at
once, and all but one go away again.
"""

from __future__ import annotations

import re
from typing import Final

from queue_core import ConfigError

MAX_AWAY: Final = 60.0
"""Seconds for which a message goes away at most: the limit may be lifted meanwhile."""

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smhd]))?\s*")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def per_second(rate: object) -> float | None:
    """Return the runs per second that ``"10/s"``, ``"100/m"``, ``"2/h"`` or a number mean.

    None is no limit, and so are ``0`` and ``""``.

    Raises:
        ConfigError: it is none of these.
    """
    if rate is None or rate == "":
        return None
    found = None if isinstance(rate, bool) else _RATE.fullmatch(str(rate))
    if found is None:
        raise ConfigError(f"{rate!r} is no rate; write 10/s, 100/m or 2/h, or 0 for no limit")
    return float(found[1]) / _SECONDS[found[2] or "s"] or None


class Bucket:
    """A bucket of tokens: ``rate`` come per second, one is used by each run. Used by one thread."""

    def __init__(self, rate: float) -> None:
        """It is full: with the runs of one second, and at least one."""
        self.rate = rate
        self._size = max(1.0, rate)
        self._tokens = self._size
        self._at: float | None = None
        self._next_return = 0.0

    def take(self, now: float) -> float:
        """Take a token: return 0.0 to run now, else the seconds to wait before asking again."""
        if self._at is not None:
            self._tokens = min(self._size, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        first = now + (1.0 - self._tokens) / self.rate
        self._next_return = max(first, self._next_return + 1.0 / self.rate)
        if self._next_return > now + MAX_AWAY:
            self._next_return = first
        return min(MAX_AWAY, self._next_return - now)
