"""How many jobs may wait behind a running one."""

import math

from queue_core.worker.pools.pace import MAX_BEHIND, MAX_WINDOW, Pace


def test_an_idle_child_always_has_room():
    assert Pace().room([]) == 0.0


def test_nothing_waits_behind_a_task_that_was_never_measured():
    assert Pace().room(["new"]) == math.inf


def test_nothing_waits_behind_a_slow_task():
    pace = Pace()
    pace.observe("slow", 1.0)
    assert pace.room(["slow"]) == math.inf


def test_short_tasks_wait_behind_each_other_up_to_a_bound_of_work():
    pace = Pace()
    pace.observe("short", 0.001)
    assert math.isclose(pace.room(["short"] * 4), 0.004)
    assert pace.room(["short"] * 6) == math.inf


def test_even_no_ops_wait_only_up_to_the_window():
    pace = Pace()
    pace.observe("no-op", 0.0)
    assert pace.room(["no-op"] * (MAX_WINDOW - 1)) == 0.0
    assert pace.room(["no-op"] * MAX_WINDOW) == math.inf


def test_one_slow_run_stops_the_queueing_and_many_fast_ones_allow_it_again():
    pace = Pace()
    pace.observe("mixed", 0.0001)
    pace.observe("mixed", 0.5)
    assert pace.expect("mixed") > MAX_BEHIND
    for _ in range(50):
        pace.observe("mixed", 0.0001)
    assert pace.expect("mixed") < MAX_BEHIND
