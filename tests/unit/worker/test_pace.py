"""How many jobs may wait behind a running one."""

import math

from queue_core.worker.pools.pace import (
    MAX_AHEAD,
    MAX_BEHIND,
    Pace,
)


def test_a_task_that_was_never_measured_is_expected_to_take_for_ever():
    assert Pace().expect("new") == math.inf


def test_one_slow_run_stops_the_queueing_and_many_fast_ones_allow_it_again():
    pace = Pace()
    pace.observe("mixed", 0.0001)
    pace.observe("mixed", 0.5)
    assert pace.expect("mixed") > MAX_BEHIND
    for _ in range(50):
        pace.observe("mixed", 0.0001)
    assert pace.expect("mixed") < MAX_BEHIND


def test_as_many_are_held_as_are_run_in_a_tenth_of_a_second():
    pace = Pace()
    assert pace.ahead == 1, "nothing is known yet"
    for _ in range(1000):
        pace.observe("a", 0.0001)
    assert pace.ahead == MAX_AHEAD
    for _ in range(1000):
        pace.observe("b", 0.01)
    assert 9 <= pace.ahead <= 11
    pace.observe("c", 60.0)
    assert pace.ahead == 1


def test_after_long_tasks_nothing_waits_until_many_were_short():
    pace = Pace()
    for _ in range(1000):
        pace.observe("a", 0.0001)
    pace.slow_down()
    assert pace.ahead == 1
    for _ in range(100):
        pace.observe("a", 0.0001)
    assert pace.ahead == 1
    for _ in range(2000):
        pace.observe("a", 0.0001)
    assert pace.ahead == MAX_AHEAD


def test_what_is_typical_is_unknown_before_the_first_run():
    pace = Pace()
    assert pace.typical == math.inf
    pace.observe("a", 0.5)
    assert pace.typical == 0.5


def test_a_rare_slow_task_does_not_empty_the_hands():
    pace, held = Pace(), []
    for number in range(2000):
        pace.observe("a" if number % 97 else "slow", 0.0001 if number % 97 else 0.05)
        if number > 200:
            held.append(pace.ahead)
    assert max(held) <= 2 * min(held), "the consumer need not subscribe anew"
    assert min(held) > 50
