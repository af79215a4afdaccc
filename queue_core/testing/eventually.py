"""Waiting for what becomes true: on a condition, with a deadline, never for a fixed time.

Real brokers and other processes need a moment. A test says what must become true and by when; it
goes on as soon as it is, and fails at the deadline with what it saw last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from queue_core.policy import Clock, Deadline, SystemClock

T = TypeVar("T")


def eventually(
    condition: Callable[[], T],
    deadline: float = 30.0,
    *,
    interval: float = 0.01,
    what: str = "",
    clock: Clock | None = None,
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    An `AssertionError` raised by the condition counts as "not yet", so that a condition may assert;
    any other exception passes through at once. The condition runs at least once. Blocks the calling
    thread.

    Args:
        condition: what must become true; called from this thread.
        deadline: seconds from now by which it must; the default bears a machine that is busy.
        interval: seconds between two calls; doubles up to a tenth of a second.
        what: said in the failure.
        clock: for tests of this function.

    Raises:
        AssertionError: it was not true by the deadline; the message has the last value or the last
        assertion.
    """
    clock = clock or SystemClock()
    until = Deadline.after(deadline, clock)
    while True:
        failed: AssertionError | None = None
        seen = ""
        try:
            value = condition()
        except AssertionError as error:
            failed, seen = error, str(error)
        else:
            if value:
                return value
            seen = f"the last value was {value!r}"
        if until.expired:
            raise AssertionError(
                f"not within {deadline:g} s: {what or 'the condition'}; {seen}"
            ) from failed
        clock.sleep(until.bound(interval))
        interval = min(interval * 2, 0.1)
