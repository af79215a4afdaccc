"""Results with a real worker on a real broker: states, waiting, failures, what is kept."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from queue_core import Connection, RemoteError, TooLarge
from queue_core.testing.eventually import eventually
from queue_core.testing.faults import FaultProxy
from queue_core.worker import App, group
from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.results import key_value
from queue_core.worker.runner import Worker, WorkerOptions
from tests.acceptance import result_jobs

SERVERS = ["redis", "postgres", "mysql", "amqp"]


@pytest.fixture(autouse=True)
def no_looking(monkeypatch):
    """Who is not woken by a message would find the result only after a minute."""
    monkeypatch.setattr(key_value, "_FIRST", 60.0)
    for module in ("result", "groups"):
        monkeypatch.setattr(f"queue_core.worker.results.{module}.PATIENCE", 60.0)


@pytest.fixture
def store(broker_url, tmp_path):
    """Where results are kept: in the broker if that can be, else beside it."""
    with Connection(broker_url) as connection:
        return None if connection.features.key_value else f"sqlite:///{tmp_path}/results.db"


@pytest.fixture
def backend(store):
    return store


@pytest.fixture
def worker(broker_url, backend, queue):
    """A worker in this process, which is there at once."""
    yield from run_worker(broker_url, backend, queue)


def run_worker(url, backend, queue):
    app = result_jobs.make_app(url, backend)
    worker = Worker(ThreadPool(2, app), WorkerOptions(queues=[queue], lease=10.0))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    assert worker.ready.wait(30.0)
    yield worker
    worker.stop()
    thread.join(30.0)
    app.close()
    assert not thread.is_alive()


@pytest.fixture
def other(broker_url, backend):
    """An app that stands for another process: it has its own connection and reply queue."""
    made = App("other", broker=broker_url, backend=backend)
    yield made
    made.close()


@pytest.fixture
def send(app, queue):
    def send(name, *args, **options):
        return app.send_task(f"results.{name}", args, queue=queue, **options)

    return send


class Both:
    """What holds for results that are kept, and for those by rpc."""

    def test_sixteen_threads_wait_each_for_its_own(self, send, worker):
        def ask(number):
            return send("add", number, 1).get(30)

        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(ask, range(96))) == list(range(1, 97))

    def test_sixteen_threads_wait_for_the_same(self, app, send, worker, tmp_path):
        result = send("hold", f"{tmp_path}/go")
        with ThreadPoolExecutor(16) as threads:
            values = [threads.submit(app.AsyncResult(result.id).get, 30) for _ in range(16)]
            (tmp_path / "go").touch()
            assert [value.result(30) for value in values] == ["held"] * 16

    def test_coroutines_wait_without_blocking_their_loop(self, send, worker):
        async def ask():
            return await asyncio.gather(*(_waited(send("add", n, 1)) for n in range(40)))

        assert asyncio.run(ask()) == list(range(1, 41))

    def test_two_tasks_with_one_id_are_both_heard(self, send, worker, tmp_path):
        sent = [send("hold", f"{tmp_path}/go", task_id=str(tmp_path)) for _ in range(2)]
        eventually(lambda: all(result.state == "STARTED" for result in sent))
        (tmp_path / "go").touch()
        assert [result.get(30) for result in sent] == ["held", "held"]

    def test_a_task_that_runs_says_so(self, send, worker, tmp_path):
        result = send("hold", f"{tmp_path}/go")
        eventually(lambda: result.state == "STARTED")
        assert set(result.info) == {"pid", "hostname"} and not result.ready()
        (tmp_path / "go").touch()
        assert result.get(30) == "held" and result.state == "SUCCESS"

    def test_a_task_says_how_far_it_has_come(self, send, worker, tmp_path):
        result = send("climb", f"{tmp_path}/go")
        eventually(lambda: result.state == "PROGRESS")
        assert result.info == {"done": 3, "of": 10} and not result.ready()
        (tmp_path / "go").touch()
        assert result.get(30) == "there" and result.state == "SUCCESS"

    def test_an_ordinary_error_is_raised_as_itself(self, send, worker):
        result = send("divide", 1, 0)
        with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
            result.get(30)
        assert "result_jobs.py" in caught.value.__notes__[0]
        assert (result.state, result.args, result.name) == ("FAILURE", [1, 0], "results.divide")

    def test_the_programs_own_error_is_itself_only_where_that_is_allowed(self, app, send, worker):
        result = send("withdraw", 5)
        with pytest.raises(RemoteError, match="Overdrawn: 5, too much") as caught:
            result.get(30)
        assert isinstance(caught.value.__cause__, KeyError)
        app.allow_error(result_jobs.Overdrawn)
        with pytest.raises(result_jobs.Overdrawn) as again:
            result.get(30)
        assert again.value.args == (5, "too much")

    def test_a_result_that_is_too_large_is_a_failure(self, send, worker):
        assert len(send("large", 50_000).get(30)) == 50_000
        with pytest.raises(TooLarge, match="result_max_size"):
            send("large", 200_000).get(30)

    def test_a_revoked_task_says_so(self, app, send, worker, tmp_path):
        holding = [send("hold", f"{tmp_path}/go") for _ in range(2)]
        eventually(lambda: all(one.state == "STARTED" for one in holding))
        result = send("add", 1, 2)
        result.revoke()
        eventually(lambda: result.id in worker.revoked)
        (tmp_path / "go").touch()
        with pytest.raises(RemoteError, match="(?i)revoked"):
            result.get(30)
        assert result.state == "REVOKED" and result.ready() and not result.failed()

    def test_a_group_is_one_result(self, app, queue, worker):
        result = group(
            app.signature("results.add", (n, 1), queue=queue) for n in range(30)
        ).apply_async()
        assert result.get(30) == list(range(1, 31))
        assert result.completed_count() == 30 and result.successful()

    def test_a_group_tells_each_result_when_it_ends(self, app, queue, worker, tmp_path):
        calls = [("hold", (f"{tmp_path}/go",)), ("add", (1, 1)), ("add", (1, 2))]
        result = group(
            app.signature(f"results.{name}", args, queue=queue) for name, args in calls
        ).apply_async()
        values = result.iterate(30)
        assert sorted([next(values), next(values)]) == [2, 3]
        with pytest.raises(TimeoutError, match="no result of 1 task of"):
            list(result.iterate(0.2))
        (tmp_path / "go").touch()
        assert list(values) == ["held"]
        assert sorted(map(str, result.iterate())) == ["2", "3", "held"]
        assert result[1].queue == queue and result[1].worker


async def _waited(result):
    return await result


class TestByRpc(Both):
    @pytest.fixture
    def backend(self):
        return "rpc://"


class TestKept(Both):
    def test_another_process_is_woken_too(self, other, send, worker, tmp_path):
        result = send("hold", f"{tmp_path}/go")
        with ThreadPoolExecutor(2) as threads:
            values = [threads.submit(app.get, 30) for app in (result, other.AsyncResult(result.id))]
            eventually(lambda: result.state == "STARTED")
            time.sleep(0.2)  # both wait
            (tmp_path / "go").touch()
            assert [value.result(30) for value in values] == ["held", "held"]

    def test_of_the_same_call_by_several_senders_at_once_one_is_run(
        self, app, other, queue, worker
    ):
        def declare(sender):
            @sender.task(name="results.add", queue=queue, unique_for=60)
            def add(a: int, b: int) -> int: ...

            return add

        tasks = [declare(app), declare(other)]
        with ThreadPoolExecutor(8) as threads:
            sent = list(threads.map(lambda number: tasks[number % 2].delay(1, 2), range(16)))
        assert len({result.id for result in sent}) == 1
        assert [result.get(30) for result in sent] == [3] * 16
        assert tasks[0].delay(2, 2).get(30) == 4
        eventually(lambda: dict(worker.consumer.ended()) == {"done": 2})

    def test_a_call_may_be_repeated_when_its_time_is_over(self, app, queue, worker):
        @app.task(name="results.add", queue=queue, unique_for=0.5)
        def add(a: int, b: int) -> int: ...

        first = add.delay(1, 2)
        again = eventually(lambda: (found := add.delay(1, 2)) != first and found)
        assert [result.get(30) for result in (first, again)] == [3, 3]

    def test_an_unknown_id_is_not_pending(self, other, worker):
        result = other.AsyncResult("there-is-no-such-task")
        with pytest.raises(TimeoutError):
            result.get(0.1)
        assert result.state == "UNKNOWN" and not result.known

    def test_only_the_errors_of_a_task_are_kept_if_it_says_so(self, other, send, worker):
        good, bad = send("only_errors", False), send("only_errors", True)
        with pytest.raises(ZeroDivisionError):
            other.AsyncResult(bad.id).get(30)
        assert other.AsyncResult(good.id).state == "UNKNOWN"

    def test_a_group_is_found_again(self, app, other, queue, worker):
        sent = group(
            app.signature("results.add", (n, 1), queue=queue) for n in range(3)
        ).apply_async()
        sent.save()
        assert other.GroupResult(sent.id).get(30) == [1, 2, 3]

    def test_what_a_task_sent_is_collected(self, other, queue, send, worker):
        result = other.AsyncResult(send("parent", queue).id)
        assert sorted(value for _, value in result.collect(30)) == [1, 2, 2]

    def test_a_result_is_forgotten(self, other, send, worker):
        result = send("add", 1, 2)
        assert result.get(30) == 3
        other.AsyncResult(result.id).forget()
        assert other.AsyncResult(result.id).state == "UNKNOWN"


class TestStoreThatIsDown:
    @pytest.fixture
    def backend(self, tmp_path):
        return f"sqlite:///{tmp_path}/results.db"

    def test_no_task_is_acked_before_its_result_is_kept(
        self, broker_url, app, send, worker, queue, tmp_path
    ):
        assert send("add", 1, 1).get(30) == 2
        lock = sqlite3.connect(f"{tmp_path}/results.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        try:
            result = send("add", 2, 2)
            eventually(lambda: not worker.consumer.settler.idle)
            time.sleep(0.5)
            assert not worker.consumer.settler.idle
            counts = app.connection().inspect(queue)
            assert counts.unacked == 1 or broker_url.startswith("amqp")  # which does not tell
        finally:
            lock.execute("ROLLBACK")
            lock.close()
        assert result.get(60) == 4
        eventually(lambda: worker.consumer.settler.idle)
        eventually(lambda: not app.connection().inspect(queue).unacked)


@pytest.mark.parametrize("broker_url", SERVERS, indirect=True)
@pytest.mark.parametrize("way", ["rpc", "kept"])
def test_who_waits_is_found_again_after_its_connections_broke(
    broker_url, queue, store, way, tmp_path
):
    backend = "rpc://" if way == "rpc" else store
    server = urlsplit(broker_url)
    with FaultProxy(server.hostname or "127.0.0.1", server.port or 0) as proxy:
        user, _, _ = server.netloc.rpartition("@")
        place = f"{user}@127.0.0.1:{proxy.port}" if user else f"127.0.0.1:{proxy.port}"
        app = App("waiting", broker=server._replace(netloc=place).geturl(), backend=backend)
        workers = run_worker(broker_url, backend, queue)
        next(workers)
        try:
            result = app.send_task("results.hold", (f"{tmp_path}/go",), queue=queue)
            with ThreadPoolExecutor(1) as threads:
                value = threads.submit(result.get, 50)
                eventually(lambda: result.state == "STARTED")
                time.sleep(0.2)
                assert proxy.reset() > 0
                (tmp_path / "go").touch()
                assert value.result(60) == "held"
        finally:
            app.close()
            for _ in workers:
                pass
