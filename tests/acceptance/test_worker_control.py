"""Workers asked and told by remote control, from programs and from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from queue_core import Connection, RemoteError
from queue_core.mailbox import Mailbox, SigningKey
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.acceptance.notes import go, lines

HERE = Path(__file__).parent


@pytest.fixture
def name() -> str:
    return f"w-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def worker(start_worker, name):
    return start_worker("-n", name, "-c", "1", "--prefetch", "4").ready()


@pytest.fixture
def told(app, name):
    """Ask this test's worker, and no other."""

    def ask(method, **arguments):
        return app.control.call(method, destination=[name], timeout=10.0, **arguments)[name]

    return ask


def command(url: str, *arguments: str):
    return subprocess.run(
        [sys.executable, "-m", "queue_core.worker.cli", *arguments],
        cwd=HERE,
        env={**os.environ, "QUEUE_CORE_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40.0,
        check=False,
    )


def test_a_worker_with_all_slots_taken_answers_within_200_ms(
    app, queue, start_worker, told, name, note
):
    """99 of 100 calls, in one of a few rounds: the machine has other things to do, too."""
    start_worker("-n", name, "-c", "2", "--prefetch", "50").ready()
    held = [app.send_task("jobs.hold", (str(note),), queue=queue) for _ in range(2)]
    eventually(lambda: len(lines(note)) == 2)
    waiting = app.send_many("jobs.add", [(number, 1) for number in range(200)], queue=queue)
    eventually(lambda: len(told("reserved")) >= 40)

    def timed():
        began = time.perf_counter()
        assert told("ping") == {"ok": "pong"}
        return time.perf_counter() - began

    assert any(sorted(timed() for _ in range(100))[98] < 0.2 for _ in range(8))
    assert not any(result.ready() for result in (*held, *waiting))
    go(note)
    assert [result.get(30) for result in waiting] == list(range(1, 201))


def test_a_busy_worker_says_what_it_runs_and_what_waits(app, queue, worker, told, name, note):
    running = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    waiting = app.send_task("jobs.add", (1, 2), queue=queue)
    eventually(lambda: [item["id"] for item in told("reserved")] == [waiting.id])
    (active,) = told("active")
    assert (active["id"], active["name"]) == (running.id, "jobs.hold")
    assert active["worker_pid"] == int(lines(note)[0])
    assert abs(active["time_start"] - time.time()) < 30.0
    assert active["delivery_info"]["queue"] == queue
    found = told("query_task", ids=[running.id, waiting.id, "x"])
    assert {key: value[0] for key, value in found.items()} == {
        running.id: "active",
        waiting.id: "reserved",
    }
    assert told("ping") == {"ok": "pong"}
    assert told("scheduled") == [] and told("revoked") == []
    assert [item["name"] for item in told("active_queues")] == [queue]
    assert "jobs.add" in told("registered")
    go(note)
    assert waiting.get(30) == 3
    eventually(lambda: told("stats")["total"] == {"jobs.hold": 1, "jobs.add": 1})
    stats = told("stats")
    assert stats["pid"] == worker.process.pid
    assert stats["pool"]["max-concurrency"] == 1
    assert told("memsample").endswith("MB")
    assert told("report")["ok"].startswith("queue-core ")
    assert told("conf")["worker_queues"] == [queue]


def test_a_revoked_task_that_waits_is_not_started(app, queue, worker, told, note):
    running = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    here = app.send_task("jobs.start", (str(note),), queue=queue)
    eventually(lambda: [item["id"] for item in told("reserved")] == [here.id])
    later = str(uuid.uuid4())
    assert "flagged as revoked" in told("revoke", task_id=[here.id, later])["ok"]
    assert sorted(told("revoked")) == sorted([here.id, later])
    coming = app.send_task("jobs.start", (str(note),), queue=queue, task_id=later)
    go(note)
    for result in (here, coming):
        with pytest.raises(RemoteError, match="(?i)revoked"):
            result.get(30)
    assert running.get(30)
    assert len(lines(note)) == 1


def test_a_running_task_is_terminated_and_no_other(app, queue, worker, told, note):
    running = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    next_one = app.send_task("jobs.add", (1, 2), queue=queue)
    told("revoke", task_id=running.id, terminate=True, signal="SIGKILL")
    with pytest.raises(RemoteError, match="(?i)revoked"):
        running.get(30)
    assert next_one.get(30) == 3
    assert len(lines(note)) == 1


@pytest.mark.parametrize("broker_url", ["sqlite", "redis", "postgres", "mysql"], indirect=True)
def test_a_revoked_task_stays_revoked_when_all_workers_start_again(
    app, queue, start_worker, worker, told, name, note
):
    """Where the broker can keep it; elsewhere there is --statedb."""
    revoked = str(uuid.uuid4())
    assert "flagged" in app.control.revoke(revoked, reply=True, timeout=10.0)[name]["ok"]
    worker.signal(15)
    assert worker.end() == 0
    result = app.send_task("jobs.start", (str(note),), queue=queue, task_id=revoked)
    start_worker("-n", f"{name}-2").ready()
    with pytest.raises(RemoteError, match="(?i)revoked"):
        result.get(30)
    assert lines(note) == []


def test_a_worker_with_a_state_file_remembers_by_itself(
    app, queue, start_worker, told, name, note, tmp_path
):
    state = str(tmp_path / "state.db")
    worker = start_worker("-n", name, "--statedb", state).ready()
    revoked = str(uuid.uuid4())
    told("revoke", task_id=revoked)
    worker.kill()  # at once: what it was told is on the disk
    app.send_task("jobs.start", (str(note),), queue=queue, task_id=revoked, ignore_result=True)
    again = start_worker("--statedb", state).ready()
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(30) == 3
    eventually(lambda: f"revoked jobs.start {revoked[:8]}" in again.log)
    assert lines(note) == []


def test_a_rate_limit_spreads_the_runs_and_lets_other_tasks_pass(app, queue, worker, told, note):
    said = told("rate_limit", task_name="jobs.start", rate_limit="2/s")
    assert said == {"ok": "new rate limit set successfully"}
    began = time.monotonic()
    results = [app.send_task("jobs.start", (str(note),), queue=queue) for _ in range(8)]
    other = app.send_task("jobs.add", (1, 2), queue=queue)
    assert other.get(30) == 3
    assert not all(result.ready() for result in results)
    assert all(result.get(30) for result in results)
    assert time.monotonic() - began > 2.5  # two at once, then one each half second
    assert len(lines(note)) == 8
    assert told("rate_limit", task_name="jobs.start", rate_limit="0")["ok"].startswith("rate limit")
    with pytest.raises(RemoteError, match=r"did you mean 'jobs\.start'"):
        told("rate_limit", task_name="jobs.stat", rate_limit="1/s")
    with pytest.raises(RemoteError, match="is no rate"):
        told("rate_limit", task_name="jobs.start", rate_limit="often")


def test_a_time_limit_can_be_set_while_it_works(app, queue, worker, told, note):
    said = told("time_limit", task_name="jobs.hold", hard=0.5)
    assert said == {"ok": "time limits set successfully"}
    with pytest.raises(RemoteError, match="(?i)time"):
        app.send_task("jobs.hold", (str(note),), queue=queue).get(30)


def test_a_pool_grows_and_shrinks_and_starts_anew(app, queue, worker, told, note):
    told("pool_grow", n=1)
    results = [app.send_task("jobs.hold", (str(note),), queue=queue) for _ in range(2)]
    eventually(lambda: len(lines(note)) == 2)
    go(note)
    assert all(result.get(30) for result in results)
    told("pool_shrink", n=1)
    eventually(lambda: len(told("stats")["pool"]["processes"]) == 1)
    before = told("stats")["pool"]["processes"]
    told("pool_restart")
    eventually(lambda: told("stats")["pool"]["processes"] not in ([], before))
    with pytest.raises(RemoteError):
        told("pool_shrink", n=1)
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(30) == 3


def test_queues_come_and_go_while_it_works(app, queue, worker, told, note):
    other = f"{queue}-b"
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    try:
        assert told("add_consumer", queue=other) == {"ok": f"add consumer {other}"}
        assert told("cancel_consumer", queue=queue) == {"ok": f"no longer consuming from {queue}"}
        here = app.send_task("jobs.add", (1, 1), queue=other)
        there = app.send_task("jobs.add", (2, 2), queue=queue)
        go(note)
        assert held.get(30)[1] is False  # it ran on, and is settled
        assert here.get(30) == 2
        assert [item["name"] for item in told("active_queues")] == [other]
        assert not there.ready()
        told("add_consumer", queue=queue)
        assert there.get(30) == 4
        assert len(lines(note)) == 1
        with pytest.raises(RemoteError, match="does not take from"):
            told("cancel_consumer", queue="nothing")
    finally:
        app.connection().delete(app.queue(other))


def test_a_paused_worker_finishes_what_it_has_and_takes_nothing(app, queue, worker, told, note):
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    told("pause")
    after = app.send_task("jobs.add", (1, 2), queue=queue)
    go(note)
    assert held.get(30)[1] is False
    with pytest.raises(TimeoutError):
        after.get(1.5)
    assert told("active_queues")[0]["paused"] is True
    told("resume")
    assert after.get(30) == 3


def test_a_worker_that_is_told_to_shut_down_answers_and_leaves(app, queue, worker, told, note):
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    assert told("shutdown") == {"ok": "shutting down"}
    eventually(lambda: "stopping" in worker.log)
    assert told("ping") == {"ok": "pong"}  # while it drains
    go(note)
    assert worker.end() == 0
    assert held.get(30)


def test_commands_and_steps_of_the_app_are_there(start_worker, app, told, name, queue):
    worker = start_worker("-A", "extended:app", "-n", name).ready()
    assert told("queues_here") == [queue]
    assert told("set_mood", mood="good") == "good"
    assert "the mood step starts" in worker.log
    with pytest.raises(RemoteError, match="takes no argument 'colour'"):
        told("set_mood", mood="good", colour="blue")
    worker.signal(15)
    assert worker.end() == 0
    assert "the mood step stops, good" in worker.log


def test_the_command_line_asks_and_tells_workers(broker_url, worker, name):
    asked = command(broker_url, "inspect", "registered", "-d", name, "-t", "10s", "--json")
    assert asked.returncode == 0, asked.stderr
    assert "jobs.add" in json.loads(asked.stdout)["answers"][name]
    done = command(broker_url, "control", "rate_limit", "jobs.add", "5/s", "-d", name, "-t", "10s")
    assert done.returncode == 0, done.stderr
    assert "new rate limit set" in done.stdout
    listed = command(broker_url, "control", "-d", name, "-t", "10s")
    assert "revoke TASK_ID..." in listed.stdout, listed.stderr
    helped = command(broker_url, "control", "--help")
    assert "revoke TASK_ID..." in helped.stdout and "--timeout" in helped.stdout, helped.stderr
    for arguments in (["--help", "-b", broker_url], ["-b", broker_url, "--help"]):
        helped = command("sqlite:////nowhere/else.db", "inspect", *arguments)
        assert "query_task IDS..." in helped.stdout, helped.stderr


def test_a_worker_with_a_key_obeys_nobody_else(app, broker_url, start_worker, told, name, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("a long secret that only operators have\n")
    worker = start_worker("-n", name, "--control-key", "ops", str(secret)).ready()
    assert told("ping") == {"ok": "pong"}
    with pytest.raises(RemoteError, match="not signed"):
        told("shutdown")
    said = {"control_key_name": "ops", "control_key_file": str(secret)}
    signing = App("signing", broker=broker_url, settings=said)
    try:
        limited = signing.control.rate_limit(
            "jobs.add", "9/s", destination=[name], reply=True, timeout=10.0
        )
        assert limited[name] == {"ok": "new rate limit set successfully"}
    finally:
        signing.close()
    key = ("--key-name", "ops", "--key-file", str(secret))
    done = command(broker_url, "control", "shutdown", "-d", name, "-t", "10s", *key)
    assert done.returncode == 0, done.stderr
    assert worker.end() == 0


def test_a_worker_with_a_key_of_its_own_takes_its_name_over_where_keys_are_known(
    broker_url, start_worker, name, tmp_path
):
    secret, settings = tmp_path / "key", tmp_path / "settings.toml"
    secret.write_text("a long secret that only operators have\n")
    settings.write_text(f'control_key_name = "ops"\ncontrol_key_file = "{secret}"\n')
    key = SigningKey("ops", secret.read_text().strip())
    with Connection(broker_url) as connection, Mailbox("queue-core", connection, keys=[key]) as box:
        older = box.node(name).start()
        worker = start_worker(
            *("-n", name, "--control-key", "ops", str(secret), "--config", str(settings))
        ).ready()
        assert older.wait(30)
        eventually(lambda: name in box.call([name], "stats", timeout=10.0), 30.0)
    assert "takes no part in remote control" not in worker.log


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_whose_pool_is_full_answers_all_the_same(
    app, queue, start_worker, told, name, note, pool
):
    start_worker("-n", name, "-c", "1", "-P", pool).ready()
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    told("ping")
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert [item["id"] for item in told("active")] == [held.id]
        took.append(time.monotonic() - began)
    assert sorted(took)[4] < 0.2, took
    go(note)
    assert held.get(30)


def test_a_worker_that_comes_later_learns_from_the_others_what_is_revoked(
    app, start_worker, worker, told, name
):
    revoked = str(uuid.uuid4())
    assert name in app.control.revoke(revoked, reply=True, timeout=10.0)
    later = f"{name}-later"
    start_worker("-n", later).ready()

    def known():
        return app.control.call("revoked", destination=[later], timeout=10.0).get(later, [])

    eventually(lambda: revoked in known())
