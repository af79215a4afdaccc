"""Real processes under a test's control: started, spoken to, killed, and never left behind."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_core import Connection, Exchange, Queue, QueueCoreError
from queue_core.transports.sql.store import SqlStore
from tests import databases
from tests.freezing import freeze

HERE = Path(__file__).parent
PATIENCE = 30.0


class Script:
    """A Python script in a process of its own, which reads lines and writes lines."""

    def __init__(self, name: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / name), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, within: float = PATIENCE) -> str:
        """Return the next line; fail if none comes in time, or the process ended."""
        try:
            line = self._lines.get(timeout=within)
        except queue.Empty:
            raise AssertionError(f"no answer within {within} s") from None
        assert line, f"the process ended with {self.process.wait(30)}"
        return line.rstrip("\n")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def pause(self) -> None:
        """Let it stand still; it keeps its sockets."""
        freeze(self.process.pid)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it; nothing is left of it afterwards."""
        self.kill()
        self._reader.join(PATIENCE)
        for end in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                end.close()


class Actor(Script):
    """The process of `actor.py`: each method name of the Actor there is a command."""

    def __init__(self, url: str, lease: float = 30.0) -> None:
        super().__init__("actor.py")
        self.last: dict[str, Any] = {}
        self.url, self.lease = url, lease

    def tell(self, do: str, *, within: float = PATIENCE, **arguments: Any) -> Any:
        """Send a command and return its value; fail if it raised."""
        self.begin(do, **arguments)
        return self.finish(within)

    def begin(self, do: str, **arguments: Any) -> None:
        """Send a command without waiting for it."""
        self.say(json.dumps({"do": do, **arguments}))

    def finish(self, within: float = PATIENCE) -> Any:
        """Return the value of the command that was begun."""
        self.last = json.loads(self.hear(within))
        assert "error" not in self.last, self.last
        return self.last["value"]

    def error(self, do: str, *, within: float = PATIENCE, **arguments: Any) -> str:
        """Send a command; return the name of the error that it raised, or nothing."""
        self.begin(do, **arguments)
        self.last = json.loads(self.hear(within))
        return str(self.last.get("error", ""))


class Broker:
    """A broker that the test and its processes share, and names that are the test's own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.names: list[str] = []

    def name(self, stem: str) -> str:
        self.names.append(f"{stem}-{uuid.uuid4().hex[:10]}")
        return self.names[-1]

    def clean(self) -> None:
        with Connection(self.url) as connection:
            for name in self.names:
                for entity in (Queue(name), Exchange(name)):
                    with contextlib.suppress(QueueCoreError):
                        connection.delete(entity)


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    """Each broker that processes can share, in turn."""
    shared = Broker(broker_url)
    yield shared
    if broker_url.startswith("amqp"):
        shared.clean()


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    """Each database, in turn."""
    if request.param == "sqlite":
        return Broker(f"sqlite:///{tmp_path / 'queue.db'}")
    return Broker(request.getfixturevalue(f"{request.param}_broker"))


@pytest.fixture
def open_store() -> Iterator[Callable[..., SqlStore]]:
    """Open handles on databases, ``open_store(url)``; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_one(url: str, **options: Any) -> SqlStore:
            store = databases.open_store(url, **options)
            stack.callback(store.close)
            return store

        yield open_one


@pytest.fixture
def amqp(amqp_url: str) -> Iterator[Broker]:
    broker = Broker(amqp_url)
    yield broker
    broker.clean()


@pytest.fixture
def scripts() -> Iterator[Callable[..., Script]]:
    """Start scripts; they end with the test."""
    started: list[Script] = []

    def start(name: str, *arguments: object) -> Script:
        started.append(Script(name, *arguments))
        return started[-1]

    yield start
    for script in started:
        script.close()


@pytest.fixture
def actors() -> Iterator[Callable[..., list[Actor]]]:
    """Start actors on a broker, side by side; they end with the test."""
    started: list[Actor] = []

    def start(broker: Broker, count: int, lease: float = 30.0) -> list[Actor]:
        new = [Actor(broker.url, lease) for _ in range(count)]
        started.extend(new)
        for actor in new:
            actor.begin("open", url=actor.url, lease=lease)
        for actor in new:
            actor.finish()
        return new

    yield start
    for actor in started:
        actor.close()
