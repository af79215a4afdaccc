"""`FakeClock`: time that passes only when a test says so."""

from __future__ import annotations

import threading

import pytest

from queue_core.policy import Clock, Deadline
from queue_core.testing.clocks import FakeClock


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(monotonic=10.0, time=100.0)
    assert (clock.monotonic(), clock.time()) == (10.0, 100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (12.5, 102.5)


def test_sleeping_lets_time_pass_at_once_and_is_noted() -> None:
    clock = FakeClock(monotonic=0.0)
    clock.sleep(3600.0)
    clock.sleep(-1.0)
    assert clock.monotonic() == 3600.0
    assert clock.slept == [3600.0, -1.0]


def test_a_step_moves_only_the_wall_clock() -> None:
    clock = FakeClock(monotonic=10.0, time=100.0)
    clock.step(-50.0)
    assert (clock.monotonic(), clock.time()) == (10.0, 50.0)


def test_the_monotonic_clock_cannot_be_set_back() -> None:
    with pytest.raises(ValueError, match="step"):
        FakeClock().advance(-1.0)


def test_it_is_a_clock_for_deadlines() -> None:
    clock = FakeClock()
    typed: Clock = clock
    deadline = Deadline.after(5.0, typed)
    clock.advance(4.0)
    assert deadline.remaining() == 1.0
    clock.advance(1.0)
    assert deadline.expired


def test_many_threads_may_advance_it() -> None:
    clock = FakeClock(monotonic=0.0)

    def advance() -> None:
        for _ in range(1000):
            clock.advance(1.0)

    threads = [threading.Thread(target=advance) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == 8000.0
