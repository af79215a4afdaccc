"""Settings, routes and annotations of a real worker, on each broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from queue_core import Connection
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.acceptance.conftest import WorkerProcess

HERE = Path(__file__).parent

OLD = """
BROKER_URL = {url!r}
CELERY_RESULT_BACKEND = "rpc://"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_DEFAULT_QUEUE = {usual!r}
CELERY_ROUTES = {{"settings_jobs.divide": {divide!r}, "*error*": {{"queue": {error!r}}}}}
CELERY_ANNOTATIONS = {{"settings_jobs.now": {{"rate_limit": "1/s"}}}}
CELERY_TASK_RESULT_EXPIRES = 3600
CELERYD_CONCURRENCY = 3
BROKER_POOL_LIMIT = 10
"""


class Place(NamedTuple):
    """A folder with tasks and their settings, and queues of the test's own."""

    folder: Path
    queues: dict[str, str]
    environment: dict[str, str]

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "queue_core.worker.cli", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )


@pytest.fixture
def place(broker_url: str, tmp_path: Path) -> Iterator[Place]:
    mark = uuid.uuid4().hex[:8]
    queues = {name: f"qc-test-{name}-{mark}" for name in ("usual", "divide", "error")}
    (tmp_path / "settings_of_old.py").write_text(OLD.format(url=broker_url, **queues))
    (tmp_path / "settings_jobs.py").write_text((HERE / "settings_jobs.py").read_text())
    clean = {name: value for name, value in os.environ.items() if "QUEUE_CORE" not in name}
    yield Place(tmp_path, queues, {**clean, "PYTHONUNBUFFERED": "1"})
    with Connection(broker_url) as connection:
        for queue in map(App().queue, queues.values()):
            connection.delete(queue)
            connection.delete(queue.exchange)


@pytest.fixture
def start(place: Place) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def begin(*arguments: str) -> WorkerProcess:
        common = ["-A", "settings_jobs:app", "--lease", "10s", *arguments]
        log = place.folder / f"worker-{len(started)}.log"
        started.append(WorkerProcess(log, common, place.environment, place.folder))
        return started[-1]

    yield begin
    for worker in started:
        worker.kill()


