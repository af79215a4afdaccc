"""Waiting for a condition: on a fake clock, no test here takes time."""

from __future__ import annotations

import pytest

from queue_core.testing import eventually
from queue_core.testing.clocks import FakeClock


def test_it_returns_the_first_true_value():
    values = iter([0, "", None, "found", "later"])
    clock = FakeClock()
    assert eventually(lambda: next(values), 5.0, clock=clock) == "found"


def test_it_fails_at_the_deadline_with_the_last_value():
    clock = FakeClock()
    begun = clock.monotonic()
    with pytest.raises(AssertionError, match=r"not within 2 s: the lamp is on; .*False"):
        eventually(lambda: False, 2.0, what="the lamp is on", clock=clock)
    assert clock.monotonic() - begun == pytest.approx(2.0)


def test_a_failed_assertion_means_not_yet():
    def condition() -> bool:
        assert clock.monotonic() - begun >= 1.0, "too early"
        return True

    clock = FakeClock()
    begun = clock.monotonic()
    assert eventually(condition, 5.0, clock=clock)
    with pytest.raises(AssertionError, match="too early"):
        begun = clock.monotonic()
        eventually(condition, 0.5, clock=clock)


def test_any_other_error_passes_through_at_once():
    with pytest.raises(KeyError):
        eventually(lambda: {}["x"], 5.0, clock=FakeClock())


def test_without_time_it_looks_once():
    calls: list[int] = []
    with pytest.raises(AssertionError):
        eventually(lambda: calls.append(1), 0.0, clock=FakeClock())
    assert len(calls) == 1
