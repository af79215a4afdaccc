"""A broker that is started anew in the middle of a call: an answer or the deadline; the next works.

The servers are the tests' own. RabbitMQ forgets nodes' and reply queues, which are not durable; the
others are killed and keep their data.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
import redis

from queue_core import Backoff, Connection, NotConfirmed, TransportError
from queue_core.mailbox import Mailbox
from queue_core.testing import eventually
from tests.own_mariadb import OwnMariaDB

QUICK = Backoff(base=0.05, cap=0.5)


class OwnRabbitMQ:
    """A node whose broker stops and starts while Erlang goes on."""

    def __init__(self, server) -> None:
        self.url = server.url
        self._command = [*server.control, "rabbitmqctl", "-q"]
        self._environment = server.control_environment

    def restart(self) -> None:
        for word in ("stop_app", "start_app"):
            subprocess.run(
                [*self._command, word],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                timeout=90,
            )


class OwnRedis:
    """A server that writes down what it is told, and is killed."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("this test starts a Redis; next: apt-get install redis-server")
        self.url = f"unix://{folder}/s"
        self._client = redis.Redis(unix_socket_path=f"{folder}/s")
        self._command = [
            program,
            "--port",
            "0",
            "--unixsocket",
            f"{folder}/s",
            "--dir",
            str(folder),
        ]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        eventually(self._answers, 30)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.exceptions.ConnectionError:
            return False

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def restart(self) -> None:
        self.stop()
        self._start()

    def close(self) -> None:
        self._client.close()
        self.stop()


class OwnPostgreSQL:
    """A server that ends all its processes when one is killed, and recovers from its log."""

    def __init__(self, url: str) -> None:
        self.url = url

    def restart(self) -> None:
        with psycopg.connect(self.url) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg.Error):
                victim.execute("SELECT 1")
            victim.close()


class Restarting(Protocol):
    """A server of a test's own."""

    url: str

    def restart(self) -> None: ...


@pytest.fixture(params=["redis", "rabbitmq", "postgresql", "mariadb"])
def server(request, tmp_path) -> Iterator[Restarting]:
    if request.param == "redis":
        request.getfixturevalue("redis_url")
        own = OwnRedis(tmp_path)
        yield own
        own.close()
    elif request.param == "rabbitmq":
        request.getfixturevalue("amqp_url")
        yield OwnRabbitMQ(request.getfixturevalue("start_server")("rabbitmq", "RabbitMQ"))
    elif request.param == "postgresql":
        request.getfixturevalue("postgres_url")
        start = request.getfixturevalue("start_server")
        yield OwnPostgreSQL(start("postgresql", "PostgreSQL").url)
    else:
        request.getfixturevalue("mysql_url")
        with tempfile.TemporaryDirectory(prefix="queue-core-mariadb-") as folder:
            mariadb = OwnMariaDB(Path(folder))
            yield mariadb
            mariadb.kill()


@pytest.mark.timeout(180)
def test_a_call_through_a_restart_ends_in_time_and_the_next_is_answered(server):
    namespace = f"qc-test-{uuid.uuid4().hex[:8]}"
    asked = threading.Event()
    with (
        Connection(server.url, backoff=QUICK) as theirs,
        Connection(server.url, backoff=QUICK) as ours,
        Mailbox(namespace, theirs) as far,
        Mailbox(namespace, ours) as box,
        far.node("a") as node,
    ):

        @node.handler
        def slow(state: object) -> str:
            asked.set()
            time.sleep(1.0)
            return "done"

        assert box.call(["a"], "ping", timeout=10)["a"] == {"ok": "pong"}
        took: list[float] = []

        def ask() -> None:
            begun = time.monotonic()
            try:
                box.call(["a"], "slow", timeout=5.0)
            finally:
                took.append(time.monotonic() - begun)

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(30)
        server.restart()
        thread.join(30)
        assert took
        assert took[0] < 8.0

        def answers() -> bool:
            try:
                return "a" in box.call(["a"], "ping", timeout=1.0)
            except (NotConfirmed, TransportError):
                return False

        eventually(answers, 60)
        assert dict(box.multi_call("ping", timeout=10)) == {"a": {"ok": "pong"}}
        assert node.counts["handled"] > 0