@pytest.fixture
def sender(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """A program without the tasks, but with the same settings."""
    monkeypatch.syspath_prepend(str(place.folder))
    monkeypatch.delitem(sys.modules, "settings_of_old", raising=False)
    found = App("sender", settings="settings_of_old")
    yield found
    found.close()
    monkeypatch.delitem(sys.modules, "settings_of_old", raising=False)


def test_routes_send_each_task_to_the_worker_that_takes_from_its_queue(
    place: Place, start: Callable[..., WorkerProcess], sender: App
) -> None:
    dividing = start("-Q", place.queues["divide"], "-c", "1").ready()
    handling = start("-Q", place.queues["error"], "-c", "1").ready()
    assert sender.send_task("settings_jobs.divide", (8, 2)).get(20) == 4.0
    handler = sender.signature("settings_jobs.error_handler")
    failing = sender.send_task("settings_jobs.divide", (1, 0), link_error=handler)
    with pytest.raises(ZeroDivisionError):
        failing.get(20)
    eventually(lambda: "handled FAILURE [1, 0]" in handling.log)
    assert "handled" not in dividing.log


def test_an_annotation_limits_the_rate_and_the_app_says_how_many_children(
    place: Place, start: Callable[..., WorkerProcess], sender: App
) -> None:
    worker = start().ready()
    assert "3 at once" in worker.log
    assert sender.send_task("settings_jobs.some_settings").get(20) == [3, "1/s"]
    started = sorted(result.get(20) for result in sender.send_many("settings_jobs.now", [()] * 3))
    assert started[-1] - started[0] > 1.5


def test_a_file_says_which_pool_and_goes_before_the_module(
    place: Place, start: Callable[..., WorkerProcess]
) -> None:
    (place.folder / "queue-core.toml").write_text(
        'worker_pool = "threads"\nworker_concurrency = 5\nworker_drain = "3s"\n'
    )
    worker = start().ready()
    assert "threads, 5 at once" in worker.log


def test_limits_of_the_settings_hold_unless_the_command_line_says_others(
    place: Place, start: Callable[..., WorkerProcess], sender: App
) -> None:
    (place.folder / "queue-core.toml").write_text(
        'task_time_limit = "1s"\nworker_max_tasks_per_child = 1\n'
    )
    worker = start("-c", "1").ready()
    assert "1 at once" in worker.log
    with pytest.raises(Exception, match="1 s"):
        sender.send_task("settings_jobs.sleep", (30,)).get(20)
    pids = {sender.send_task("settings_jobs.pid").get(20) for _ in range(2)}
    assert len(pids) == 2
    worker.kill()
    start("-c", "1", "--time-limit", "20s").ready()
    assert sender.send_task("settings_jobs.sleep", (1.5,)).get(20) is None


def test_settings_are_shown_with_their_places_and_without_passwords(place: Place) -> None:
    (place.folder / "queue-core.toml").write_text('result_expires = "2h"\n')
    done = place.command(
        "config",
        "show",
        "-A",
        "settings_jobs:app",
        "--origin",
        QUEUE_CORE_URL="amqp://shop:s3cret@nowhere//",
    )
    assert done.returncode == 0, done.stderr
    assert "s3cret" not in done.stdout
    lines = done.stdout.splitlines()
    assert "broker_url = 'amqp://shop:***@nowhere//'    # $QUEUE_CORE_URL" in lines
    assert "result_expires = 7200.0    # queue-core.toml:1" in lines
    module = place.folder / "settings_of_old.py"
    assert f"worker_concurrency = 3    # {module}:9" in lines
    assert any(line.startswith("# broker_pool_limit = 10") for line in lines)
    shown = place.command("config", "show", "-A", "settings_jobs:app", "--json")
    told = json.loads(shown.stdout)
    assert told["settings"]["worker_concurrency"]["value"] == "3"
    assert list(told["needless"]) == ["broker_pool_limit"]


def test_config_check_finds_what_is_wrong_and_says_where(place: Place) -> None:
    good = place.command("config", "check", "-A", "settings_jobs:app")
    assert good.returncode == 0, good.stderr
    assert good.stdout.endswith("settings\n")
    (place.folder / "queue-core.toml").write_text('\ntask_default_que = "x"\n')
    for arguments in (["config", "check"], ["worker", "-A", "settings_jobs:app"]):
        wrong = place.command(*arguments)
        assert wrong.returncode == 78, wrong.stderr
        assert wrong.stderr.splitlines() == [
            "error:   there is no setting task_default_que (queue-core.toml:2)",
            "try:     did you mean task_default_queue?",
        ]
    other = place.folder / "other.toml"
    other.write_text("worker_concurrency = 0\n")
    named = place.command("config", "check", "--config", str(other))
    assert named.returncode == 78
    assert f"worker_concurrency ({other}:1)" in named.stderr
    assert "Traceback" not in named.stderr


def test_route_explain_names_the_rule(place: Place) -> None:
    asked = ["route", "explain", "settings_jobs.divide", "-A", "settings_jobs:app"]
    done = place.command(*asked)
    assert done.returncode == 0, done.stderr
    assert f"queue     {place.queues['divide']}" in done.stdout
    assert "because   task_routes['settings_jobs.divide'] (" in done.stdout
    told = json.loads(place.command(*asked, "--json").stdout)
    assert told["queue"] == told["routing_key"] == place.queues["divide"]
    missing = place.command("route", "explain", "nobody", "-A", "settings_jobs:app")
    assert missing.returncode == 0
    assert "it can only send it" in missing.stderr
    assert f"queue     {place.queues['usual']}" in missing.stdout


def test_an_app_that_wants_another_pool_than_was_started_says_how(place: Place) -> None:
    with (place.folder / "settings_of_old.py").open("a") as file:
        file.write('CELERYD_POOL = "threads"\n')
    done = place.command("worker", "-A", "settings_jobs:app")
    assert done.returncode == 78, done.stderr
    assert "say -P threads" in done.stderr and "Traceback" not in done.stderr
