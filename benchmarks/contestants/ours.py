"""queue_core, on every broker by its URL, with its defaults."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.adapter import payload
from benchmarks.names import named
from queue_core import AccessRefused, Connection, Consumer, Queue, QueueNotFound, __version__
from queue_core.mailbox import Mailbox

NAMESPACE = named("fleet")


DRIVERS = {"sqlite": "sqlalchemy", "redis": "redis", "amqp": "pika"}


def open_adapter(broker: str, url: str) -> OurAdapter:
    return OurAdapter(broker, url)


class OurAdapter:
    def __init__(self, broker: str, url: str) -> None:
        self._broker = broker
        self._url = url
        self._kind: Any = {"amqp": "classic", "amqp-quorum": "quorum"}.get(broker, "auto")
        self._connection = Connection(url, timeout=60.0).connect()
        self.facts = {
            "ack": "each; sent together with the next claim or within 20 ms",
            "publish": "each confirmed; publish_many: all confirmed when it returns",
            "queue": f"{self._kind}, durable; persistent messages",
            "versions": f"queue_core {__version__}",
        }

    def _queue(self, name: str) -> Queue:
        return Queue(name, queue_type=self._kind)

    def clear(self, *queues: str) -> None:
        for name in queues:
            self._connection.declare(self._queue(name))
            self._connection.purge(name)

    def drop(self, *queues: str) -> None:
        for name in queues:
            try:
                self._connection.delete(self._queue(name))
            except QueueNotFound:
                pass

    def publish_each(self, queue: str, count: int) -> None:
        producer = self._connection.producer()
        for number in range(count):
            producer.publish(payload(number), queue)

    def publish_many(self, queue: str, count: int) -> None:
        producer = self._connection.producer()
        producer.publish_many((payload(number), queue) for number in range(count))

    def subscribe(self, queue: str, prefetch: int) -> _Subscription:
        return _Subscription(self._connection.consumer(queue, prefetch=prefetch))

    def peer(self, take_from: str, send_to: str) -> _Peer:
        return _Peer(self._connection, take_from, send_to)

    def nodes(self, names: Sequence[str]) -> Mailbox:
        box = Mailbox(NAMESPACE, self._connection)
        for name in names:
            box.node(name).start()
        return box

    def caller(self) -> _Caller:
        return _Caller(Mailbox(NAMESPACE, self._connection))

    def mortal(self, node: str, lease: float) -> Connection:
        """Start a node with a lease of its own; it leaves with its connection."""
        connection = Connection(self._url, lease=lease)
        Mailbox(NAMESPACE, connection).node(node).start()
        return connection

    def pinged(self) -> tuple[Mailbox, str, list[str], str]:
        """A node; the module and the words of a command that pings it; the driver."""
        words = ["inspect", "ping", "-b", self._url, "-N", NAMESPACE, "-t", "5s"]
        return self.nodes(["pinged"]), "queue_core.worker.cli", words, DRIVERS[self._broker]

    def wait_until_gone(self, node: str, seconds: float) -> None:
        """Wait until the broker has given up a node that does not move."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self._connection.inspect(f"{node}.{NAMESPACE}.pidbox")
            except AccessRefused:
                pass  # RabbitMQ says so while it is another connection's
            except QueueNotFound:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the broker has not given up {node} within {seconds:g} s")

    def close(self) -> None:
        self._connection.close()


class _Subscription:
    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.latest = time.monotonic()
        self.close = consumer.close

    def take(self, count: int, seconds: float) -> int:
        taken = 0
        end = time.monotonic() + seconds
        while taken < count and (left := end - time.monotonic()) > 0:
            message = self._consumer.receive(timeout=left)
            if message is None:
                break
            message.ack()
            taken += 1
            self.latest = time.monotonic()
        self._consumer.flush()
        return taken


class _Peer:
    def __init__(self, connection: Connection, take_from: str, send_to: str) -> None:
        self._consumer = connection.consumer(take_from)
        self._consumer.start()
        self._producer = connection.producer()
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        self._producer.publish(body, self._send_to)

    def take(self) -> dict[str, Any]:
        message = self._consumer.receive(timeout=30.0)
        assert message is not None, "a message is missing"
        message.ack()
        body: dict[str, Any] = message.payload
        return body


class _Caller:
    def __init__(self, box: Mailbox) -> None:
        self._box = box
        self.close = box.close

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        came: dict[str, float] = {}

        def note(node: str, value: Any) -> None:
            came[node] = time.monotonic()

        if names is None:
            self._box.multi_call("ping", timeout=timeout, callback=note)
        else:
            self._box.call(names, "ping", timeout=timeout, callback=note)
        return came

    def tell(self, name: str) -> None:
        self._box.cast([name], "ping")
