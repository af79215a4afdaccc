"""Pools: every job that was taken is reported once, whatever becomes of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from queue_core import Backoff
from queue_core.testing.eventually import eventually
from queue_core.worker.absent import AppNotFound
from queue_core.worker.locate import find_app
from queue_core.worker.outcome import Abandoned, Crashed, Done, Failed, Returned
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.launching import Template
from queue_core.worker.pools.processes import ProcessPool
from queue_core.worker.pools.threads import SoloPool, ThreadPool
from tests.unit.worker.reports import runs

HERE = str(Path(__file__).parent)


@pytest.fixture
def path(jobs_here):
    return list(sys.path)


@pytest.fixture(params=["processes", "spawned", "threads"])
def pool(request, path, ending):
    return ending(make(request.param, path))


def make(kind, path, size=2, app="pool_jobs:app"):
    if kind == "processes":
        return ProcessPool(size, Setup(app, path, None, "WARNING"))
    if kind == "spawned":
        return ProcessPool(size, Setup(app, path, None, "WARNING"), forks=False)
    return ThreadPool(size, find_app(app))


@pytest.fixture
def processes(path, ending):
    return ending(make("processes", path))


def test_jobs_are_run_and_reported(pool, reports):
    info = pool.start(reports)
    assert info.name == "pool jobs" and "add" in [task.name for task in info.tasks]
    jobs = [reports.submit(pool, "add", number, 1) for number in range(200)]
    assert [reports.value(job) for job in jobs] == [number + 1 for number in range(200)]
    assert pool.stop(10.0)
    assert not reports.twice


def test_as_many_run_at_once_as_the_pool_is_large(pool, reports, tmp_path):
    pool.start(reports)
    gate = tmp_path / "gate"
    reports.hold(pool, gate, 2)
    gate.touch()
    reports.wait(2)


def test_jobs_behind_those_that_take_longer_than_expected_are_run_by_other_threads(
    path, reports, tmp_path
):
    pool = make("threads", path, size=4)
    pool.start(reports)
    for _ in range(300):  # from now on tasks are expected to be short
        pool.submit(reports.job("add", 1, 1))
    reports.wait(300)
    gate = tmp_path / "gate"
    for _ in range(3):
        pool.submit(reports.job("wait_for", str(gate)))
    short = [reports.submit(pool, "add", number, 1) for number in range(20)]
    assert [reports.value(job) for job in short] == [number + 1 for number in range(20)]
    runs(gate, 3)
    gate.touch()
    assert pool.stop(20.0)
    assert not reports.twice


def test_stop_gives_back_what_waits_and_lets_what_runs_finish(pool, reports, tmp_path):
    pool.start(reports)
    gate = tmp_path / "gate"
    running = reports.hold(pool, gate, 2)
    waiting = [reports.submit(pool, "add", 1, 1) for _ in range(5)]
    ended = threading.Thread(target=pool.stop, args=(20.0,))
    ended.start()
    eventually(lambda: len(reports.outcomes) == 5, what="the waiting ones come back first")
    assert all(reports.outcomes[job.ticket] == Returned() for job in waiting)
    gate.touch()
    ended.join(20.0)
    assert all(isinstance(reports.outcomes[job.ticket], Done) for job in running)
    late = reports.submit(pool, "add", 1, 1)
    assert reports.outcomes[late.ticket] == Returned()
    assert pool.stop(0.0)
    assert not reports.twice


def test_what_waits_behind_long_tasks_is_given_back(pool, reports, tmp_path):
    pool.start(reports)
    gate = tmp_path / "gate"
    running = reports.hold(pool, gate, 2)
    waiting = [reports.submit(pool, "add", 1, 1) for _ in range(5)]
    pool.return_waiting()
    assert not reports.outcomes, "they may still be short"

    def all_returned():
        pool.return_waiting()
        return len(reports.outcomes) == 5

    eventually(all_returned)
    assert all(reports.outcomes[job.ticket] == Returned() for job in waiting)
    assert pool.ahead == 2
    gate.touch()
    assert all(reports.value(job) for job in running)


def test_what_does_not_end_in_time_is_abandoned(pool, reports, tmp_path):
    pool.start(reports)
    gate = tmp_path / "never"
    (job,) = reports.hold(pool, gate)
    began = time.monotonic()
    assert not pool.stop(0.3)
    assert time.monotonic() - began < 10.0
    assert reports.outcomes == {job.ticket: Abandoned()}
    gate.touch()


def test_abort_ends_the_grace(pool, reports, tmp_path):
    pool.start(reports)
    gate = tmp_path / "never"
    (job,) = reports.hold(pool, gate)
    threading.Timer(0.3, pool.abort).start()
    began = time.monotonic()
    assert not pool.stop(60.0)
    assert time.monotonic() - began < 20.0
    assert reports.outcomes == {job.ticket: Abandoned()}
    gate.touch()


def test_a_pool_that_was_never_started_can_be_stopped_twice(pool):
    assert pool.stop(0.0)
    assert pool.stop(0.0)


def test_the_solo_pool_runs_in_the_calling_thread(path, reports):
    solo = SoloPool(find_app("pool_jobs:app"))
    solo.start(reports)
    job = reports.job("pid")
    solo.submit(job)
    assert reports.value(job) == os.getpid()
    assert solo.stop(0.0)
    late = reports.job("pid")
    solo.submit(late)
    assert reports.outcomes[late.ticket] == Returned()


def test_a_dying_child_is_charged_with_its_own_job_only_and_is_replaced(processes, reports):
    processes.start(reports)
    eventually(lambda: len(processes.pids) == 2)
    warm = [reports.job("add", 1, 1) for _ in range(50)]  # now the pool knows that add is short
    for job in warm:
        processes.submit(job)
    reports.wait(50)
    good = [reports.job("add", number, 0) for number in range(40)]
    bad = reports.job("die")
    for number, job in enumerate(good):
        processes.submit(job)
        if number == 20:
            processes.submit(bad)
    assert [reports.value(job) for job in good] == list(range(40))
    eventually(lambda: bad.ticket in reports.outcomes)
    assert reports.outcomes[bad.ticket] == Crashed("SIGKILL")
    eventually(lambda: len(processes.pids) == 2, what="the child is replaced")
    assert processes.stop(10.0)
    assert not reports.twice


def test_a_child_whose_task_exits_is_replaced_and_the_task_has_failed(processes, reports):
    processes.start(reports)
    job = reports.job("leave")
    processes.submit(job)
    reports.wait(1)
    assert isinstance(reports.outcomes[job.ticket], Failed)
    after = reports.job("add", 1, 2)
    processes.submit(after)
    assert reports.value(after) == 3


def test_a_child_that_is_killed_while_idle_is_replaced(processes, reports):
    processes.start(reports)
    victim = eventually(lambda: processes.pids[0])
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(processes.pids) == 2 and victim not in processes.pids)
    job = reports.job("add", 1, 2)
    processes.submit(job)
    assert reports.value(job) == 3


def test_children_ignore_the_signals_that_their_parent_handles(processes, reports, tmp_path):
    processes.start(reports)
    gate = tmp_path / "gate"
    job = reports.job("wait_for", str(gate))
    processes.submit(job)
    runs(gate, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        for pid in processes.pids:
            os.kill(pid, number)
    gate.touch()
    assert reports.value(job)


def test_an_app_that_cannot_be_imported_is_reported_by_the_first_child(path, reports):
    pool = make("processes", path, app="pool_jobs:ap")
    with pytest.raises(AppNotFound, match="has no attribute 'ap'"):
        pool.start(reports)
    assert pool.pids == []


def test_large_messages_pass_in_both_directions(processes, reports, path):
    processes.start(reports)
    text = "x" * 3_000_000
    jobs = [reports.job("add", text, text) for _ in range(4)]
    for job in jobs:
        processes.submit(job)
    assert all(reports.value(job) == text + text for job in jobs)


@pytest.mark.parametrize(
    ("kind", "where", "how"),
    [("processes", Template, "fork"), ("spawned", subprocess, "Popen")],
)
def test_a_child_that_cannot_be_started_is_tried_again(
    path, reports, monkeypatch, kind, where, how
):
    monkeypatch.setattr("queue_core.worker.pools.supervisor.RESTARTS", Backoff(base=0.01, cap=0.01))
    pool = make(kind, path, size=1)
    pool.start(reports)
    start, refused = getattr(where, how), []

    def refuse(*arguments, **options):
        if len(refused) < 3:
            refused.append(arguments)
            raise BlockingIOError("no more processes")
        return start(*arguments, **options)

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(where, how, refuse)
    os.kill(pool.pids[0], signal.SIGKILL)
    eventually(lambda: len(refused) == 3 and pool.pids)
    job = reports.submit(pool, "add", 1, 2)
    assert reports.value(job) == 3
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    pool.stop(0.0)
