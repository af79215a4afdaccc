"""Handlers on threads: one that hangs stands in nobody's way."""

import threading

from queue_core.mailbox.runner import MAX_THREADS, MAX_WAITING, Runner
from queue_core.testing.eventually import eventually


def test_a_hanging_command_does_not_keep_others_waiting():
    runner, hang, done = Runner("t"), threading.Event(), threading.Event()
    assert runner.submit("slow", 1, lambda: hang.wait(30) and None)
    assert runner.submit("ping", 1, done.set)
    assert done.wait(20)
    hang.set()
    assert runner.stop(20)


def test_no_more_of_one_command_run_at_once_than_its_limit():
    runner, lock, go = Runner("t"), threading.Lock(), threading.Event()
    now, most, ended = 0, 0, 0

    def job():
        nonlocal now, most, ended
        with lock:
            now += 1
            most = max(most, now)
        go.wait(20)
        with lock:
            now -= 1
            ended += 1

    for _ in range(10):
        assert runner.submit("a", 3, job)
    eventually(lambda: now == 3)
    go.set()
    eventually(lambda: ended == 10)
    assert most == 3
    assert runner.stop(20)


def test_those_beyond_the_limit_run_in_the_order_in_which_they_came():
    runner, seen = Runner("t"), []
    for number in range(50):
        runner.submit("a", 1, lambda number=number: seen.append(number))
    eventually(lambda: len(seen) == 50)
    assert seen == list(range(50))
    runner.stop(5)


def test_too_many_that_wait_are_turned_away():
    runner, hang = Runner("t"), threading.Event()
    taken = 0
    while runner.submit("a", 1, lambda: hang.wait(30) and None):
        taken += 1
        assert taken < MAX_WAITING + MAX_THREADS
    assert taken >= MAX_WAITING
    hang.set()
    runner.stop(5)


def test_a_job_that_raises_does_not_end_its_command(caplog):
    runner, done = Runner("t"), threading.Event()
    assert runner.submit("a", 1, lambda: 1 // 0)
    assert runner.submit("a", 1, done.set)
    assert done.wait(20)
    assert "a ended with an error of its own" in caplog.text
    assert runner.stop(20)


def test_after_stopping_nothing_is_taken():
    runner = Runner("t")
    assert runner.stop(1)
    assert runner.stop(1)
    assert not runner.submit("a", 1, lambda: None)


def test_stopping_waits_no_longer_than_asked():
    runner, hang, runs = Runner("t"), threading.Event(), threading.Event()
    runner.submit("a", 1, lambda: runs.set() or hang.wait(30) and None)
    assert runs.wait(20)
    assert not runner.stop(0.05)
    hang.set()
    assert runner.stop(20)


def test_a_handler_may_stop_the_runner_that_it_runs_on():
    runner, done = Runner("t"), threading.Event()

    def job():
        assert runner.is_own_thread()
        assert runner.stop(20)
        done.set()

    runner.submit("a", 1, job)
    assert done.wait(20)


def test_one_command_with_too_many_waiting_keeps_no_other_from_running():
    runner, hang, done = Runner("t"), threading.Event(), threading.Event()
    while runner.submit("hangs", 1, lambda: hang.wait(60) and None):
        pass
    assert runner.submit("other", 1, done.set)
    assert done.wait(20)
    assert not runner.submit("hangs", 1, lambda: None)
    hang.set()
    runner.stop(20)
