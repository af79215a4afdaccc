"""pika: a SelectConnection in a thread of its own, to which work is handed over by a deque.

Publishing: mandatory and persistent; many are made and sent in that thread, and up to 4,000 wait
for their confirms. Consuming: the thread passes deliveries on, and acks one tag after the other as
they come back. pika is used as it is: it writes each frame by itself. Commands and answers are
transient, in exclusive queues; the answer is the confirm, and nothing is acked, since a queue goes
with who could take its messages again.
"""

from __future__ import annotations

import json
import queue as queues
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import pika

from benchmarks.adapter import payload
from benchmarks.contestants.plain_mailbox import COMMANDS, command

WINDOW = 4000
PROPERTIES = pika.BasicProperties(content_type="application/json", delivery_mode=2)
PATIENCE = 60.0


def open_adapter(broker: str, url: str) -> PikaAdapter:
    return PikaAdapter(broker, url)


class Loop:
    """A connection with one channel, and its thread."""

    def __init__(self, url: str) -> None:
        self._ready = threading.Event()
        self._work: deque[Callable[[], object]] = deque()
        self._armed = False
        self.error: BaseException | None = None
        self.channel: Any = None
        self.version = ""
        self._connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._failed,
        )
        self._thread = threading.Thread(target=self._connection.ioloop.start, daemon=True)
        self._thread.start()
        self.wait(self._ready)

    def _opened(self, connection: Any) -> None:
        self.version = connection.server_properties["version"]
        connection.channel(on_open_callback=self._has_channel)

    def _has_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_close_callback(self._lost_channel)
        self._ready.set()

    def _lost_channel(self, channel: Any, reason: BaseException) -> None:
        if not self._connection.is_closing:  # then the connection's end is still to come
            self._failed(channel, reason)

    def _failed(self, _who: Any, reason: BaseException) -> None:
        self.error = reason
        self._ready.set()
        self._connection.ioloop.stop()

    def fail(self, reason: str) -> None:
        """Give up; whoever waits raises."""
        self.error = RuntimeError(reason)
        self._connection.ioloop.stop()

    def run(self, work: Callable[[], object]) -> None:
        """Let the thread do it; one wake-up for all that is handed over meanwhile."""
        self._work.append(work)
        if not self._armed:
            self._armed = True
            self._connection.ioloop.add_callback_threadsafe(self._turn)

    def _turn(self) -> None:
        self._armed = False
        while self._work:
            self._work.popleft()()

    def wait(self, event: threading.Event, seconds: float = PATIENCE) -> None:
        """Wait for the thread."""
        if not event.wait(seconds):
            raise TimeoutError("the broker did not answer")
        if self.error is not None:
            raise self.error

    def call(self, work: Callable[..., object]) -> None:
        """Do something that takes a ``callback``, and wait for that."""
        done = threading.Event()
        self.run(lambda: work(callback=lambda *_: done.set()))
        self.wait(done)

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive() and self.error is None:
            self.run(self._connection.close)
        self._thread.join(5.0)


class PikaAdapter:
    def __init__(self, broker: str, url: str) -> None:
        self._kind = "quorum" if broker == "amqp-quorum" else "classic"
        self._url = url
        self._loops: list[Loop] = []
        self.loop = self.open()
        self.facts = {
            "ack": "each, by itself",
            "publish": f"each confirmed; publish_many: {WINDOW} unconfirmed at most",
            "queue": f"{self._kind}, durable; persistent messages",
            "versions": f"pika {pika.__version__}",
            "server": f"RabbitMQ {self.loop.version}",
            "durability": f"{self._kind} durable queues, persistent messages",
        }

    def open(self) -> Loop:
        """One more connection; the adapter closes it."""
        loop = Loop(self._url)
        self._loops.append(loop)
        return loop

    def clear(self, *queues: str) -> None:
        kind = {"x-queue-type": self._kind}
        channel = self.loop.channel
        for name in queues:
            self.loop.call(partial(channel.queue_declare, name, durable=True, arguments=kind))
            self.loop.call(partial(channel.queue_purge, name))

    def drop(self, *queues: str) -> None:
        for name in queues:
            self.loop.call(partial(self.loop.channel.queue_delete, name))

    def publisher(self) -> Publisher:
        """A publisher with confirms, on a connection of its own."""
        return Publisher(self.open())

    def publish_each(self, queue: str, count: int) -> None:
        publisher = self.publisher()
        for number in range(count):
            publisher.send(queue, json.dumps(payload(number)).encode())

    def publish_many(self, queue: str, count: int) -> None:
        publisher = self.publisher()
        done = threading.Event()
        numbers = iter(range(count))

        def fill() -> None:
            if publisher.unconfirmed <= WINDOW // 2:
                for number in islice(numbers, WINDOW - publisher.unconfirmed):
                    publisher.publish(queue, json.dumps(payload(number)).encode())
                if not publisher.unconfirmed:
                    done.set()

        publisher.on_confirm = fill
        publisher.loop.run(fill)
        publisher.loop.wait(done, PATIENCE + count / 1000)

    def subscribe(self, queue: str, prefetch: int) -> Subscription:
        return Subscription(self.open(), queue, prefetch)

    def peer(self, take_from: str, send_to: str) -> _Peer:
        return _Peer(self, take_from, send_to)

    def nodes(self, names: Sequence[str]) -> _Nodes:
        return _Nodes(self.open(), names)

    def caller(self) -> _Caller:
        return _Caller(self.open())

    def close(self) -> None:
        while self._loops:
            self._loops.pop().close()


