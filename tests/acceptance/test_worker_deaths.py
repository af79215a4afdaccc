"""What becomes of messages when a worker stops, or something of it is killed."""

from __future__ import annotations

import os
import signal
import time
from urllib.parse import urlsplit

import pytest

from queue_core import RemoteError
from queue_core.testing.eventually import eventually
from queue_core.testing.faults import FaultProxy
from tests.acceptance.notes import go, lines

POOLS = ["prefork", "threads", "solo"]


@pytest.fixture
def lease() -> str:
    return "2s"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("pool", POOLS)
def test_a_signal_lets_running_tasks_finish_and_gives_back_the_others(
    app, queue, start_worker, note, pool, number
):
    worker = start_worker("-P", pool, "-c", "1", "--prefetch", "4").ready()
    running = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    waiting = [app.send_task("jobs.start", (str(note),), queue=queue) for _ in range(3)]
    worker.signal(number)
    eventually(lambda: "stopping" in worker.log)  # else the task could end before it begins
    eventually(lambda: app.connection().inspect(queue).ready == 3, what="3 for others")
    go(note)
    assert worker.end() == 0, worker.log
    assert running.get(30)[1] is False
    assert len(lines(note)) == 1
    assert not any(result.ready() for result in waiting)
    start_worker().ready()
    assert all(result.get(30) for result in waiting)
    assert len(lines(note)) == 4


@pytest.mark.parametrize("broker_url", ["sqlite"], indirect=True)  # RabbitMQ does not count
def test_given_back_messages_do_not_count_as_attempts(app, queue, start_worker, note):
    worker = start_worker("-P", "prefork", "-c", "1", "--prefetch", "4").ready()
    app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    app.send_task("jobs.add", (1, 2), queue=queue)
    eventually(lambda: app.connection().inspect(queue).ready == 0)
    worker.signal(signal.SIGTERM)
    eventually(lambda: app.connection().inspect(queue).ready == 1, what="it is given back")
    go(note)
    assert worker.end() == 0
    with app.connection().consumer(queue, decode=False) as consumer:
        message = consumer.receive(30)
        assert message is not None and message.attempts == 1
        message.ack()


@pytest.mark.parametrize("pool", POOLS)
def test_a_second_signal_stops_now_and_loses_nothing(app, queue, start_worker, note, pool):
    worker = start_worker("-P", pool, "-c", "1", "--prefetch", "4", "--drain", "60s").ready()
    result = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    worker.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in worker.log)
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.end() == 9, worker.log
    assert time.monotonic() - began < 20.0
    go(note)
    start_worker("-P", pool).ready()
    assert result.get(30)[1] is True
    assert len(lines(note)) == 2


def test_the_drain_time_bounds_the_wait(app, queue, start_worker, note):
    worker = start_worker("--drain", "500ms").ready()
    app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    worker.signal(signal.SIGTERM)
    assert worker.end() == 9
    go(note)


def test_an_idle_worker_stops_at_once(start_worker):
    worker = start_worker().ready()
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
    assert time.monotonic() - began < 10.0


def test_a_killed_child_charges_the_message_that_it_ran_and_no_other(
    app, queue, start_worker, note
):
    worker = start_worker("-c", "1").ready()
    (child,) = eventually(worker.children)
    running = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 1)
    waiting = [app.send_task("jobs.start", (str(note),), queue=queue) for _ in range(3)]
    os.kill(child, signal.SIGKILL)
    eventually(lambda: len(lines(note)) >= 2)
    go(note)
    assert all(result.get(30) for result in waiting)
    assert running.get(30)[0] != child
    assert len(lines(note)) == 5  # each of the four once, and the charged one once more
    assert worker.process.poll() is None


def test_a_task_that_kills_its_process_once_is_done_the_second_time(app, queue, start_worker, note):
    start_worker().ready()
    assert app.send_task("jobs.die_once", (str(note),), queue=queue).get(30) == "alive"


def test_a_task_that_always_kills_its_process_is_given_up_the_third_time(
    app, queue, start_worker, note
):
    """Those that wait behind it and before it, in the same processes, are not charged with it."""
    start_worker("--prefetch", "100").ready()
    good = app.send_many("jobs.start", [(str(note),)] * 50, queue=queue)
    bad = app.send_task("jobs.die_always", queue=queue)
    good += app.send_many("jobs.start", [(str(note),)] * 50, queue=queue)
    with pytest.raises(RemoteError, match="crash loop: the process that ran it died 3 times"):
        bad.get(40)
    assert all(result.get(30) for result in good)
    assert len(lines(note)) == 100
    eventually(lambda: app.connection().inspect(f"{queue}.dlq").ready == 1)


def test_no_child_outlives_a_killed_worker(app, queue, start_worker, note, is_alive):
    worker = start_worker("-c", "2").ready()
    children = eventually(lambda: len(worker.children()) == 2 and worker.children())
    children += worker.templates()
    for _ in range(2):
        app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(lambda: len(lines(note)) == 2)
    worker.kill()
    eventually(lambda: not any(is_alive(child) for child in children))


def test_messages_of_a_killed_worker_go_to_another_within_lease_and_five_seconds(
    app, queue, start_worker, note, machine
):
    worker = start_worker("-c", "2", "--prefetch", "2").ready()
    other = start_worker("-c", "2", "--prefetch", "2").ready()
    results = [app.send_task("jobs.hold", (str(note),), queue=queue) for _ in range(4)]
    eventually(lambda: len(lines(note)) == 4)
    with machine.within(2.0, 5.0):
        worker.kill()
        go(note)
        values = [result.get(60) for result in results]
    assert sum(again for _, again in values) == 2
    assert len(lines(note)) == 6
    other.signal(signal.SIGTERM)
    assert other.end() == 0


@pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)  # SQLite has no connection to cut
def test_a_worker_survives_the_loss_of_its_connections(broker_url, app, queue, start_worker, note):
    server = urlsplit(broker_url)
    with FaultProxy(server.hostname or "127.0.0.1", server.port or 5672) as proxy:
        user, _, _ = server.netloc.rpartition("@")
        through = f"amqp://{user}@127.0.0.1:{proxy.port}{server.path}"
        worker = start_worker("-b", through, "-c", "6").ready()
        held = app.send_task("jobs.hold", (str(note),), queue=queue)
        eventually(lambda: len(lines(note)) == 1)
        for number in range(3):
            assert proxy.reset() > 0
            assert app.send_task("jobs.add", (number, 1), queue=queue).get(30) == number + 1
        go(note)
        assert held.get(30)
        assert len(lines(note)) == 1  # it came again each time, and the run went on
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0, worker.log
