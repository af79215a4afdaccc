"""Apps and tasks on the memory broker, with the worker in this process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import pytest

from queue_core import (
    ConfigError,
    Connection,
    MessageError,
    Queue,
    Refused,
    UsageError,
)
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.runner import DRAINED, Worker, WorkerOptions

numbers = itertools.count()


@pytest.fixture
def app():
    made = App("unit", broker=f"memory://app-{next(numbers)}")
    yield made
    made.close()


def test_making_an_app_and_tasks_connects_to_nothing():
    app = App("lazy", broker="amqp://nobody@127.0.0.1:1//")

    @app.task
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3
    assert list(app.tasks) == [f"{__name__}.test_making_an_app_and_tasks_connects_to_nothing.add"]
    app.close()


def test_a_message_is_what_celery_would_send(app):
    @app.task(name="proj.add", queue="work")
    def add(a: int, b: int) -> int:
        return a + b

    result = add.apply_async((1, 2), priority=3, headers={"x": 1})
    with app.connection().consumer("work") as consumer:
        message = consumer.receive(30)
        assert message is not None
        message.ack()
    assert message.exchange == "" and message.routing_key == "work"
    assert message.properties.correlation_id == result.id == message.headers["id"]
    assert message.properties.priority == 3
    assert message.properties.content_type == "application/json"
    assert message.headers["task"] == "proj.add" and message.headers["x"] == 1
    assert message.payload == [
        [1, 2],
        {},
        dict.fromkeys(["callbacks", "errbacks", "chain", "chord"]),
    ]


def test_tasks_are_run_by_an_embedded_worker_and_stop_is_clean(app, run):
    @app.task
    def double(x: int) -> int:
        return 2 * x

    worker, thread, codes = run(size=2, control=True)
    results = [double.delay(x) for x in range(20)]
    assert [result.get(30) for result in results] == [2 * x for x in range(20)]
    worker.stop()
    thread.join(20.0)
    assert codes == [DRAINED]


def test_results_go_by_rpc_if_the_app_says_so(run):
    app = App("rpc", broker=f"memory://app-{next(numbers)}", backend="rpc://")

    @app.task
    def fail() -> None:
        raise KeyError("nothing")

    worker = Worker(ThreadPool(1, app), WorkerOptions(broker=app.broker))
    thread = threading.Thread(target=worker.run)
    thread.start()
    result = fail.delay()
    with pytest.raises(KeyError, match="nothing"):
        result.get(30)
    assert result.state == "FAILURE"
    worker.stop()
    thread.join(20.0)
    app.close()


def test_a_result_of_nobody_is_not_there_in_time(app):
    result = app.send_task("nobody.runs.this")
    assert result.state == "PENDING"
    with pytest.raises(TimeoutError, match=result.id):
        result.get(0.05)


def test_a_task_knows_its_parent(app, run):
    @app.task
    def child() -> list[object]:
        request = child.request
        return [request.root_id, request.parent_id]

    @app.task
    def parent() -> list[object]:
        return [parent.request.id, child.delay().id]

    run(size=2)
    parent_id, child_id = parent.delay().get(30)
    assert app.AsyncResult(child_id).get(30) == [parent_id, parent_id]


def test_outside_of_a_run_the_request_is_empty(app):
    @app.task(bind=True)
    def alone(self, how: str) -> tuple:
        request = self.request
        if how == "retry":
            raise self.retry(exc=KeyError(how))
        if how:
            getattr(self, how)(*(["x"] if how == "replace" else []))
        return request.id, request.args, request.retries, request.called_directly, request.task

    assert alone("") == ("", [], 0, True, alone.name)
    assert alone.apply(("",)).get()[3] is False and app.request is None
    with pytest.raises(KeyError, match="retry"):
        alone("retry")
    for how in ("update_state", "replace"):
        with pytest.raises(UsageError, match="has no request"):
            alone(how)


def test_an_ignored_result_cannot_be_asked_for(app):
    with pytest.raises(UsageError, match="ignored"):
        app.send_task("x", ignore_result=True).get(1)


def test_queues_of_the_app_are_declared_as_it_says(app):
    app = App(
        "own", broker=app.broker, queues=[Queue("own", max_length=1, overflow="reject-publish")]
    )
    app.send_task("x", queue="own", ignore_result=True)
    with pytest.raises(Refused, match="own"):
        app.send_task("x", queue="own", ignore_result=True)
    app.close()


def test_a_priority_goes_first_in_a_queue_with_priorities(app, run):
    order = []

    @app.task(queue=Queue("urgent", max_priority=9), ignore_result=True)
    def note(x: int) -> None:
        order.append(x)

    note.apply_async((1,))
    note.apply_async((2,), priority=9)
    run(queues=["urgent"], prefetch=1)
    eventually(lambda: len(order) == 2)
    assert order == [2, 1]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda app: app.send_task("x", "ab"), UsageError, "a sequence, not"),
        (lambda app: app.send_many("x", [()], task_id="1"), UsageError, "id of its own"),
        (lambda app: app.send_task("x", (object(),)), MessageError, "object"),
        (lambda app: app.send_task("x", priority=10), ConfigError, "priority"),
        (lambda app: app.send_task("x", serializer="jsn"), ConfigError, "json"),
        (lambda app: app.send_task("x", queue="amq.mine"), ConfigError, "amq"),
    ],
)
def test_a_wrong_call_is_refused_at_the_call(app, make, error, match):
    with pytest.raises(error, match=match):
        make(app)


def test_an_app_without_a_broker_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("QUEUE_CORE_URL", raising=False)
    with pytest.raises(ConfigError, match="QUEUE_CORE_URL"):
        App("none").send_task("x")


def test_two_functions_cannot_be_one_task(app):
    app.task(name="one")(os.getpid)
    with pytest.raises(ConfigError, match="two functions"):
        app.task(name="one")(os.getppid)


def test_a_coroutine_function_can_be_a_task(app):
    @app.task
    async def later(a: int) -> int:
        return a + 1

    assert later.apply((2,)).get() == 3


def test_the_broker_cannot_change_under_a_connected_app(app):
    app.send_task("x")
    with pytest.raises(UsageError, match="connected already"):
        app.use(broker="memory://other")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12 dislikes what we test
def test_a_forked_process_uses_a_connection_of_its_own(tmp_path):
    app = App("forked", broker=f"sqlite:///{tmp_path}/b.db")
    app.send_task("x", queue="q", ignore_result=True)
    child = os.fork()
    if child == 0:
        try:
            app.send_task("y", queue="q", ignore_result=True)
            app.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    app.send_task("z", queue="q", ignore_result=True)
    with Connection(app.broker) as connection:
        assert connection.inspect("q").ready == 3
    app.close()


def test_the_exit_of_a_forked_child_leaves_the_reply_queue_of_its_parent(tmp_path):
    script = """
import os, sys
from queue_core.worker import App

app = App("parent", broker=sys.argv[1], backend="rpc://")
app.send_task("t")
child = os.fork()
if not child:
    sys.exit(0)  # and run what is registered with atexit
os.waitpid(child, 0)
print(app.connection().inspect(app._sender.get().results().reply_to()).consumers)
app.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/q.db"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.returncode) == ("1\n", 0), ran.stderr


def test_what_waits_in_the_queues_of_an_app_is_deleted_if_it_says_so(app):
    app.config_from_object({"task_queues": {"mail": {}, "never.used": {}}})
    for queue, count in (("mail", 3), (None, 2), ("others", 1)):
        app.send_many("t", [(n,) for n in range(count)], queue=queue)
    assert app.control.purge() == 5 and app.control.discard_all() == 0
    assert app.connection().inspect("others").ready == 1
    assert app.control.purge("others", "no.such.queue") == 1
