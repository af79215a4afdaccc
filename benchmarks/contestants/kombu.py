"""kombu: publish each, consume with its Consumer and drain_events. It has no batches.

Its mailbox is kombu.pidbox: the nodes of a process are served by one thread, as celery does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import amqp
import kombu
import redis
import sqlalchemy
from kombu.pidbox import Mailbox

from benchmarks.adapter import NotOffered, payload
from benchmarks.names import named

NAMESPACE = named("kombu")

_SCHEMES = {
    "amqp": "amqp",
    "amqp-quorum": "amqp",
    "redis": "redis",
    "memory": "memory",
    "sqlite": "sqla+sqlite",
    "postgresql": "sqla+postgresql+psycopg",
    "mariadb": "sqla+mysql+pymysql",
}
_DRIVERS = {"amqp": amqp, "amqp-quorum": amqp, "redis": redis}


def open_adapter(broker: str, url: str) -> KombuAdapter:
    if broker not in _SCHEMES:
        raise NotOffered(f"kombu is not measured on {broker}")
    return KombuAdapter(broker, url)


class KombuAdapter:
    def __init__(self, broker: str, url: str) -> None:
        self._broker = broker
        self._url = f"{_SCHEMES[broker]}:{url.partition(':')[2]}"
        self._amqp = broker.startswith("amqp")
        if broker == "sqlite":  # kept in the file, so that kombu has what the others have
            with sqlalchemy.create_engine(f"sqlite:{url.partition(':')[2]}").connect() as database:
                database.execute(sqlalchemy.text("PRAGMA journal_mode=WAL"))
        self._connection = self._connect(confirm=True)
        self._connection.connect()
        driver = _DRIVERS.get(broker)
        self.facts = {
            "ack": "each",
            "publish": "each; without confirms in publish_many, ended by one round trip"
            if self._amqp
            else "each",
            "queue": "quorum" if broker == "amqp-quorum" else "durable; persistent messages",
            "versions": f"kombu {kombu.__version__}"
            + (f", {driver.__name__} {driver.__version__}" if driver else ""),
        }

    def _connect(self, *, confirm: bool) -> kombu.Connection:
        options = {"confirm_publish": confirm} if self._amqp else {}
        return kombu.Connection(self._url, transport_options=options)

    def _queue(self, name: str, channel: Any) -> kombu.Queue:
        arguments = {"x-queue-type": "quorum"} if self._broker == "amqp-quorum" else None
        return kombu.Queue(name, routing_key=name, queue_arguments=arguments).bind(channel)

    def clear(self, *queues: str) -> None:
        for name in queues:
            queue = self._queue(name, self._connection.default_channel)
            queue.declare()
            queue.purge()

    def drop(self, *queues: str) -> None:
        for name in queues:
            self._queue(name, self._connection.default_channel).delete()

    def publish_each(self, queue: str, count: int) -> None:
        producer = self._connection.Producer(serializer="json")
        for number in range(count):
            producer.publish(payload(number), routing_key=queue)

    def publish_many(self, queue: str, count: int) -> None:
        with self._connect(confirm=False) as connection:
            producer = connection.Producer(serializer="json")
            for number in range(count):
                producer.publish(payload(number), routing_key=queue)
            if self._amqp:  # the answer comes after everything before it
                producer.channel.queue_declare(queue, passive=True)

    def subscribe(self, queue: str, prefetch: int) -> _Subscription:
        return _Subscription(self, queue, prefetch)

    def peer(self, take_from: str, send_to: str) -> _Peer:
        return _Peer(self, take_from, send_to)

    def nodes(self, names: Sequence[str]) -> _Nodes:
        return _Nodes(self._connect(confirm=False), self._mailbox(), names)

    def caller(self) -> _Caller:
        return _Caller(self._mailbox()(self._connect(confirm=False)))

    def pinged(self) -> tuple[_Nodes, str, list[str], str]:
        """A node; the module and the words of celery's command that pings it; the driver."""
        box = self._mailbox("celery")
        nodes = _Nodes(self._connect(confirm=False), box, [f"celery@{NAMESPACE}"])
        words = ["-b", self._url, "inspect", "ping"]
        return nodes, "celery", words, _DRIVERS[self._broker].__name__

    def _mailbox(self, namespace: str = NAMESPACE) -> Mailbox:
        if self._broker in ("sqlite", "postgresql", "mariadb"):
            raise NotOffered("pidbox needs fanout, which kombu has not on databases")
        if self._broker == "memory":
            raise NotOffered("in memory a second drain_events looks once a second")
        return Mailbox(namespace, type="fanout")

    def close(self) -> None:
        self._connection.close()


class _Subscription:
    def __init__(self, adapter: KombuAdapter, queue: str, prefetch: int) -> None:
        self._connection = adapter._connection
        self.latest = time.monotonic()
        self._bodies: deque[Any] = deque()
        self._channel = self._connection.channel()
        self._consumer = self._connection.Consumer(
            [adapter._queue(queue, self._channel)], channel=self._channel, callbacks=[self._handle]
        )
        self._consumer.qos(prefetch_count=prefetch)
        self._consumer.consume()

    def _handle(self, body: Any, message: Any) -> None:
        message.ack()
        self._bodies.append(body)
        self.latest = time.monotonic()

    def take(self, count: int, seconds: float) -> int:
        end = time.monotonic() + seconds
        while len(self._bodies) < count and (left := end - time.monotonic()) > 0:
            try:
                self._connection.drain_events(timeout=left)
            except TimeoutError:
                break
        return len(self._bodies)

    def next(self) -> Any:
        """Wait for one message."""
        while not self._bodies:
            self._connection.drain_events(timeout=30.0)
        return self._bodies.popleft()

    def close(self) -> None:
        self._consumer.cancel()
        self._channel.close()


class _Peer:
    def __init__(self, adapter: KombuAdapter, take_from: str, send_to: str) -> None:
        self._subscription = adapter.subscribe(take_from, 100)
        self._producer = adapter._connection.Producer(serializer="json")
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        self._producer.publish(body, routing_key=self._send_to)

    def take(self) -> dict[str, Any]:
        body: dict[str, Any] = self._subscription.next()
        return body


class _Nodes:
    def __init__(
        self, connection: kombu.Connection, mailbox: Mailbox, names: Sequence[str]
    ) -> None:
        self._connection = connection
        self._ending = False
        box = mailbox(connection)
        for name in names:
            box.Node(name, None, connection.channel(), {"ping": _pong}).listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ending:
            try:
                self._connection.drain_events(timeout=1.0)
            except TimeoutError:
                pass

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        self._connection.close()


def _pong(state: object) -> dict[str, str]:
    return {"ok": "pong"}


class _Caller:
    def __init__(self, box: Any) -> None:
        self._box = box

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        came: dict[str, float] = {}

        def note(body: dict[str, Any]) -> None:
            came.update(dict.fromkeys(body, time.monotonic()))

        if names is None:
            self._box.multi_call("ping", timeout=timeout, limit=most, callback=note)
        else:
            self._box.call(list(names), "ping", timeout=timeout, callback=note)
        return came

    def tell(self, name: str) -> None:
        self._box.cast([name], "ping")

    def close(self) -> None:
        self._box.connection.close()