class Publisher:
    """Counts what the broker has not confirmed yet. In the loop's thread but for `send`."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.on_confirm: Callable[[], object] = _nothing
        self._sent = 0
        self._low = 0  # every tag up to this one is confirmed
        self._above: set[int] = set()
        loop.channel.add_on_return_callback(lambda *_: loop.fail("a message was returned"))
        loop.call(partial(loop.channel.confirm_delivery, self._confirmed))

    @property
    def unconfirmed(self) -> int:
        """How many; confirms that overtook others are not looked at."""
        return self._sent - self._low

    def publish(self, queue: str, body: bytes) -> None:
        """Send one message."""
        self._sent += 1
        self.loop.channel.basic_publish("", queue, body, PROPERTIES, mandatory=True)

    def send(self, queue: str, body: bytes) -> None:
        """From another thread: send one message and wait for its confirm."""
        confirmed = threading.Event()
        self.on_confirm = confirmed.set
        self.loop.run(lambda: self.publish(queue, body))
        self.loop.wait(confirmed)

    def _confirmed(self, frame: Any) -> None:
        if not isinstance(frame.method, pika.spec.Basic.Ack):
            self.loop.fail("the broker refused a message")
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            self._low = max(self._low, tag)
            self._above = {other for other in self._above if other > self._low}
        else:
            self._above.add(tag)
        while self._low + 1 in self._above:
            self._low += 1
            self._above.remove(self._low)
        self.on_confirm()


def _nothing() -> None:
    """Nobody waits."""


class Subscription:
    """Deliveries of one queue, acked one by one when the next is taken."""

    def __init__(self, loop: Loop, queue: str, prefetch: int) -> None:
        self._loop = loop
        self.latest = time.monotonic()
        self._arrived: queues.SimpleQueue[tuple[int, bytes]] = queues.SimpleQueue()
        channel = loop.channel
        loop.call(partial(channel.basic_qos, prefetch_count=prefetch))
        loop.call(partial(channel.basic_consume, queue, self._on_message))

    def _on_message(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self._arrived.put((method.delivery_tag, body))

    def take(self, count: int, seconds: float) -> int:
        taken = 0
        end = time.monotonic() + seconds
        while taken < count and self.next(end - time.monotonic()) is not None:
            taken += 1
        done = threading.Event()
        self._loop.run(done.set)
        self._loop.wait(done)
        return taken

    def next(self, seconds: float) -> Any:
        """The next message, decoded and acked; None if none comes."""
        try:
            tag, body = self._arrived.get(timeout=max(0.0, seconds))
        except queues.Empty:
            return None
        found = json.loads(body)
        self._loop.run(lambda: self._loop.channel.basic_ack(tag))
        self.latest = time.monotonic()
        return found

    def close(self) -> None:
        """The connection goes, and gives back what was not taken."""
        self._loop.close()


class _Peer:
    def __init__(self, adapter: PikaAdapter, take_from: str, send_to: str) -> None:
        self._subscription = adapter.subscribe(take_from, 100)
        self._publisher = adapter.publisher()
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        self._publisher.send(self._send_to, json.dumps(body).encode())

    def take(self) -> dict[str, Any]:
        body = self._subscription.next(30.0)
        assert body is not None, "a message is missing"
        found: dict[str, Any] = body
        return found


class _Private:
    """An exclusive queue; what comes is passed on to another thread."""

    def __init__(self, loop: Loop, queue: str) -> None:
        self.loop = loop
        self.arrived: queues.SimpleQueue[Any] = queues.SimpleQueue()
        channel = loop.channel
        loop.call(partial(channel.queue_declare, queue, exclusive=True))
        loop.call(partial(channel.basic_consume, queue, self._on_message, auto_ack=True))

    def _on_message(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        self.arrived.put((properties, body))

    def send(self, queue: str, body: object, **properties: Any) -> None:
        """Publish, and wait for nothing."""
        data, about = json.dumps(body).encode(), pika.BasicProperties(**properties)
        self.loop.run(
            lambda: self.loop.channel.basic_publish("", queue, data, about, mandatory=True)
        )


class _Nodes:
    """One node, and its thread."""

    def __init__(self, loop: Loop, names: Sequence[str]) -> None:
        (self._name,) = names
        self._private = _Private(loop, COMMANDS)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (arrived := self._private.arrived.get()) is not None:
            properties, body = arrived
            ticket = json.loads(body)["ticket"]
            if properties.reply_to:
                answer = {"ticket": ticket, self._name: {"ok": "pong"}}
                self._private.send(properties.reply_to, answer)

    def close(self) -> None:
        self._private.arrived.put(None)
        self._thread.join()


class _Caller:
    def __init__(self, loop: Loop) -> None:
        self._mine = f"{COMMANDS}_answers"
        self._private = _Private(loop, self._mine)
        self._asked = 0

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        self._asked += 1
        expiration = str(int(timeout * 1000))
        about = command(self._asked, names)
        self._private.send(COMMANDS, about, reply_to=self._mine, expiration=expiration)
        try:
            _, body = self._private.arrived.get(timeout=timeout)
        except queues.Empty:
            return {}
        answer = json.loads(body)
        if answer.pop("ticket") != self._asked:
            return {}
        return dict.fromkeys(answer, time.monotonic())

    def tell(self, name: str) -> None:
        self._private.send(COMMANDS, command(0, [name]))

    def close(self) -> None:
        """Its connection is the adapter's."""
