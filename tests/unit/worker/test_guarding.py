"""A part of a worker that fails ends the worker with its error, and no message is lost by that."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path

import pytest

from queue_core import Closed, Connection, Queue, TopologyMismatch
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from queue_core.worker.blueprint import ConsumerStep
from queue_core.worker.guarding import guarded
from queue_core.worker.outcome import Abandoned, Returned
from queue_core.worker.pools.coroutines import AsyncioPool
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.processes import ProcessPool
from queue_core.worker.pools.threads import SoloPool, ThreadPool
from queue_core.worker.runner import DRAINED, Worker, WorkerOptions
from queue_core.worker.timer import Timer
from tests.unit.worker.reports import runs

numbers = itertools.count()


class Broken(Exception):
    """A mistake of ours."""


@pytest.fixture
def app():
    made = App("guarded", broker=f"memory://guarded-{next(numbers)}")
    yield made
    made.close()


class Running:
    """A worker on a thread of the test, and what it ended with."""

    def __init__(self, app, pool, **options):
        self.worker = Worker(pool, WorkerOptions(broker=app.broker, control=False, **options))
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.worker.ready.wait(20.0)

    def _run(self):
        try:
            self.worker.run()
        except Exception as error:
            self.error = error

    def ended(self):
        self.thread.join(60.0)
        assert not self.thread.is_alive()
        return self.error


def fail(*_):
    raise Broken("the wheel came off")


def test_what_raises_is_told_once_and_raises_no_more(caplog):
    told = []
    guarded(fail, told.append)()
    (error,) = told
    assert isinstance(error, Broken)
    guarded(told.append, fail)(1)
    assert told[1:] == [1]


def test_two_threads_that_fail_at_once_end_the_worker_gently(app, monkeypatch):
    worker = Worker(ThreadPool(1, app), WorkerOptions(broker=app.broker))
    first, stop = iter([True]), worker.stop

    def stop_late():
        if next(first, False):
            other = threading.Thread(target=worker.fail, args=(Broken("the other wheel"),))
            others.append(other)
            other.start()
            other.join(0.1)  # it waits for this one
        stop()

    others = []
    monkeypatch.setattr(worker, "stop", stop_late)
    worker.fail(Broken("the wheel came off"))
    others[0].join(30)
    assert worker.stopping and not worker._signals.urgent
    worker._signals.close()


def test_who_leaves_a_thread_of_the_worker_ends_it_with_an_error(app):
    running = Running(app, ThreadPool(1, app))
    guarded(sys.exit, running.worker.fail)()
    error = running.ended()
    assert isinstance(error, RuntimeError) and "SystemExit" in str(error)


@pytest.mark.parametrize("pool", [ThreadPool, AsyncioPool, SoloPool])
def test_a_pool_that_fails_ends_the_worker_and_its_task_goes_to_another(app, pool, monkeypatch):
    @app.task
    async def wait() -> int:
        return 1

    @app.task
    def add() -> int:
        return 1

    run = "coroutines.job_steps" if pool is AsyncioPool else "runs.run_job"
    task = wait if pool is AsyncioPool else add
    with monkeypatch.context() as patched:
        patched.setattr(f"queue_core.worker.pools.{run}", fail)
        running = Running(app, pool(app) if pool is SoloPool else pool(1, app))
        result = task.delay()
        assert isinstance(running.ended(), Broken)
    other = Running(app, ThreadPool(1, app))
    assert result.get(20) == 1
    other.worker.stop()
    assert other.ended() is None


@pytest.fixture
def processes(jobs_here, ending):
    return ending(ProcessPool(1, Setup("pool_jobs:app", list(sys.path), None, "WARNING")))


def test_a_process_pool_that_fails_says_so_and_tells_of_every_job(
    processes, reports, monkeypatch, tmp_path
):
    failures = []
    processes.start(reports, fail=failures.append)
    jobs = [reports.job("wait_for", str(tmp_path / "gate")) for _ in range(3)]
    processes.submit(jobs[0])
    runs(tmp_path / "gate")
    pids = processes.pids
    monkeypatch.setattr(processes._supervisor, "turn", fail)
    processes.submit(jobs[1])
    assert isinstance(reports.outcome(jobs[0]), Abandoned)
    assert isinstance(reports.outcome(jobs[1]), Returned)
    assert [type(error) for error in failures] == [Broken]
    processes.submit(jobs[2])
    assert isinstance(reports.outcome(jobs[2]), Returned)
    assert processes.stop(5.0) is False
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_pool_that_fails_at_its_start_says_so_at_once(monkeypatch, processes, reports):
    monkeypatch.setattr(ProcessPool, "_turn", fail)
    with pytest.raises(Broken):
        processes.start(reports)
    assert processes.stop(0.0) is False


@pytest.fixture
def hanging(monkeypatch, tmp_path, ending):
    """A pool of an app whose import does not end."""
    (tmp_path / "hanging_app.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path(f'{__file__}.{os.getpid()}').touch()\n"
        "time.sleep(600)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return ending(ProcessPool(1, Setup("hanging_app:app", list(sys.path), None, "WARNING")))


def test_a_worker_that_is_stopped_while_its_app_is_imported_ends_at_once(hanging, tmp_path):
    worker = Worker(hanging, WorkerOptions(broker="memory://"))
    codes = []
    thread = threading.Thread(target=lambda: codes.append(worker.run()), daemon=True)
    thread.start()
    (mark,) = eventually(lambda: list(tmp_path.glob("hanging_app.py.*")))
    worker.stop()
    thread.join(30.0)
    assert codes == [DRAINED]
    assert not Path("/proc", mark.suffix[1:]).exists()


def test_a_worker_that_was_stopped_before_it_began_does_not_begin(hanging):
    worker = Worker(hanging, WorkerOptions(broker="memory://"))
    worker.stop()
    assert worker.run() == DRAINED


def test_a_timer_whose_thread_fails_says_so(monkeypatch):
    failures = []
    monkeypatch.setattr(Timer, "run_due", fail)
    timer = Timer(fail=failures.append)
    timer.start()
    eventually(lambda: [type(error) for error in failures] == [Broken])
    timer.stop()


def test_a_worker_whose_connection_somebody_closed_ends(app):
    running = Running(app, ThreadPool(1, app))
    running.worker.consumer.connection.close()
    assert isinstance(running.ended(), Closed)


def test_a_settler_that_fails_ends_the_worker(app, monkeypatch):
    @app.task
    def add() -> int:
        return 1

    monkeypatch.setattr("queue_core.worker.settler.Settler._send_replies", fail)
    running = Running(app, ThreadPool(1, app))
    add.delay()
    assert isinstance(running.ended(), Broken)
    assert app.connection().inspect(app.queue()).ready == 1


class Choking(ConsumerStep):
    """A step of the app that cannot cope with its messages."""

    def get_consumers(self, parent):
        queue = parent.connection.declare(Queue("letters"))
        yield parent.connection.consumer(queue), fail


def test_a_step_that_takes_no_more_messages_ends_the_worker(app):
    app.steps["consumer"].add(Choking)
    running = Running(app, ThreadPool(1, app))
    app.connection().producer().publish({}, "letters")
    assert isinstance(running.ended(), Broken)
    assert app.connection().inspect("letters").ready == 1


def test_a_queue_that_others_declared_anew_in_another_way_ends_the_worker_which_names_it(
    monkeypatch, caplog
):
    """What runs may finish, whichever queue it came from."""
    monkeypatch.setattr("queue_core.worker.consumer.consumer.TaskConsumer._delay", lambda self: 0.5)
    app = App("two", broker=f"memory://guarded-{next(numbers)}", queues=[Queue("a"), Queue("b")])
    gate, began = threading.Event(), threading.Event()

    @app.task(queue="a")
    def hold() -> str:
        began.set()
        gate.wait(20)
        return "done"

    running = Running(app, ThreadPool(1, app), queues=["a", "b"], drain=20.0)
    result = hold.delay()
    assert began.wait(20)
    connection = app.connection()
    connection.delete(Queue("b"))
    with Connection(app.broker) as other:
        other.declare(Queue("b", max_length=7))
        eventually(lambda: running.worker.stopping)
        assert "the worker ends: queue 'b' exists with other arguments" in caplog.text
        gate.set()
        error = running.ended()
        assert isinstance(error, TopologyMismatch)
        assert "'b'" in str(error) and "max_length is 7 there" in str(error)
        assert result.get(30) == "done"
        info = other.inspect("a")
        assert (info.ready, info.unacked) == (0, 0)
    app.close()
