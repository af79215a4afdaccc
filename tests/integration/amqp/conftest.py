"""What the AMQP tests stand on: sessions, queues and proxies that are put away after the test.

Faults of the server are made on a node of the tests' own, since nobody else may notice.
"""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from queue_core.errors import QueueCoreError
from queue_core.message import Delivery, Properties, Publication, Settlement
from queue_core.testing.faults import FaultProxy
from queue_core.topology import Exchange, Queue
from queue_core.transport import SessionOptions
from queue_core.transports.amqp import transport
from queue_core.transports.amqp.session import AmqpSession
from queue_core.url import BrokerURL, parse


class Bench:
    """Sessions on one broker, and shorthands."""

    def __init__(self, url: str) -> None:
        self.url = parse(url)
        self._sessions: list[AmqpSession] = []
        self._made: list[Exchange | Queue] = []
        self.session = self.open()

    def open(self, port: int = 0, **options: Any) -> AmqpSession:
        """Open a session, on another port of this host if one is given."""
        url = replace(self.url, host="127.0.0.1", port=port) if port else self.url
        return self.open_url(url, **options)

    def open_url(self, url: BrokerURL | str, **options: Any) -> AmqpSession:
        """Open a session somewhere else, or as somebody else."""
        url = parse(url) if isinstance(url, str) else url
        session = transport.open(url, SessionOptions(**options))
        assert isinstance(session, AmqpSession)
        self._sessions.append(session)
        return session

    def queue(self, **fields: Any) -> str:
        name = f"queue-{uuid.uuid4().hex[:12]}"
        self.session.declare(Queue(name, **fields))
        self._made.append(Queue(name))
        return name

    def exchange(self, kind: Any = "direct") -> str:
        exchange = Exchange(f"exchange-{uuid.uuid4().hex[:12]}", kind)
        self.session.declare(exchange)
        self._made.append(exchange)
        return exchange.name

    def message(
        self, key: str, body: bytes = b"x", *, exchange: str = "", **properties: Any
    ) -> Publication:
        return Publication(exchange, key, body, Properties(**properties), uuid.uuid4().hex)

    def send(self, queue: str, *bodies: bytes) -> None:
        outcomes = self.session.publish([self.message(queue, body) for body in bodies])
        assert {outcome.status for outcome in outcomes} <= {"confirmed"}, outcomes

    def publish(
        self, session: AmqpSession, *found: Publication, timeout: float = 30.0
    ) -> list[str]:
        return [outcome.status for outcome in session.publish(found, timeout=timeout)]

    def take(
        self, session: AmqpSession, consumer: str, count: int, within: float = 30.0
    ) -> list[Delivery]:
        """Receive exactly ``count`` deliveries."""
        deadline = time.monotonic() + within
        got: list[Delivery] = []
        while len(got) < count and time.monotonic() < deadline:
            got += session.receive(consumer, limit=count - len(got), wait=0.2)
        assert len(got) == count, f"{len(got)} of {count}"
        return got

    def ack(self, session: AmqpSession, *deliveries: Delivery) -> None:
        session.settle([Settlement(delivery) for delivery in deliveries])

    def rest(self, queue: str, *, least: int = 0) -> list[bytes]:
        """Consume what is in the queue, until nothing comes for a while; return the bodies.

        ``least`` messages may be under way and are waited for.
        """
        session = self.open()
        session.subscribe("rest", queue, prefetch=1000)
        got: list[bytes] = []
        while more := session.receive("rest", wait=0.5 if len(got) >= least else 20.0):
            self.ack(session, *more)
            got += [delivery.body for delivery in more]
        session.flush("rest")
        session.close()
        return got

    def ready(self, queue: str) -> int:
        return self.session.inspect(queue).ready

    def close(self) -> None:
        for session in self._sessions:
            if session is not self.session:
                session.close(timeout=2.0)
        for entity in self._made:
            if self.session.closed:
                self.session = self.open()
            try:
                self.session.delete(entity)
            except QueueCoreError as error:
                print(f"left behind: {entity.name}: {error}")
        for session in self._sessions:
            session.close(timeout=2.0)


@pytest.fixture
def bench(amqp_url: str) -> Iterator[Bench]:
    bench = Bench(amqp_url)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[FaultProxy]:
    url = parse(amqp_url)
    with FaultProxy(url.host, url.port or 5672, seed=1) as proxy:
        yield proxy


class OwnNode:
    """A RabbitMQ of the tests' own: an administrator's hand on it."""

    def __init__(self, server: Any) -> None:
        self.url = server.url
        self.folder = Path(server.folder)
        self._command = [*server.control, "rabbitmqctl", "-q"]
        self._environment = server.control_environment

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl; fail if it fails."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr or done.stdout}"
        return done.stdout.strip()

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression on the node."""
        return self.control("eval", f"{expression}.")

    @contextmanager
    def impatient(self, seconds: float) -> Iterator[None]:
        """Have the node take back what is unacked for so long, for a while."""
        self._set(consumer_timeout=round(seconds * 1000), channel_tick_interval=500)
        try:
            yield
        finally:
            self._set(consumer_timeout=1_800_000, channel_tick_interval=60_000)

    def _set(self, **settings: int) -> None:
        pairs = ",".join(f"{{{name},{value}}}" for name, value in settings.items())
        self.evaluate(f"[application:set_env(rabbit, K, V) || {{K, V}} <- [{pairs}]]")

    @contextmanager
    def memory_alarm(self) -> Iterator[Callable[[], None]]:
        """Have the node run out of memory, for a while; call the value to end that early."""
        with ExitStack() as stack:
            stack.callback(self.control, "set_vm_memory_high_watermark", "0.4")
            # The second half is answered when every connection has been told.
            set_limit = "vm_memory_monitor:set_vm_memory_high_watermark(0.00001)"
            self.control("eval", f"{set_limit}, rabbit_alarm:get_alarms().")
            yield stack.close

    @contextmanager
    def silent(self, queue: str) -> Iterator[None]:
        """Let a quorum queue answer nobody for a while, as one without a majority does."""
        member = f"'%2F_{queue}'"
        self.evaluate(f"sys:suspend({member})")
        try:
            yield
        finally:
            self.evaluate(f"sys:resume({member})")

    @contextmanager
    def user(self, configure: str, write: str, read: str) -> Iterator[str]:
        """Make a user with these permissions; the value is its URL."""
        name, password = f"user-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
        self.control("add_user", name, password)
        try:
            self.control("set_permissions", name, configure, write, read)
            yield self.url.replace("guest:guest", f"{name}:{password}")
        finally:
            self.control("delete_user", name)


@pytest.fixture(scope="session")
def own_node(amqp_url: str, start_server: Callable[[str, str], Any]) -> OwnNode:
    """A node that only the tests of this process use; it ends with them, however they end."""
    return OwnNode(start_server("rabbitmq", "RabbitMQ"))


@pytest.fixture
def own_bench(own_node: OwnNode) -> Iterator[Bench]:
    """A bench on the tests' own node."""
    bench = Bench(own_node.url)
    try:
        yield bench
    finally:
        bench.close()
