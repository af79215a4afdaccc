"""The process pool: time limits, ending one task, replacing and resizing."""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from queue_core import UsageError
from queue_core.testing.eventually import eventually
from queue_core.worker.outcome import (
    Abandoned,
    Crashed,
    Done,
    Failed,
    Returned,
    Terminated,
    TimedOut,
)
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.processes import ProcessPool
from queue_core.worker.pools.threads import ThreadPool
from tests.unit.worker import pool_jobs
from tests.unit.worker.reports import runs

HERE = str(Path(__file__).parent)


@pytest.fixture
def start(jobs_here, reports, ending):
    """Start a pool; it ends with the test."""

    def started(size=1, **options):
        setup = Setup("pool_jobs:app", list(sys.path), None, "WARNING")
        pool = ending(ProcessPool(size, setup, **options))
        pool.start(reports)
        return pool

    return started


def warm(pool, reports):
    """Teach the pool that add takes no time, so that it sends several of them at once."""
    jobs = [reports.submit(pool, "add", 1, 1) for _ in range(50)]
    reports.wait(len(reports.outcomes.keys() | {job.ticket for job in jobs}))


def test_a_task_can_end_by_itself_at_its_soft_limit(start, reports):
    pool = start()
    job = reports.submit(pool, "patient", soft=0.2)
    assert reports.value(job) == "stopped after 0.2 s"
    pid = reports.submit(pool, "pid")
    assert reports.value(pid) in pool.pids, "the child lives on"


def test_a_task_that_ignores_its_soft_limit_fails_by_it(start, reports):
    pool = start()
    job = reports.submit(pool, "sleep", 30.0, soft=0.2)
    outcome = reports.outcome(job)
    assert isinstance(outcome, Failed) and "SoftTimeLimitExceeded" in outcome.error


def test_a_limit_that_was_not_reached_is_forgotten(start, reports):
    pool = start()
    short = reports.job("sleep", 0.0, soft=1.0, hard=1.5)
    long = reports.job("sleep", 2.0)
    pool.submit(short)
    pool.submit(long)
    assert reports.value(short) == 0.0
    assert reports.value(long) == 2.0


def test_the_limits_of_a_message_go_before_those_of_its_task(start, reports):
    pool = start(2)
    soft = reports.job("patient", soft=20.0, own=(None, 0.2))
    hard = reports.job("sleep", 30.0, hard=20.0, own=(0.4, None))
    pool.submit(soft)
    pool.submit(hard)
    assert reports.value(soft) == "stopped after 0.2 s"
    assert reports.outcome(hard) == TimedOut(0.4)


def test_a_task_that_blocks_signals_and_holds_the_lock_is_killed_at_its_hard_limit(
    start, reports, tmp_path
):
    pool = start(2)
    job = reports.submit(pool, "stubborn", str(tmp_path / "mark"), 20.0, soft=0.2, hard=2.0)
    runs(tmp_path / "mark")
    began = time.monotonic()
    victim = pool.info().running[0].pid
    assert reports.outcome(job) == TimedOut(2.0)
    assert time.monotonic() - began < 10.0
    eventually(lambda: len(pool.pids) == 2 and victim not in pool.pids)
    others = [reports.job("add", number, 1) for number in range(10)]
    for other in others:
        pool.submit(other)
    assert [reports.value(other) for other in others] == list(range(1, 11))


def test_what_waits_behind_a_task_that_hangs_goes_to_another_child(start, reports, tmp_path):
    pool = start(2)
    warm(pool, reports)
    gate = tmp_path / "gate"
    # It is taken for a short one: the name is that of add, and so others are sent behind it.
    hanging = reports.job("wait_for", str(gate))
    hanging.name = "add"
    behind = [reports.job("add", number, 0) for number in range(20)]
    pool.submit(hanging)
    for job in behind:
        pool.submit(job)
    assert [reports.value(job) for job in behind] == list(range(20))
    assert hanging.ticket not in reports.outcomes
    gate.touch()
    assert reports.value(hanging)


