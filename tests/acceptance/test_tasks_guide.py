"""The programs of the guide to tasks, as they stand there, on each broker."""

import contextlib
import os
import re
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path

import pytest

from queue_core import Connection, QueueCoreError
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.acceptance.conftest import WorkerProcess

GUIDE = Path(__file__).parents[2] / "docs" / "tasks.rst"
QUEUES = ("divide", "error")


def program(name: str) -> str:
    """The block of the guide that is this file."""
    found = re.search(
        rf"(?m)^   :name: {re.escape(name)}\n\n((?:(?:   .*)?\n)+)", GUIDE.read_text()
    )
    assert found, f"the guide has no {name}"
    return textwrap.dedent(found[1])


def delete_queues(url: str) -> None:
    with Connection(url) as connection:
        for queue in map(App().queue, QUEUES):
            for entity in (queue, queue.exchange):
                with contextlib.suppress(QueueCoreError):
                    connection.delete(entity)


@pytest.fixture
def folder(broker_url, tmp_path):
    """A folder with the programs, and nothing else; what they use at the broker is not there."""
    for name in ("divide_tasks.py", "divide_client.py"):
        (tmp_path / name).write_text(program(name))
    delete_queues(broker_url)
    yield tmp_path
    delete_queues(broker_url)


def when(log: str, words: str) -> datetime:
    """When a worker logged a line with these words."""
    line = next(line for line in log.splitlines() if words in line)
    return datetime.strptime(line.split()[0], "%H:%M:%S.%f")


def test_the_programs_of_the_guide_do_what_it_says(folder, broker_url):
    environment = {**os.environ, "QUEUE_CORE_URL": broker_url, "PYTHONUNBUFFERED": "1"}
    workers = {}
    try:
        for queue in QUEUES:
            arguments = ["-A", "divide_tasks:app", "-Q", queue, "-c", "1", "--lease", "10s"]
            workers[queue] = WorkerProcess(folder / f"{queue}.log", arguments, environment, folder)
        client = subprocess.run(
            [sys.executable, "divide_client.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = ["10 / 4 = 2.5", "1 / 0: division by zero"]
        assert client.stdout.splitlines() == lines, client.stderr

        error = "ZeroDivisionError('division by zero')"
        handled = rf"error_handler: [\w-]+ FAILURE {re.escape(error)} \[1, 0\]"
        eventually(lambda: re.search(handled, workers["error"].log), 30.0)
        divided = workers["divide"].log
        assert f"on_failure: {error}, the arguments were [1, 0]" in divided
        assert "show: 2.5" in divided and divided.count("show:") == 1
        assert "error_handler:" not in divided
        apart = when(divided, "failed divide") - when(divided, "done   divide")
        assert apart.total_seconds() > 0.5  # starts are a second apart, and so nearly are ends
    finally:
        for worker in workers.values():
            worker.kill()
