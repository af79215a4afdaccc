"""Redis servers of one test's own, which it may fill, configure and kill."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from queue_core.testing.eventually import eventually
from queue_core.transport import SessionOptions
from queue_core.transports.redis import RedisStores
from queue_core.transports.redis.store import RedisStore
from queue_core.url import parse


class OwnServer:
    """A Redis process behind a unix socket in a folder of its own; keeps nothing unless asked."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        config = folder / "config"  # a sentinel wants one that it may write
        config.touch()
        self._command = [program, str(config), "--port", "0", "--unixsocket", str(self.socket)]
        self._command += ["--dir", str(folder), "--save", "", *options]
        self.client = redis.Redis(unix_socket_path=str(self.socket))
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        eventually(self._answers, 60.0, what="a redis-server that answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.exceptions.ConnectionError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


MakeServer = Callable[..., OwnServer]
OpenStore = Callable[..., RedisStore]


@pytest.fixture
def make_server(tmp_path: Path, redis_url: str) -> Iterator[MakeServer]:
    """Start a server with these options of its command line; it ends with the test."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("these tests start servers of their own; next: apt-get install redis-server")
    servers: list[OwnServer] = []

    def make(*options: str) -> OwnServer:
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(OwnServer(program, folder, *options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Open a handle on a URL; it is closed with the test."""
    stores: list[RedisStore] = []

    def open_one(url: str, **options: float) -> RedisStore:
        stores.append(RedisStores().open(parse(url), SessionOptions(**options)))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()
