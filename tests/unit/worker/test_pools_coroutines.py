"""Coroutine tasks: on every kind of pool, and many at once on the asyncio pool."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest

from queue_core import ConfigError, UsageError
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from queue_core.worker.locate import find_app
from queue_core.worker.outcome import (
    Abandoned,
    Done,
    Failed,
    Returned,
    TaskInfo,
    Terminated,
)
from queue_core.worker.pools.base import check_task
from queue_core.worker.pools.coroutines import ASYNCIO, AsyncioPool
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.make import PoolOptions, make_pool
from queue_core.worker.pools.processes import ABILITIES, ProcessPool
from queue_core.worker.pools.runs import Runs
from queue_core.worker.pools.threads import SOLO, THREADS, SoloPool, ThreadPool
from tests.unit.worker.reports import runs

HERE = str(Path(__file__).parent)
APP = "pool_coroutines:app"


@pytest.fixture
def start(jobs_here, reports, ending):
    """Start a pool of a kind; it ends with the test."""

    def started(kind="asyncio", size=2):
        if kind == "prefork":
            pool = ProcessPool(size, Setup(APP, list(sys.path), None, "WARNING"))
        elif kind == "solo":
            pool = SoloPool(find_app(APP))
        else:
            pool = {"asyncio": AsyncioPool, "threads": ThreadPool}[kind](size, find_app(APP))
        ending(pool).start(reports)
        return pool

    return started


@pytest.mark.parametrize("kind", ["prefork", "threads", "solo", "asyncio"])
def test_every_pool_runs_coroutines_on_one_thread_of_its_process(start, reports, tmp_path, kind):
    pool = start(kind, 1)
    (tmp_path / "gate").touch()
    jobs = [reports.submit(pool, "wait_for", str(tmp_path / "gate")) for _ in range(3)]
    assert {reports.value(job) for job in jobs} == {"event loop"}


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_each_coroutine_sees_its_own_request(start, reports, kind):
    pool = start(kind, 50)
    jobs = [reports.submit(pool, "who") for _ in range(50)]
    assert [reports.value(job) for job in jobs] == [str(job.ticket) for job in jobs]


def test_as_many_coroutines_run_at_once_as_the_pool_is_large(start, reports, tmp_path):
    pool = start(size=100)
    gate = tmp_path / "gate"
    for _ in range(101):
        reports.submit(pool, "wait_for", str(gate))
    runs(gate, 100)
    assert len(pool.info().running) == 100
    assert pool.grow(1) == 101
    runs(gate, 101)
    gate.touch()
    reports.wait(101)


@pytest.fixture
def about_to_begin(monkeypatch):
    """Have pools stand still when they have taken a job: when they do, and what lets them go on."""
    taken, go = threading.Event(), threading.Event()
    begin = Runs.begin

    def begin_late(runs, job):
        taken.set()
        assert go.wait(30)
        return begin(runs, job)

    monkeypatch.setattr(Runs, "begin", begin_late)
    yield taken, go
    go.set()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_stop_waits_for_a_job_that_is_about_to_begin(start, reports, about_to_begin, kind):
    taken, go = about_to_begin
    pool = start(kind, 1)
    job = reports.submit(pool, "who")
    assert taken.wait(30)
    threading.Timer(0.1, go.set).start()
    assert pool.stop(30.0)
    assert isinstance(reports.outcomes[job.ticket], Done)


def test_a_coroutine_that_is_about_to_begin_can_be_terminated(
    start, reports, tmp_path, about_to_begin
):
    taken, go = about_to_begin
    pool = start(size=1)
    job = reports.submit(pool, "wait_for", str(tmp_path / "gate"))
    assert taken.wait(30)
    assert not pool.withdraw(job.ticket) and pool.terminate(job.ticket)
    go.set()
    assert isinstance(reports.outcome(job), Terminated)


def test_a_coroutine_that_has_just_ended_is_terminated_in_vain(start, reports, monkeypatch):
    pool, end, told = start(size=1), Runs.end, []

    def terminate_and_end(runs, ticket, outcome):
        told.append(pool.terminate(ticket))
        end(runs, ticket, outcome)

    monkeypatch.setattr(Runs, "end", terminate_and_end)
    job = reports.submit(pool, "who")
    assert isinstance(reports.outcome(job), Done) and told == [True]


def test_a_plain_function_does_not_hold_up_the_loop(start, reports):
    pool = start(size=1)
    slow, quick = reports.job("busy", 3.0), reports.job("sleep", 0.01)
    pool.submit(slow)
    pool.submit(quick)
    assert reports.value(quick) == 0.01
    assert slow.ticket not in reports.outcomes
    assert reports.value(slow) == 3.0


@pytest.mark.parametrize("kind", ["prefork", "asyncio"])
def test_a_soft_limit_is_raised_where_the_coroutine_waits(start, reports, kind):
    pool = start(kind)
    caught, uncaught = reports.job("patient", soft=0.2), reports.job("sleep", 30.0, soft=0.2)
    pool.submit(caught)
    pool.submit(uncaught)
    assert reports.value(caught) == "stopped after 0.2 s"
    outcome = reports.outcome(uncaught)
    assert isinstance(outcome, Failed) and "SoftTimeLimitExceeded" in outcome.error


@pytest.mark.parametrize("kind", ["prefork", "asyncio"])
def test_a_coroutine_is_terminated_and_may_put_things_in_order(start, reports, tmp_path, kind):
    pool = start(kind)
    job = reports.submit(pool, "tidy", str(tmp_path / "mark"))
    runs(tmp_path / "mark")
    assert pool.terminate(job.ticket)
    assert reports.outcome(job) == Terminated()
    assert (tmp_path / "mark.tidied").exists()


def test_a_plain_function_cannot_be_terminated(start, reports):
    pool = start()
    job = reports.submit(pool, "busy", 2.0)
    eventually(lambda: pool.info().running)
    with pytest.raises(UsageError, match="-P prefork can"):
        pool.terminate(job.ticket)
    assert reports.value(job) == 2.0


@pytest.mark.parametrize("kind", ["prefork", "threads", "asyncio"])
@pytest.mark.parametrize("task", ["leave", "impolite"])
def test_a_coroutine_that_leaves_has_failed_and_the_loop_goes_on(start, reports, kind, task):
    pool = start(kind, 1)
    job, after = reports.job(task), reports.job("sleep", 0.0)
    pool.submit(job)
    assert isinstance(reports.outcome(job), Failed)
    pool.submit(after)
    assert reports.value(after) == 0.0


def test_stop_gives_back_what_waits_and_lets_what_runs_finish(start, reports, tmp_path):
    pool = start(size=1)
    gate = tmp_path / "gate"
    (running,) = reports.hold(pool, gate)
    waiting = reports.submit(pool, "sleep", 0.0)
    ending = threading.Thread(target=pool.stop, args=(20.0,))
    ending.start()
    assert reports.outcome(waiting) == Returned()
    gate.touch()
    ending.join(20.0)
    assert isinstance(reports.outcomes[running.ticket], Done)
    late = reports.submit(pool, "sleep", 0.0)
    assert reports.outcomes[late.ticket] == Returned()


def test_what_does_not_end_in_time_is_abandoned_and_may_put_things_in_order(
    start, reports, tmp_path
):
    pool = start()
    job = reports.submit(pool, "tidy", str(tmp_path / "mark"))
    runs(tmp_path / "mark")
    began = time.monotonic()
    assert not pool.stop(0.2)
    assert time.monotonic() - began < 10.0
    assert reports.outcomes == {job.ticket: Abandoned()}
    assert (tmp_path / "mark.tidied").exists()


def test_a_job_that_was_not_started_can_be_withdrawn(start, reports, tmp_path):
    pool = start(size=1)
    gate = tmp_path / "gate"
    (running,) = reports.hold(pool, gate)
    waiting = reports.submit(pool, "sleep", 0.0)
    assert pool.withdraw(waiting.ticket)
    assert reports.outcome(waiting) == Returned()
    assert not pool.withdraw(running.ticket)
    gate.touch()
    assert reports.value(running)


def test_what_waits_behind_a_coroutine_that_takes_long_is_given_back(start, reports, tmp_path):
    pool = start(size=1)
    gate = tmp_path / "gate"
    (running,) = reports.hold(pool, gate)
    waiting = reports.submit(pool, "sleep", 0.0)

    def all_returned():
        pool.return_waiting()
        return waiting.ticket in reports.outcomes

    eventually(all_returned)
    assert reports.outcomes == {waiting.ticket: Returned()}
    assert pool.ahead == 1
    gate.touch()
    assert reports.value(running)


@pytest.mark.parametrize("kind", ["threads", "solo", "asyncio"])
def test_what_a_pool_cannot_do_is_refused_with_the_one_that_can(start, kind):
    pool = start(kind)
    with pytest.raises(UsageError, match="-P prefork can"):
        pool.restart()
    for option in ("hard_limit", "soft_limit", "max_tasks", "max_memory"):
        if option == "soft_limit" and kind == "asyncio":
            continue
        with pytest.raises(ConfigError, match=f"-P {kind} keeps no --.*; use -P prefork"):
            make_pool(PoolOptions(kind, **{option: 1}), APP, None, "INFO")


def test_a_soft_limit_for_all_tasks_is_kept_where_a_coroutine_waits(jobs_here, reports, caplog):
    pool = make_pool(PoolOptions("asyncio", 2, soft_limit=0.1), APP, None, "INFO")
    pool.start(reports)
    try:
        patient, own, busy = (
            reports.job("patient"),
            reports.job("patient"),
            reports.job("busy", 0.3),
        )
        own.soft_limit = 0.2
        for job in (patient, own, busy):
            pool.submit(job)
        assert reports.value(patient) == "stopped after 0.1 s"
        assert reports.value(own) == "stopped after 0.2 s"
        assert reports.value(busy) == 0.3
        assert "a time limit is asked for" in caplog.text
        assert pool.info().limits == {"soft_limit": 0.1}
    finally:
        pool.stop(5.0)


def test_a_soft_limit_for_all_tasks_may_be_a_setting(monkeypatch, tmp_path):
    module = tmp_path / "pool_limited_by_settings.py"
    module.write_text(
        "from queue_core.worker import App\n"
        "app = App('limited')\n"
        "app.config_from_object({'task_soft_time_limit': 0.1})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = make_pool(PoolOptions("asyncio", 2), f"{module.stem}:app", None, "INFO")
    assert pool.info().limits == {"soft_limit": 0.1}
    with pytest.raises(ConfigError, match="keeps no task_soft_time_limit.*LIMIT= for"):
        make_pool(PoolOptions("threads", 2), f"{module.stem}:app", None, "INFO")


def test_a_soft_limit_of_a_plain_function_is_refused_by_the_pool_that_runs_it_in_a_thread(reports):
    app = App("plain")
    app.task(name="waits", soft_time_limit=2)(asyncio.sleep)
    app.task(name="computes", soft_time_limit=2)(len)
    pool = AsyncioPool(1, app)
    with pytest.raises(ConfigError, match="task computes has a soft .*async def, use -P prefork"):
        pool.start(reports)
    pool.stop(0.0)


@pytest.mark.parametrize(
    ("abilities", "refused"),
    [(ABILITIES, ""), (ASYNCIO, "h"), (THREADS, "hs"), (SOLO, "hs")],
)
def test_limits_of_tasks_that_a_pool_cannot_keep_are_refused_at_start(abilities, refused):
    for letter, limits in (("h", {"hard_limit": 2.0}), ("s", {"soft_limit": 2.0})):
        task = TaskInfo("slow", coroutine=True, **limits)
        if letter in refused:
            with pytest.raises(ConfigError, match="task slow has a .*time limit of 2 s"):
                check_task(abilities, task)
        else:
            check_task(abilities, task)
