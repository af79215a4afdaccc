"""Backoff, deadlines and the retry loop on a fake clock."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.errors import AccessRefused, ConfigError, ConnectionLost
from queue_core.policy import Backoff, Deadline, SystemClock, is_retryable, retry


class FakeClock:
    """Time that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Flaky:
    """Fails ``failures`` times with ``error``, then returns "done"."""

    def __init__(self, failures: float, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionLost("gone")
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


def never(clock: FakeClock) -> Deadline:
    return Deadline.after(None, clock)


@given(
    attempt=st.integers(min_value=-5, max_value=10**6),
    base=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    factor=st.floats(1, 1e3),
    seed=st.integers(),
)
def test_every_delay_lies_between_zero_and_the_cap(
    attempt: int, base: float, cap: float, factor: float, seed: int
) -> None:
    backoff = Backoff(base=base, cap=cap, factor=factor)
    assert (
        0 <= backoff.delay(attempt, random.Random(seed).random) <= backoff.ceiling(attempt) <= cap
    )


def test_the_ceiling_doubles_up_to_the_cap_and_does_not_overflow() -> None:
    backoff = Backoff()
    assert [backoff.ceiling(n) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.ceiling(10**6) == 30
    assert Backoff(base=0).ceiling(10**6) == 0


def test_jitter_is_full_so_that_clients_spread() -> None:
    delays = [Backoff(base=8, cap=8).delay(3, random.Random(n).random) for n in range(2000)]
    assert min(delays) < 0.1
    assert max(delays) > 7.9
    assert 3.7 < sum(delays) / len(delays) < 4.3


def test_the_same_seed_gives_the_same_delays() -> None:
    first = list(itertools.islice(Backoff().delays(random.Random(7).random), 10))
    assert first == list(itertools.islice(Backoff().delays(random.Random(7).random), 10))
    draw = random.Random(7).random
    assert first == [Backoff().delay(n, draw) for n in range(10)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": -1},
        {"cap": math.inf},
        {"factor": 0.5},
        {"base": math.nan},
        {"cap": "30"},
        {"base": True},
    ],
)
def test_a_backoff_refuses_values_without_sense_and_names_the_field(
    wrong: dict[str, float],
) -> None:
    with pytest.raises(ConfigError, match=rf"Backoff\.{next(iter(wrong))}"):
        Backoff(**wrong)


def test_a_deadline_counts_down_and_never_below_zero() -> None:
    clock = FakeClock()
    deadline = Deadline.after(10, clock)
    assert (deadline.remaining(), deadline.expired, deadline.bound(3)) == (10, False, 3)
    clock.sleep(8)
    assert (deadline.remaining(), deadline.expired, deadline.bound(3)) == (2, False, 2)
    clock.sleep(8)
    assert (deadline.remaining(), deadline.expired, deadline.bound(3)) == (0, True, 0)


def test_no_timeout_is_no_deadline() -> None:
    deadline = Deadline.after(None, FakeClock())
    assert deadline.remaining() == math.inf
    assert not deadline.expired
    assert deadline.bound(5) == 5


def test_zero_seconds_are_over_at_once_and_nan_is_refused() -> None:
    assert Deadline.after(0, FakeClock()).expired
    with pytest.raises(ConfigError, match="nan"):
        Deadline.after(math.nan, FakeClock())


def test_retry_repeats_until_success_with_growing_jittered_delays() -> None:
    clock, call = FakeClock(), Flaky(5)
    seen: list[tuple[Exception, int, float]] = []
    result = retry(
        call,
        backoff=Backoff(),
        deadline=never(clock),
        clock=clock,
        on_retry=lambda error, attempt, delay: seen.append((error, attempt, delay)),
        draw=random.Random(1).random,
    )
    assert result == "done"
    assert clock.slept == list(itertools.islice(Backoff().delays(random.Random(1).random), 5))
    assert seen == [(call.error, n + 1, delay) for n, delay in enumerate(clock.slept)]


@pytest.mark.parametrize("error", [AccessRefused("no"), ValueError("bug")])
def test_retry_lets_other_errors_through_at_once(error: Exception) -> None:
    clock, call = FakeClock(), Flaky(1, error)
    with pytest.raises(type(error)):
        retry(call, backoff=Backoff(), deadline=never(clock), clock=clock)
    assert (call.calls, clock.slept) == (1, [])


@given(seconds=st.floats(0, 60), seed=st.integers())
def test_retry_uses_the_time_it_has_and_gives_up_before_the_deadline(
    seconds: float, seed: int
) -> None:
    clock, call = FakeClock(), Flaky(math.inf)
    deadline = Deadline.after(seconds, clock)
    with pytest.raises(ConnectionLost) as caught:
        retry(
            call, backoff=Backoff(), deadline=deadline, clock=clock, draw=random.Random(seed).random
        )
    assert caught.value is call.error
    assert clock.now <= deadline.at
    assert deadline.remaining() <= 0.1 + 1e-9
    assert call.calls < 1000


def test_a_first_attempt_of_the_callers_own_is_followed_by_a_delay_or_raised() -> None:
    clock, call, failed = FakeClock(), Flaky(1), ConnectionLost("first")
    draw = random.Random(1).random
    result = retry(
        call, backoff=Backoff(), deadline=never(clock), clock=clock, draw=draw, failed=failed
    )
    assert (result, call.calls) == ("done", 2)
    assert clock.slept == list(itertools.islice(Backoff().delays(random.Random(1).random), 2))
    call, refused = Flaky(0), AccessRefused("no")
    with pytest.raises(AccessRefused) as caught:
        retry(call, backoff=Backoff(), deadline=never(clock), clock=clock, failed=refused)
    assert (caught.value, call.calls) == (refused, 0)


def test_retry_runs_the_call_once_even_after_the_deadline() -> None:
    clock, call = FakeClock(), Flaky(0)
    assert retry(call, backoff=Backoff(), deadline=Deadline.after(-1, clock), clock=clock) == "done"


def test_an_interruptible_wait_replaces_sleep_and_ends_the_loop_when_it_fires() -> None:
    clock, call = FakeClock(), Flaky(math.inf)
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 3

    with pytest.raises(ConnectionLost):
        retry(call, backoff=Backoff(), deadline=never(clock), clock=clock, wait=wait)
    assert (call.calls, len(waits), clock.slept) == (3, 3, [])


def test_the_caller_may_widen_what_is_worth_a_retry() -> None:
    clock, call = FakeClock(), Flaky(2, OSError("down"))
    result = retry(
        call,
        backoff=Backoff(),
        deadline=never(clock),
        clock=clock,
        retryable=lambda error: isinstance(error, OSError),
    )
    assert result == "done"
    assert not is_retryable(call.error)


def test_the_system_clock_moves_forward_and_ignores_a_negative_sleep() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    clock.sleep(-1)
    assert clock.monotonic() >= before
    assert clock.time() > 1e9
