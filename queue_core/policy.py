"""When to try again, and until when: backoff, deadlines and the one retry loop of the package.

Everything here is pure. Time comes from a ``Clock`` that the caller passes in and chance from a
function, so that a test drives a thousand retries in no time. Durations are float seconds.

The rules: a delay is drawn uniformly between zero and a ceiling that doubles with each attempt
("full jitter"), so that a thousand clients that lost one broker do not come back in step. A wait
never outlives its deadline. ``retry`` is the only place that repeats a call; drivers below it
never do, and nothing above it adds a second loop, since two nested loops multiply their waits.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import msgspec

from queue_core.errors import ConfigError, TransportError

T = TypeVar("T")

_MAX_SLEEP = 1e6


@runtime_checkable
class Clock(Protocol):
    """What the package needs to know about time. Safe to use from any thread."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never goes back. For every duration."""
        ...

    def time(self) -> float:
        """Return seconds since the Unix epoch; may jump. Only for what people read."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for ``seconds``; zero or less returns at once."""
        ...


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for ``seconds``; endless is cut to eleven days."""
        if seconds > 0:
            time.sleep(min(seconds, _MAX_SLEEP))


def chance() -> float:
    """Return a random number from 0 to below 1. Forked processes do not draw the same ones."""
    return int.from_bytes(os.urandom(6)) / 2**48


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before the next attempt.

    Attributes:
        base: the ceiling of the first delay, in seconds.
        cap: the ceiling of every delay, in seconds.
        factor: what the ceiling is multiplied with after each attempt, at least 1.

    Raises:
        ConfigError: a value is not a finite number, negative, or ``factor`` is below 1.
    """

    base: float = 0.5
    cap: float = 30.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        """Refuse values that would make a delay negative, endless or shrinking."""
        for name, least in (("base", 0.0), ("cap", 0.0), ("factor", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"Backoff.{name} must be a number, not {value!r}")
            if not math.isfinite(value) or value < least:
                raise ConfigError(
                    f"Backoff.{name} must be finite and at least {least:g}, not {value!r}"
                )

    def ceiling(self, attempt: int) -> float:
        """Return the longest delay in seconds after failure number ``attempt``, counted from 0.

        Any size of ``attempt`` is fine: the result is at most ``cap``.
        """
        if attempt <= 0:
            return min(self.cap, self.base)
        try:
            return float(min(self.cap, self.base * float(self.factor) ** attempt))
        except OverflowError:
            return float(self.cap) if self.base else 0.0

    def delay(self, attempt: int, draw: Callable[[], float] = chance) -> float:
        """Draw a delay in seconds, uniform between zero and ``ceiling(attempt)``.

        ``draw`` returns a number from 0 to below 1; a seeded one makes the delay repeatable.
        """
        return draw() * self.ceiling(attempt)

    def delays(self, draw: Callable[[], float] = chance) -> Iterator[float]:
        """Yield the delays of attempt 0, 1, 2 ... for ever."""
        attempt = 0
        while True:
            yield self.delay(attempt, draw)
            attempt += 1


class Deadline(msgspec.Struct, frozen=True):
    """A point on the monotonic clock by which something must be done.

    Make it once at the entry of a call with ``Deadline.after`` and hand it down, so that the
    steps of the call share one budget instead of each having its own.

    Attributes:
        at: the point, in seconds of ``clock.monotonic()``; ``math.inf`` means never.
        clock: where the present comes from.
    """

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float | None, clock: Clock) -> Deadline:
        """Return the deadline ``seconds`` from now.

        ``None`` means no deadline; zero or less has expired at once.

        Raises:
            ConfigError: ``seconds`` is not a number.
        """
        if seconds is None:
            return cls(math.inf, clock)
        try:
            at = clock.monotonic() + seconds
            known = at >= -math.inf  # not for NaN
        except (TypeError, OverflowError):
            known = False
        if not known:
            raise ConfigError(f"a timeout is a number of seconds or None, not {seconds!r:.60}")
        return cls(at, clock)

    def remaining(self) -> float:
        """Return the seconds left: never negative, ``math.inf`` without a deadline."""
        left = self.at - self.clock.monotonic()
        return left if left > 0.0 else 0.0

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.clock.monotonic() >= self.at

    def bound(self, seconds: float) -> float:
        """Return ``seconds`` or what remains, whichever is less; for waits inside a longer call."""
        return min(seconds, self.remaining())


def is_retryable(error: Exception) -> bool:
    """Return whether waiting may help: a ``TransportError`` that says so of itself."""
    return isinstance(error, TransportError) and error.retryable


def retry(
    call: Callable[[], T],
    *,
    backoff: Backoff,
    deadline: Deadline,
    clock: Clock,
    wait: Callable[[float], object] | None = None,
    retryable: Callable[[Exception], bool] = is_retryable,
    on_retry: Callable[[Exception, int, float], None] | None = None,
    draw: Callable[[], float] = chance,
    failed: Exception | None = None,
) -> T:
    """Call ``call()`` until it returns, and return its value.

    After a failure for which ``retryable(error)`` is true it waits a jittered delay and tries
    again; any other error passes through untouched. ``call`` always runs at least once, even when
    the deadline has passed. Blocks the calling thread until success or until ``deadline``; a
    ``call`` that overstays is not interrupted.

    No wait reaches the deadline. A delay that would is cut to half of what is left, so that a
    long draw does not give away time that the caller granted; once that half is below a tenth of
    ``backoff.base`` the last error is raised.

    Args:
        call: what to do; it gets no arguments and must be safe to repeat.
        backoff: the delays.
        deadline: until when to go on.
        clock: sleeps when ``wait`` is not given.
        wait: an interruptible wait that takes seconds, such as ``Event.wait``. When it returns a
            true value (the event was set: somebody wants to stop) the last error is raised at
            once.
        retryable: which errors are worth a wait.
        on_retry: called before each wait with the error, the number of failures so far (from 1),
            and the delay.
        draw: as for ``Backoff.delay``.
        failed: what a first attempt, made by the caller, ended with; ``call`` is the second one.

    Raises:
        Exception: the last error of ``call``.
    """
    attempt = 0
    while True:
        try:
            if failed is not None and not attempt:
                raise failed
            return call()
        except Exception as error:
            if not retryable(error):
                raise
            delay = backoff.delay(attempt, draw)
            attempt += 1
            remaining = deadline.remaining()
            if delay >= remaining:
                delay = remaining / 2
                if delay <= backoff.base / 10:
                    raise
            if on_retry is not None:
                on_retry(error, attempt, delay)
            if wait is None:
                clock.sleep(delay)
            elif wait(delay):
                raise
