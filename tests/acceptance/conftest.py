"""Real worker processes on real brokers, started and ended by the tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queue_core import Connection, QueueCoreError
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.freezing import freeze

HERE = Path(__file__).parent


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


class WorkerProcess:
    """One ``queue-core worker`` and what it logged."""

    def __init__(
        self,
        log: Path,
        arguments: list[str],
        environment: dict[str, str],
        folder: Path = HERE,
        *,
        session: bool = False,
    ) -> None:
        """Start it; with ``session`` as the leader of a group, as in a terminal."""
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "queue_core.worker.cli", "worker", *arguments],
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=session,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def children(self) -> list[int]:
        """The process ids of those that run tasks, by /proc: one process forks them all."""
        return [child for template in self.templates() for child in _children(template)]

    def templates(self) -> list[int]:
        """The process ids of those that fork children; there are two during a restart."""
        return _children(self.process.pid)

    def ready(self) -> WorkerProcess:
        eventually(lambda: self.process.poll() is not None or "ready in" in self.log, 60.0)
        assert self.process.poll() is None, self.log
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Let it stand still; its children go on."""
        freeze(self.process.pid)

    def end(self, within: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.log}") from None

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def peers() -> Path:
    """The programs of the environment in which celery and kombu are installed."""
    folder = HERE.parents[1] / ".venv-peers" / "bin"
    if not (folder / "celery").exists():
        pytest.fail("celery is missing; next: sh tools/peers.sh", pytrace=False)
    return folder


@pytest.fixture
def queue(broker_url: str) -> Iterator[str]:
    """The name of a queue of this test alone, which is deleted after it."""
    name = f"qc-test-worker-{uuid.uuid4().hex[:12]}"
    yield name
    with Connection(broker_url) as connection, contextlib.suppress(QueueCoreError):
        definition = App().queue(name)
        for entity in (definition, definition.exchange, App().queue(f"{name}.dlq")):
            connection.delete(entity)


@pytest.fixture
def backend() -> str | None:
    """Where the app and its workers want results; tests may override it."""
    return "rpc://"


@pytest.fixture
def app(broker_url: str, backend: str | None) -> Iterator[App]:
    """The sender's side: knows no task, sends by name."""
    sender = App("sender", broker=broker_url, backend=backend)
    yield sender
    sender.close()


@pytest.fixture
def lease() -> str:
    """How long a worker may stand still; tests that kill workers override it, to wait less."""
    return "10s"


@pytest.fixture
def start_worker(
    broker_url: str, queue: str, backend: str | None, lease: str, tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    """Start workers; ``start_worker("-c", "1")`` adds arguments. All end with the test."""
    started: list[WorkerProcess] = []

    def start(*arguments: str) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        common = ["-A", "jobs:app", "-Q", queue, "--lease", lease, "-c", "2"]
        environment = {"QUEUE_CORE_URL": broker_url, "JOBS_BACKEND": backend or ""}
        environment = {name: value for name, value in environment.items() if value}
        started.append(WorkerProcess(log, [*common, *arguments], environment))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    return alive


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """A file for tasks to write to; see `tests.acceptance.notes`."""
    return tmp_path / "note"
