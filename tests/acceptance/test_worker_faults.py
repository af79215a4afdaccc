"""Worker processes that end at the worst moment, under load, or get what nobody should send."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from queue_core import Queue, RemoteError
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.acceptance.conftest import WorkerProcess
from tests.acceptance.notes import lines

FEW = pytest.mark.parametrize("broker_url", ["sqlite", "amqp"], indirect=True)
"""For what depends on a broker a little, and costs seconds."""


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """There as soon as somebody has imported the module ``canary``."""
    return tmp_path / "canary"


@pytest.fixture
def app(broker_url, queue):
    """The sender's side; it defines the queue as the workers do."""
    sender = App(
        "sender", broker=broker_url, backend="rpc://", queues=[Queue(queue, max_deliveries=3)]
    )
    yield sender
    sender.close()


@pytest.fixture
def start(broker_url, queue, tmp_path, canary):
    """Start a worker with the tasks of `fault_jobs`."""
    started = []

    def start(*arguments, queues=()):
        names = queues or [queue]
        common = ["-A", "fault_jobs:app", "-Q", ",".join(names), "--lease", "2s"]
        environment = {
            "QUEUE_CORE_URL": broker_url,
            "JOBS_BACKEND": "rpc://",
            "FAULT_QUEUES": " ".join(names),
            "CANARY": str(canary),
        }
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(WorkerProcess(log, [*common, "-c", "2", *arguments], environment))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def send(app, queue):
    """Send a task by its short name."""
    return lambda name, *args, **options: app.send_task(
        f"fault_jobs.{name}", args, queue=queue, **options
    )


@FEW
def test_w2_a_worker_killed_when_it_has_just_taken_messages_loses_none(start, send, note, tmp_path):
    killed = start().ready()
    headers = {"killed": f"{tmp_path}/killed"}
    results = [send("claimed", str(note), headers=headers) for _ in range(5)]
    assert killed.end() == -signal.SIGKILL
    assert lines(note) == []
    start()
    assert all(result.get(40) is not None for result in results)
    assert lines(note) == ["run"] * 5


def test_w3_a_worker_killed_between_a_task_and_its_ack_loses_nothing(start, send, note, tmp_path):
    killed = start().ready()
    result = send("unacked", str(note), headers={"killed": f"{tmp_path}/killed"})
    assert killed.end() == -signal.SIGKILL
    assert lines(note) == ["run"] and not result.ready()
    start()
    assert result.get(40) is True
    assert lines(note) == ["run", "run"]


def test_w12_a_signal_under_load_repeats_and_loses_nothing(app, queue, start, send, note):
    worker = start("--prefetch", "40").ready()
    results = app.send_many(
        "fault_jobs.brief", [(str(note), number) for number in range(400)], queue=queue
    )
    eventually(lambda: len(lines(note)) > 40, 30.0)
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0, worker.log
    ran = len(lines(note))
    assert ran < 400, "the signal came too late"
    eventually(lambda: app.connection().inspect(queue).ready == 400 - ran)
    start()
    again = [result.get(60) for result in results]
    assert sorted(map(int, lines(note))) == list(range(400))
    if app.connection().features.attempts:  # RabbitMQ's own flag says it of all that came back
        assert not any(again)


@FEW
def test_w13_a_second_signal_under_load_repeats_only_what_ran(app, queue, start, send, note):
    worker = start("--prefetch", "40", "--drain", "60s").ready()
    held = [send("hold", f"{note}-held") for _ in range(2)]
    rest = app.send_many(
        "fault_jobs.brief", [(str(note), number) for number in range(60)], queue=queue
    )
    eventually(lambda: len(lines(Path(f"{note}-held"))) == 2, 30.0)
    worker.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in worker.log)
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.end() == 9, worker.log
    assert time.monotonic() - began < 20.0
    assert lines(note) == []
    Path(f"{note}-held.go").touch()
    start()
    assert [result.get(40) for result in held] == [True, True]
    assert all(result.get(40) is not None for result in rest)
    assert sorted(map(int, lines(note))) == list(range(60))
    assert len(lines(Path(f"{note}-held"))) == 4


def test_a17_a_poison_message_takes_no_other_with_it(app, queue, start, send, note):
    """The queue counts deliveries: who is charged by mistake three times is a dead letter, too."""
    worker = start("-c", "1", "--prefetch", "20").ready()
    before = [send("add", number, 1) for number in range(10)]
    poison = send("die", f"{note}-died")
    after = [send("add", number, 1) for number in range(10, 20)]
    with pytest.raises(RemoteError, match="crash loop|delivery"):
        poison.get(60)
    assert [result.get(40) for result in [*before, *after]] == list(range(1, 21))
    assert len(lines(Path(f"{note}-died"))) == 3
    eventually(lambda: app.connection().inspect(f"{queue}.dlq").ready == 1)
    eventually(lambda: app.connection().inspect(queue).ready == 0)
    assert worker.process.poll() is None


@FEW
def test_b9_a_name_in_a_message_is_looked_up_and_never_imported(start, send, app, queue, canary):
    worker = start().ready()
    for name in ("canary.sing", "canary:sing", "os.system", "fault_jobs.os.system"):
        with pytest.raises(RemoteError, match="there is no task"):
            app.send_task(name, ("true",), queue=queue).get(30)
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), (("a", 1), {})):
        with pytest.raises(TypeError):
            app.send_task("fault_jobs.add", args, kwargs, queue=queue).get(30)
    assert send("add", 1).get(30) == 1
    assert not canary.exists()
    eventually(lambda: app.connection().inspect(f"{queue}.dlq").ready == 4)
    assert worker.process.poll() is None


@FEW
def test_b10_b19_what_a_task_returns_or_raises_is_told_as_text_or_not_at_all(
    app, queue, start, send, tmp_path
):
    start().ready()
    with pytest.raises(Exception, match="(?i)serialis|cannot be sent|JSON|object"):
        send("odd").get(30)
    with pytest.raises(RemoteError, match="Unspeakable"):
        send("unspeakable").get(30)
    with pytest.raises(RemoteError, match="system"):
        send("named", f"touch {tmp_path}/called").get(30)
    assert not (tmp_path / "called").exists()
    assert send("add", 1, 2).get(30) == 3
    eventually(lambda: app.connection().inspect(queue).ready == 0)
