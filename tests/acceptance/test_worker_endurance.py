"""Workers that stand still, die with much in their hands, or hold on to something for long."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from queue_core.testing.eventually import eventually
from tests.acceptance.notes import go, lines


@pytest.fixture
def lease() -> str:
    return "2s"


def resident(pid: int) -> int:
    """The bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def test_a_worker_that_is_killed_with_a_hundred_messages_loses_none(
    app, queue, start_worker, note, is_alive
):
    worker = start_worker("-c", "2", "--prefetch", "100").ready()
    children = eventually(lambda: len(worker.children()) == 2 and worker.children())
    results = [app.send_task("jobs.start", (str(note),), queue=queue) for _ in range(60)]
    held = [app.send_task("jobs.hold", (f"{note}-h",), queue=queue) for _ in range(2)]
    results += [app.send_task("jobs.start", (str(note),), queue=queue) for _ in range(60)]
    eventually(lambda: len(lines(Path(f"{note}-h"))) == 2, 30.0, what="both children are busy")
    worker.kill()
    eventually(lambda: not any(is_alive(child) for child in children))
    go(Path(f"{note}-h"))
    start_worker("-c", "2").ready()
    assert all(result.get(40) for result in [*results, *held])
    runs = len(lines(note)) + len(lines(Path(f"{note}-h")))
    assert 122 <= runs <= 122 + 100


def test_a_task_of_which_nothing_is_known_does_not_wait_while_another_worker_is_idle(
    app, queue, start_worker, note
):
    for _ in range(2):
        start_worker("-c", "1").ready()
    held = app.send_many("jobs.hold", [(str(note),)] * 2, queue=queue)
    eventually(lambda: len(set(lines(note))) == 2, 40.0, what="each worker runs one")
    go(note)
    assert len({result.get(40)[0] for result in held}) == 2


def test_long_tasks_that_follow_short_ones_do_not_wait_while_another_worker_is_idle(
    app, queue, start_worker, note
):
    name = f"{queue}@first"
    start_worker("-c", "1", "-n", name).ready()
    short = app.send_many("jobs.add", [(1, n) for n in range(500)], queue=queue)
    assert all(one.get(40) for one in short)
    held = app.send_many("jobs.hold", [(str(note),)] * 2, queue=queue)
    start_worker("-c", "1").ready()
    eventually(lambda: len(set(lines(note))) == 2, 40.0, what="each worker runs one")
    steps = app.control.call("stats", destination=[name], timeout=10.0)[name]["steps"]
    returned = steps["Consumer"]["Tasks"]["ended"].get("returned", 0)
    assert returned <= 2, "what it cannot run it does not take again and again"
    go(note)
    assert len({result.get(40)[0] for result in held}) == 2


def test_a_task_that_runs_for_many_leases_runs_once(app, queue, start_worker, note):
    workers = [start_worker("-c", "1").ready() for _ in range(2)]
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    time.sleep(7.0)
    assert len(lines(note)) == 1
    go(note)
    assert held.get(20)[1] is False
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0, worker.log
    assert len(lines(note)) == 1


def test_a_worker_that_stood_still_comes_back_and_changes_nothing(app, queue, start_worker, note):
    frozen = start_worker("-c", "1").ready()
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    frozen.freeze()
    other = start_worker("-c", "1").ready()
    eventually(lambda: len(lines(note)) == 2, 40.0, what="the other one runs it")
    go(note)
    assert held.get(30)[1] is True
    other.signal(signal.SIGTERM)
    assert other.end() == 0, other.log
    frozen.signal(signal.SIGCONT)
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(40) == 3
    assert len(lines(note)) == 2
    frozen.signal(signal.SIGTERM)
    assert frozen.end() == 0, frozen.log
    assert app.connection().inspect(queue).ready == 0


def test_two_workers_that_were_given_one_name_both_go_on_and_the_newer_one_is_the_node(
    app, queue, start_worker, note
):
    name = f"{queue}@here"
    common = ("-c", "1", "--prefetch", "1", "--lease", "10s", "-n", name)
    workers = [start_worker(*common).ready() for _ in range(2)]
    held = app.send_many("jobs.hold", [(str(note),), (str(note),)], queue=queue)
    eventually(lambda: len(set(lines(note))) == 2, 40.0, what="each of them runs a task")
    go(note)
    assert len({result.get(40)[0] for result in held}) == 2
    older, newer = workers
    eventually(lambda: f"{name} leaves" in older.log)
    assert f"{name} leaves" not in newer.log
    assert older.log.count(" lost (") <= 3 and newer.log.count(" lost (") == 0


def test_ten_thousand_tasks_that_are_due_in_an_hour_take_no_memory_and_no_place(
    app, queue, start_worker
):
    worker = start_worker("-c", "1").ready()
    assert app.send_task("jobs.add", (1, 1), queue=queue).get(30) == 2
    before = resident(worker.process.pid)
    app.send_many(
        "jobs.add", [(number, 1) for number in range(10_000)], queue=queue, countdown=3600.0
    )
    began = time.monotonic()
    due = app.send_many("jobs.add", [(number, 1) for number in range(100)], queue=queue)
    assert [result.get(30) for result in due] == [number + 1 for number in range(100)]
    assert time.monotonic() - began < 30.0
    assert resident(worker.process.pid) - before < 20_000_000
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0, worker.log
    start_worker("-c", "1").ready()
    assert app.send_task("jobs.add", (1, 1), queue=queue).get(30) == 2
    assert app.connection().inspect(queue).delayed in (10_000, None)