def test_a_task_is_terminated_and_may_put_things_in_order(start, reports, tmp_path):
    pool = start(2)
    mark = tmp_path / "mark"
    job, other = reports.job("tidy", str(mark)), reports.job("wait_for", str(tmp_path / "gate"))
    pool.submit(job)
    pool.submit(other)
    runs(mark)
    runs(tmp_path / "gate")
    assert pool.terminate(job.ticket)
    assert reports.outcome(job) == Terminated()
    assert Path(f"{mark}.tidied").exists()
    assert not pool.terminate(job.ticket), "it is over"
    (tmp_path / "gate").touch()
    assert reports.value(other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_task_that_cannot_be_interrupted_is_killed(start, reports, tmp_path, number):
    pool = start()
    job = reports.submit(pool, "stubborn", str(tmp_path / "mark"), 20.0)
    runs(tmp_path / "mark")
    began = time.monotonic()
    assert pool.terminate(job.ticket, number)
    assert reports.outcome(job) == Terminated()
    assert time.monotonic() - began < 10.0
    after = reports.submit(pool, "add", 1, 2)
    assert reports.value(after) == 3


def test_other_signals_are_refused(start):
    with pytest.raises(UsageError, match="SIGTERM, SIGINT, SIGKILL"):
        start().terminate(1, signal.SIGUSR1)


def test_terminating_tasks_that_are_just_ending_hits_no_other(start, reports):
    pool = start(2)
    warm(pool, reports)
    draw = random.Random(7)
    jobs = [reports.job("add", number, 0) for number in range(400)]
    chosen = set()
    for job in jobs:
        pool.submit(job)
        if draw.random() < 0.1:
            target = draw.choice(jobs[max(0, job.ticket - 70) : job.ticket - 50])
            number = draw.choice([signal.SIGTERM, signal.SIGKILL])
            if pool.terminate(target.ticket, number):
                chosen.add(target.ticket)
    reports.wait(450)
    for job in jobs:
        outcome = reports.outcomes[job.ticket]
        assert isinstance(outcome, Done) or (outcome == Terminated() and job.ticket in chosen)


def test_a_job_that_was_not_started_can_be_withdrawn_and_never_runs(start, reports, tmp_path):
    pool = start()
    gate = tmp_path / "gate"
    (running,) = reports.hold(pool, gate)
    waiting = reports.submit(pool, "add", 1, 1)
    assert pool.withdraw(waiting.ticket)
    assert reports.outcome(waiting) == Returned()
    assert not pool.withdraw(running.ticket)
    assert not pool.withdraw(waiting.ticket)
    gate.touch()
    assert reports.value(running)


def test_a_child_that_ran_its_number_of_tasks_is_replaced(start, reports):
    pool = start(2, max_tasks=1)
    jobs = [reports.submit(pool, "pid") for _ in range(8)]
    assert len({reports.value(job) for job in jobs}) == 8


def test_a_child_that_uses_too_much_memory_is_replaced_when_its_task_has_ended(start, reports):
    pool = start(1, max_memory=150 * 1024 * 1024)
    small = reports.submit(pool, "swell", 1)
    first = reports.value(small)
    large = reports.submit(pool, "swell", 200)
    assert reports.value(large) == first
    eventually(lambda: first not in pool.pids and pool.pids)
    after = reports.submit(pool, "pid")
    assert reports.value(after) != first


def test_a_pool_grows_and_shrinks(start, reports, tmp_path):
    pool = start(1)
    assert pool.grow(2) == 3
    gate = tmp_path / "gate"
    jobs = reports.hold(pool, gate, 3)
    assert pool.shrink(2) == 1
    with pytest.raises(UsageError, match="one must stay"):
        pool.shrink(1)
    gate.touch()
    assert all(reports.value(job) for job in jobs)
    eventually(lambda: len(pool.pids) == 1)


def test_a_restart_replaces_every_child_and_loses_nothing(start, reports, tmp_path):
    pool = start(2)
    eventually(lambda: len(pool.pids) == 2)
    before = set(pool.pids)
    gate = tmp_path / "gate"
    (running,) = reports.hold(pool, gate)
    pool.restart()
    jobs = [reports.submit(pool, "add", number, 0) for number in range(20)]
    assert [reports.value(job) for job in jobs] == list(range(20))
    gate.touch()
    assert reports.value(running) in before
    eventually(lambda: len(pool.pids) == 2 and not before & set(pool.pids))


@pytest.mark.parametrize("forks", [True, False])
def test_a_restart_that_cannot_import_the_app_leaves_the_old_children(
    start, reports, caplog, forks
):
    pool = start(1, forks=forks)
    before = pool.pids
    pool._children._setup = Setup("pool_jobs:gone", list(sys.path), None, "ERROR")
    pool.restart()
    eventually(lambda: "a new child cannot start" in caplog.text)
    eventually(lambda: pool.pids == before, what="a successor is gone")
    job = reports.submit(pool, "pid")
    assert [reports.value(job)] == before


@pytest.mark.parametrize(
    ("task", "how"), [("abort", "SIGABRT"), ("quit", "exit code 0"), ("odd signal", "signal 35")]
)
def test_how_a_child_ended_is_named(start, reports, task, how):
    pool = start()
    job = reports.submit(pool, task)
    assert reports.outcome(job) == Crashed(how)


def test_a_stop_interrupts_what_does_not_end_in_time(start, reports, tmp_path):
    pool = start()
    job = reports.submit(pool, "tidy", str(tmp_path / "mark"))
    runs(tmp_path / "mark")
    assert not pool.stop(0.1)
    assert reports.outcomes == {job.ticket: Abandoned()}
    assert (tmp_path / "mark.tidied").exists()


def test_what_runs_is_told(start, reports, tmp_path):
    pool = start(1, max_tasks=100)
    gate = tmp_path / "gate"
    (job,) = reports.hold(pool, gate)
    info = pool.info()
    assert (info.kind, info.size, info.limits) == ("prefork", 1, {"max_tasks": 100})
    (running,) = info.running
    assert running.ticket == job.ticket and (running.pid,) == info.pids
    assert running.pid != os.getpid() and running.since <= time.monotonic()
    gate.touch()
    reports.wait(1)
    assert pool.info().running == ()


def test_a_process_that_a_task_left_behind_does_not_hide_its_death(start, reports, tmp_path):
    pool = start()
    before = threading.active_count()
    job = reports.submit(pool, "orphan", str(tmp_path / "gate"))
    try:
        assert reports.outcome(job) == Crashed("SIGKILL")
    finally:
        (tmp_path / "gate").touch()
    eventually(lambda: threading.active_count() <= before)


def test_a_process_that_a_task_forks_ends_by_signals_as_others_do(start, reports):
    pool = start()
    job = reports.submit(pool, "family")
    assert reports.value(job) == -signal.SIGTERM


def test_a_task_that_returns_in_two_processes_is_reported_by_one(start, reports):
    pool = start()
    job, after = reports.job("twin"), reports.job("pid")
    pool.submit(job)
    pid = reports.value(job)
    assert pid in pool.pids
    pool.submit(after)
    assert reports.value(after) == pid


def test_a_job_that_is_to_be_announced_is_before_its_outcome(jobs_here, reports):
    told = []
    pool = ProcessPool(1, Setup("pool_jobs:app", list(sys.path), None, "WARNING"))
    try:
        pool.start(
            lambda ticket, outcome: (told.append((ticket, "ended")), reports(ticket, outcome)),
            lambda ticket, news: told.append((ticket, news.pid)),
        )
        announced, other = reports.job("pid"), reports.job("pid")
        announced.announce = True
        pool.submit(announced)
        pool.submit(other)
        pid = reports.value(announced)
        reports.wait(2)
        assert told == [(1, pid), (1, "ended"), (2, "ended")]
    finally:
        pool.stop(5.0)


def listen(pool, reports, told):
    """Start a pool and keep what it is told: news, and where outcomes come."""
    pool.start(
        lambda ticket, outcome: (told.append((ticket, "ended")), reports(ticket, outcome)),
        lambda ticket, news: told.append((ticket, json.loads(news.state)["result"])),
    )


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_what_a_task_says_of_itself_comes_whole_and_before_its_outcome(kind, reports, jobs_here):
    pool, told = ThreadPool(1, pool_jobs.app), []
    if kind == "processes":
        pool = ProcessPool(1, Setup("pool_jobs:app", list(sys.path), None, "WARNING"))
    try:
        listen(pool, reports, told)
        job, after = reports.job("chatter", 200, "x" * 5000), reports.job("add", 1, 2)
        pool.submit(job)
        pool.submit(after)
        assert reports.value(job) == "done" and reports.value(after) == 3
        said = [what for ticket, what in told if ticket == job.ticket]
        assert said[-1] == "ended"
        for who in ("main", "other"):
            numbers = [what["number"] for what in said[:-1] if what["who"] == who]
            assert numbers == list(range(200))
    finally:
        pool.stop(5.0)


def test_a_task_that_talks_is_interrupted_all_the_same(start, reports):
    pool = start(1)
    for _ in range(5):
        job = reports.submit(pool, "babble", soft=0.1)
        assert reports.value(job) == "out of time"
    job = reports.submit(pool, "babble")
    eventually(lambda: pool.info().running)
    time.sleep(0.1)
    assert pool.terminate(job.ticket)
    assert isinstance(reports.outcome(job), Terminated)
