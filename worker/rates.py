"""How often a task may start: on one worker, or on all of them together.

A message that comes too early goes back to the broker for a while, so that it takes no place of one
that may run. Those that go back get one moment each: were all told the same, all would come back at
once, and all but one go away again.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from queue_core import Clock, ConfigError, KeyValue, SystemClock

MAX_AWAY: Final = 60.0
"""Seconds for which a message goes away at most: the limit may be lifted meanwhile."""
TRIES: Final = 5
"""How often a worker tries to be the one that takes a shared token."""

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smhd]))?\s*(cluster)?\s*")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def per_second(rate: object) -> float | None:
    """Return the runs per second that ``"10/s"``, ``"100/m"``, ``"2/h"`` or a number mean.

    None is no limit, and so are ``0`` and ``""``. ``"10/s cluster"`` is a limit for all workers
    together; see `is_shared`.

    Raises:
        ConfigError: it is none of these.
    """
    if rate is None or rate == "":
        return None
    found = None if isinstance(rate, bool) else _RATE.fullmatch(str(rate))
    if found is None:
        raise ConfigError(f"{rate!r} is no rate; write 10/s, 100/m or 2/h, or 0 for no limit")
    return float(found[1]) / _SECONDS[found[2] or "s"] or None


def is_shared(rate: object) -> bool:
    """Whether the limit is one for all workers together: ``"10/s cluster"``."""
    return isinstance(rate, str) and rate.rstrip().endswith("cluster")


class Bucket(Protocol):
    """What says when a task may start. Used by one thread."""

    def take(self) -> float:
        """Return 0.0 to start now, else the seconds to wait before asking again."""


class _Turns:
    """Gives each message that goes away another moment to come back."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._last = 0.0

    def next(self, first: float, now: float) -> float:
        """Return how long to stay away; nobody may start before ``first``."""
        self._last = max(first, self._last + 1.0 / self._rate)
        if self._last > now + MAX_AWAY:
            self._last = first
        return min(MAX_AWAY, self._last - now)


class OwnBucket:
    """For one worker: ``rate`` tokens come per second, and each start uses one."""

    def __init__(self, rate: float, clock: Clock | None = None) -> None:
        """It is full: with the starts of one second, and at least one."""
        self._rate = rate
        self._clock = clock or SystemClock()
        self._size = self._tokens = max(1.0, rate)
        self._at = self._clock.monotonic()
        self._turns = _Turns(rate)

    def take(self) -> float:
        """See `Bucket.take`."""
        now = self._clock.monotonic()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return self._turns.next(now + (1.0 - self._tokens) / self._rate, now)


def _moment(value: bytes, now: float) -> float:
    """Read a moment that is not far ahead; everything else is long ago."""
    try:
        found = float(value)
    except ValueError:
        return 0.0
    return found if found < now + MAX_AWAY else 0.0


class SharedBucket:
    """For all workers on one broker, whose clocks should agree.

    The broker's key-value store keeps one number: the moment from which on the tokens that came
    are not used yet. Asking costs two round trips. What is no such moment - damaged, or farther
    ahead than a message goes away - is written anew.
    """

    def __init__(self, rate: float, store: KeyValue, task: str, clock: Clock | None = None) -> None:
        """Ask nothing yet."""
        self._rate = rate
        self._store = store
        self._key = f"qc.rate.{task}"[:400]
        self._clock = clock or SystemClock()
        self._turns = _Turns(rate)

    def take(self) -> float:
        """See `Bucket.take`. Raises TransportError."""
        size = max(1.0, self._rate)
        for _ in range(TRIES):
            now = self._clock.time()
            known = self._store.key_get(self._key)
            full = now - size / self._rate
            used = full if known is None else max(full, _moment(known.value, now))
            if (first := used + 1.0 / self._rate) > now:
                return self._turns.next(first, now)
            value, version = repr(first).encode(), 0 if known is None else known.version
            ttl = size / self._rate + 60.0
            if self._store.key_set(self._key, value, ttl=ttl, version=version) is not None:
                return 0.0
        return self._turns.next(now + 1.0 / self._rate, now)  # many want to start just now
