"""Worker processes whose tasks hang, crash and hoard: who is charged, and what goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from queue_core import RemoteError
from queue_core.testing.eventually import eventually
from tests.acceptance.notes import lines


@pytest.fixture
def start(start_worker):
    """Start a worker with the tasks of `pool_tasks`."""
    return lambda *arguments: start_worker("-A", "pool_tasks:app", *arguments).ready()


@pytest.fixture
def send(app, queue):
    """Send a task by its short name."""
    return lambda name, *args, **options: app.send_task(
        f"pool_tasks.{name}", args, queue=queue, **options
    )


def test_w11_a_task_that_cannot_be_interrupted_is_killed_at_its_limit_and_not_run_again(
    start, send, note
):
    worker = start("-c", "1", "--time-limit", "2s")
    result = send("stubborn", str(note), 30.0)
    eventually(lambda: lines(note))
    began = time.monotonic()
    with pytest.raises(RemoteError, match="2 s"):
        result.get(20)
    assert time.monotonic() - began < 15.0  # it would take thirty
    assert send("add", 1, 2).get(20) == 3
    time.sleep(1.0)
    assert len(lines(note)) == 1
    assert "Traceback" not in worker.log


def test_a_task_may_put_things_in_order_at_its_soft_limit(start, send):
    start("-c", "1")
    assert send("polite", soft_time_limit=0.3).get(20) == "in order"


def test_the_limits_of_a_call_go_before_those_of_its_task(start, send, note):
    start("-c", "1", "--time-limit", "60s")
    result = send("stubborn", str(note), 30.0, time_limit=1)
    with pytest.raises(RemoteError, match="1 s"):
        result.get(20)


@pytest.mark.parametrize(
    ("how", "name"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT"), ("kill", "SIGKILL")]
)
def test_w4_w5_w6_a_task_that_always_kills_its_process_is_given_up_and_named(
    app, queue, start, send, how, name
):
    worker = start("-c", "1")
    good = [send("add", number, 0) for number in range(20)]
    with pytest.raises(RemoteError, match=f"crash loop: .* died 3 times .*{name}"):
        send("crash", how).get(40)
    assert [result.get(30) for result in good] == list(range(20))
    eventually(lambda: app.connection().inspect(f"{queue}.dlq").ready == 1)
    assert worker.log.count(f"died ({name}); it is replaced") == 3


@pytest.mark.parametrize("how", ["sys.exit", "interrupt"])
def test_w7_a_task_that_leaves_has_failed_and_the_worker_lives(start, send, how):
    worker = start("-c", "1")
    with pytest.raises(RemoteError, match="SystemExit|KeyboardInterrupt"):
        send("crash", how).get(20)
    assert send("add", 1, 2).get(20) == 3
    assert worker.process.poll() is None


def test_w7_a_process_that_ends_in_silence_is_no_success(start, send):
    start("-c", "1")
    with pytest.raises(RemoteError, match="crash loop: .*exit code 0"):
        send("crash", "_exit").get(40)


def test_w8_a_task_that_runs_out_of_memory_fails_and_the_next_one_has_a_fresh_process(start, send):
    start("-c", "1")
    before = send("pid").get(20)
    with pytest.raises(MemoryError):
        send("hoard").get(20)
    assert send("pid").get(20) != before


def test_w10_a_task_that_holds_the_interpreter_lock_for_three_leases_runs_once(start, send, note):
    for _ in range(2):
        start("-c", "1", "--lease", "2s")
    send("stubborn", str(note), 6.5).get(30)
    assert [line for line in lines(note) if line != "through"] == lines(note)[:1]


def test_w15_one_task_for_each_child_loses_and_repeats_nothing(start, send, note):
    worker = start("-c", "2", "--max-tasks", "1")
    results = [send("once", str(note), str(number)) for number in range(12)]
    pids = {result.get(60) for result in results}
    assert len(pids) == 12
    assert sorted(lines(note), key=int) == [str(number) for number in range(12)]
    assert "no messages for now" not in worker.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_worker_even_if_its_task_blocks_everything(
    start, send, note, is_alive, number
):
    worker = start("-c", "1", "--drain", "0s")
    send("stubborn", str(note), 60.0)
    eventually(lambda: lines(note))
    child = int(lines(note)[0])
    worker.signal(number)
    worker.end()
    eventually(lambda: not is_alive(child))


def test_a_hang_up_replaces_the_children_while_tasks_go_on(start, send):
    worker = start("-c", "1")
    before = send("pid").get(20)
    worker.signal(signal.SIGHUP)
    results = [send("add", number, 0) for number in range(20)]
    assert [result.get(20) for result in results] == list(range(20))
    eventually(lambda: send("pid").get(20) != before)


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_coroutine_tasks_run_on_the_event_loop_of_their_process(start, send, note, pool):
    start("-P", pool, "-c", "2")
    results = [send("both", str(note), str(number)) for number in range(2)]
    assert [result.get(20) for result in results] == ["event loop"] * 2


@pytest.mark.parametrize("pool", ["threads", "solo"])
@pytest.mark.parametrize("broker_url", ["sqlite"], indirect=True)  # nothing is connected
def test_limits_that_a_pool_cannot_keep_are_refused_at_start(start_worker, pool):
    for arguments, what in (
        (("-A", "pool_tasks:limited"), "task pool_tasks.slow has a soft time limit of 0.3 s"),
        (("--max-tasks", "3"), f"-P {pool} keeps no --max-tasks"),
    ):
        worker = start_worker("-P", pool, *arguments)
        assert worker.end() == 78, worker.log
        assert what in worker.log
        assert "use -P prefork" in worker.log


def test_children_decode_messages_without_loading_a_driver(start, send):
    start("-c", "1")
    assert send("drivers").get(20) == []


def test_a_worker_holds_few_messages_until_it_knows_that_they_are_short(
    app, queue, start, send, note
):
    start("-c", "1")

    def held_behind_a_long_one():
        gate = note.with_name(f"gate-{time.monotonic_ns()}")
        results = [send("wait_for", str(gate)), *(send("add", 1, 1) for _ in range(100))]
        eventually(lambda: Path(f"{gate}.runs").exists())
        time.sleep(1.0)
        held = 101 - app.connection().inspect(queue).ready
        gate.touch()
        assert all(result.get(30) for result in results)
        return held

    assert held_behind_a_long_one() <= 8
    for result in [send("add", 1, 1) for _ in range(400)]:
        result.get(30)
    eventually(lambda: held_behind_a_long_one() >= 24, 60.0)
