"""The programs of the guide to tasks, as they stand, on each broker."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from queue_core import Connection
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.acceptance.conftest import WorkerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(broker_url, tmp_path):
    """The programs, with queues of the test's own."""
    queues = {name: f"qc-test-{name}-{uuid.uuid4().hex[:8]}" for name in ("divide", "error")}
    for name in ("divide_tasks.py", "divide_client.py"):
        text = (EXAMPLES / name).read_text()
        for queue, own in queues.items():
            assert f'queue="{queue}"' in text
            text = text.replace(f'queue="{queue}"', f'queue="{own}"')
        (tmp_path / name).write_text(text)
    yield tmp_path, queues
    with Connection(broker_url) as connection:
        for queue in map(App().queue, queues.values()):
            connection.delete(queue)
            connection.delete(queue.exchange)


def test_the_programs_of_the_guide_do_what_it_says(folder, broker_url):
    path, queues = folder
    environment = {**os.environ, "QUEUE_CORE_URL": broker_url, "PYTHONUNBUFFERED": "1"}
    workers = {}
    try:
        for name, queue in queues.items():
            arguments = ["-A", "divide_tasks:app", "-Q", queue, "-c", "1", "--lease", "2s"]
            workers[name] = WorkerProcess(path / f"{name}.log", arguments, environment, path)
        client = subprocess.run(
            [sys.executable, "divide_client.py"],
            cwd=path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert client.stdout.splitlines() == [
            "10 / 4 = 2.5",
            "1 / 0: division by zero",
            "100 / 5 / 2 = 10.0",
        ], client.stderr
        said = "ZeroDivisionError('division by zero'), the arguments were [1, 0]"
        assert f"on_failure: {said}" in workers["divide"].log
        handled = "FAILURE ZeroDivisionError('division by zero') [1, 0]"
        eventually(lambda: handled in workers["error"].log, 20.0)
        assert "error_handler:" not in workers["divide"].log
    finally:
        for worker in workers.values():
            worker.kill()
