"""A worker process on a real broker: tasks, results, failures."""

from __future__ import annotations

import pytest

from queue_core import Queue, RemoteError, Unsupported
from queue_core.testing.eventually import eventually

POOLS = ["prefork", "threads", "solo"]


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_are_done_and_their_results_come_back(app, queue, start_worker, pool):
    start_worker("-P", pool).ready()
    results = [app.send_task("jobs.add", (number, 1), queue=queue) for number in range(50)]
    assert [result.get(30) for result in results] == [number + 1 for number in range(50)]
    assert all(result.state == "SUCCESS" for result in results)


def test_many_tasks_are_sent_at_once(app, queue, start_worker):
    start_worker().ready()
    results = app.send_many("jobs.add", [(number, 1) for number in range(500)], queue=queue)
    assert sum(result.get(30) for result in results) == sum(range(1, 501))


def test_a_failure_is_raised_where_it_is_waited_for_with_the_remote_traceback(
    app, queue, start_worker
):
    start_worker().ready()
    result = app.send_task("jobs.fail", ("bad input",), queue=queue)
    with pytest.raises(ValueError, match="bad input") as caught:
        result.get(30)
    assert caught.value.args == ("bad input", 7)
    assert "jobs.py" in caught.value.__notes__[0]
    assert result.failed() and "in fail" in result.traceback


@pytest.mark.parametrize("pool", POOLS)
def test_an_unknown_task_fails_and_its_message_is_kept_with_the_reason(
    app, queue, start_worker, pool
):
    worker = start_worker("-P", pool).ready()
    with pytest.raises(RemoteError, match=r"there is no task 'jobs\.ad'; did you mean 'jobs\.add'"):
        app.send_task("jobs.ad", (1, 2), queue=queue).get(30)
    dead = read_dead_letter(app, queue)
    assert dead.headers["task"] == "jobs.ad"
    assert "there is no task" in dead.headers["qc-error"]
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(30) == 3
    assert worker.process.poll() is None


@pytest.mark.parametrize("pool", POOLS)
def test_unreadable_messages_are_kept_and_the_worker_goes_on(app, queue, start_worker, pool):
    worker = start_worker("-P", pool).ready()
    producer = app.connection().producer()
    producer.publish(b"{", queue, content_type="application/json", headers={"task": "jobs.add"})
    producer.publish(b"x", queue, content_type="application/x-python-serialize")
    producer.publish({"no": "task"}, queue)
    reasons = [read_dead_letter(app, queue).headers["qc-error"].split(":")[0] for _ in range(3)]
    assert sorted(reasons) == ["ContentDisallowed", "DecodeError", "DecodeError"]
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(30) == 3
    assert worker.process.poll() is None


def test_a_queue_that_was_deleted_is_made_again_on_both_sides(app, queue, start_worker):
    worker = start_worker().ready()
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(30) == 3
    app.connection().delete(app.queue(queue))
    eventually(lambda: "declared again" in worker.log)
    assert app.send_task("jobs.add", (2, 2), queue=queue).get(30) == 4


def test_a_task_can_send_tasks(app, queue, start_worker):
    start_worker().ready()
    task_id = app.send_task("jobs.relay", (4, queue), queue=queue).get(30)
    assert len(task_id) == 36
    eventually(lambda: app.connection().inspect(queue).ready == 0)


def test_an_ignored_result_is_not_sent(app, queue, start_worker):
    start_worker().ready()
    app.send_task("jobs.fail", ("x",), queue=queue, ignore_result=True)
    assert app.send_task("jobs.add", (1, 2), queue=queue).get(30) == 3


def test_countdown_is_kept_by_the_broker_or_refused_at_the_call(app, queue, start_worker):
    if not app.connection().connect().features.delay:
        with pytest.raises(Unsupported, match="delay"):
            app.send_task("jobs.add", (1, 2), queue=queue, countdown=1.0)
        return
    start_worker().ready()
    result = app.send_task("jobs.add", (1, 2), queue=queue, countdown=1.0)
    with pytest.raises(TimeoutError):
        result.get(0.5)
    assert result.get(20) == 3


def test_the_right_arguments_are_checked_where_the_task_is_known(app):
    @app.task
    def pair(a: int, b: int) -> int:
        return a + b

    with pytest.raises(TypeError, match=r"missing a required argument: 'b'"):
        pair.delay(1)  # type: ignore[call-arg]


class TestKeyValueResults:
    """Results in a key-value store: the broker's own, or one beside it."""

    @pytest.fixture
    def backend(self, broker_url, tmp_path):
        return None if broker_url.startswith("sqlite") else f"sqlite:///{tmp_path}/results.db"

    def test_any_process_can_read_them(self, app, queue, start_worker, backend):
        start_worker().ready()
        done = app.send_task("jobs.add", (1, 2), queue=queue)
        failed = app.send_task("jobs.fail", ("x",), queue=queue)
        assert done.get(30) == 3
        with pytest.raises(ValueError, match="x"):
            failed.get(30)
        again = app.AsyncResult(done.id)
        assert again.ready() and again.get(1) == 3

    def test_an_unknown_task_is_stored_as_failed(self, app, queue, start_worker):
        start_worker().ready()
        with pytest.raises(RemoteError, match="NotRegistered"):
            app.send_task("jobs.nothing", queue=queue).get(30)


def test_by_rpc_another_process_cannot_ask_for_a_result(app):
    with pytest.raises(Unsupported, match="name a backend"):
        app.AsyncResult("3f2c5e4c-0a4e-4b6e-8f5e-0d7f6a1c2b3d")


def read_dead_letter(app, queue):
    connection = app.connection()
    connection.declare(Queue(f"{queue}.dlq"))
    with connection.consumer(f"{queue}.dlq", prefetch=1, decode=False) as consumer:
        message = consumer.receive(20)
        assert message is not None, "nothing among the dead letters"
        message.ack()
        consumer.flush()
        return message
