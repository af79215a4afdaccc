"""AMQP: this project against pika itself, on the same work in one run.

The raw side is pika in its best safe design, through its public names only: a `SelectConnection`
in a thread of its own, so that heartbeats are served while user code works, and calls handed over
through a deque and one wake-up. Publications are mandatory, persistent and confirmed, pipelined
where there are many; deliveries go to the user's thread, and each is acked by itself. The queues
and the messages are the same for both sides.

The functions ``raw_*`` are for other benchmarks too. They block until the broker has answered for
everything, and expect the queues that they are given to be there, empty or filled as they say.

Run it as a file with a broker URL: both sides take turns, and the medians are printed with their
ratios.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import pika

from queue_core import Connection, Queue

PREFETCH = 100
OUTSTANDING = 4000
PERSISTENT = pika.BasicProperties(content_type="application/octet-stream", delivery_mode=2)
ANSWER = 60.0


class RawConnection:
    """A `SelectConnection` in a thread; a context manager. Its channel is in confirm mode."""

    def __init__(self, url: str) -> None:
        self._work: deque[Callable[[], object]] = deque()
        self._scheduled = False
        self._ready: SimpleQueue[BaseException | None] = SimpleQueue()
        self.channel: Any = None
        self.on_confirm: Callable[[Any], None] = _ignore
        self.returned = 0
        self.connection: Any = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=self._opened,
            on_open_error_callback=lambda _, error: self._ready.put(error),
            on_close_callback=lambda *_: self.connection.ioloop.stop(),
        )
        self._thread = threading.Thread(target=self.connection.ioloop.start, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if error := self._ready.get(timeout=ANSWER):
            raise error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.submit(self.connection.close)
        self._thread.join(ANSWER)

    def submit(self, work: Callable[[], object]) -> None:
        """Have ``work`` done in the connection's thread: an entry, and a wake-up if none is due."""
        self._work.append(work)
        if not self._scheduled:
            self._scheduled = True
            self.connection.ioloop.add_callback_threadsafe(self._drain)

    def publish(self, queue: str, body: bytes) -> None:
        """Send one message; in the connection's thread."""
        self.channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)

    def consume(self, queue: str, on_message: Callable[[int, bytes], object]) -> None:
        """Have ``on_message(tag, body)`` called in the connection's thread from now on."""
        begun: SimpleQueue[None] = SimpleQueue()

        def deliver(_channel: object, method: Any, _properties: object, body: bytes) -> None:
            on_message(method.delivery_tag, body)

        def begin() -> None:
            self.channel.basic_qos(prefetch_count=PREFETCH)
            self.channel.basic_consume(queue, deliver, callback=lambda _: begun.put(None))

        self.submit(begin)
        begun.get(timeout=ANSWER)

    def ack(self, tag: int) -> None:
        """Ack one delivery, from any thread."""
        self.submit(partial(self._ack, tag))

    def settled(self) -> None:
        """Return when the broker has handled what was sent on the channel."""
        answered: SimpleQueue[None] = SimpleQueue()
        answer = partial(answered.put, None)
        self.submit(
            lambda: self.channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: answer())
        )
        answered.get(timeout=ANSWER)

    def _ack(self, tag: int) -> None:
        self.channel.basic_ack(tag)

    def _drain(self) -> None:
        self._scheduled = False
        while self._work:
            self._work.popleft()()

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._with_channel)

    def _with_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(
            lambda frame: self.on_confirm(frame), callback=lambda _: self._ready.put(None)
        )

    def _on_return(self, *_: object) -> None:
        self.returned += 1


def raw_publish_one(url: str, queue: str, count: int, body: bytes) -> float:
    """Seconds for ``count`` messages, each confirmed before the next is sent."""
    with RawConnection(url) as raw:
        confirmed: SimpleQueue[Any] = SimpleQueue()
        raw.on_confirm = confirmed.put
        begun = time.perf_counter()
        for _ in range(count):
            raw.submit(partial(raw.publish, queue, body))
            confirmed.get(timeout=ANSWER)
        return time.perf_counter() - begun


def raw_publish_many(url: str, queue: str, count: int, body: bytes) -> float:
    """Seconds until ``count`` messages are confirmed, up to `OUTSTANDING` on their way at once."""
    with RawConnection(url) as raw:
        done: SimpleQueue[None] = SimpleQueue()
        sent = confirmed = 0

        def fill() -> None:
            nonlocal sent
            while sent < count and sent - confirmed < OUTSTANDING:
                raw.publish(queue, body)
                sent += 1

        def on_confirm(frame: Any) -> None:
            nonlocal confirmed
            method = frame.method
            confirmed = max(confirmed, method.delivery_tag) if method.multiple else confirmed + 1
            if confirmed >= count:
                done.put(None)
            elif sent - confirmed <= OUTSTANDING // 2:
                fill()

        raw.on_confirm = on_confirm
        begun = time.perf_counter()
        raw.submit(fill)
        done.get(timeout=ANSWER + count / 100)
        return time.perf_counter() - begun


def raw_consume(url: str, queue: str, count: int) -> float:
    """Seconds until ``count`` messages that wait in the queue are received and each is acked."""
    with RawConnection(url) as raw:
        arrived: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        begun = time.perf_counter()
        raw.consume(queue, lambda tag, body: arrived.put((tag, body)))
        for _ in range(count):
            tag, _body = arrived.get(timeout=ANSWER)
            raw.ack(tag)
        raw.settled()
        return time.perf_counter() - begun


def raw_ping_pong(url: str, there: str, back: str, rounds: int, body: bytes) -> list[float]:
    """Seconds of each round: a message there, its answer back; both are confirmed and acked."""
    with RawConnection(url) as near, RawConnection(url) as far:
        arrived: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        called: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        confirmed: SimpleQueue[Any] = SimpleQueue()
        answered: SimpleQueue[Any] = SimpleQueue()
        near.on_confirm, far.on_confirm = confirmed.put, answered.put
        near.consume(back, lambda *message: arrived.put(message))
        far.consume(there, lambda *message: called.put(message))

        def echo() -> None:
            for _ in range(rounds):
                tag, content = called.get(timeout=ANSWER)
                far.submit(partial(far.publish, back, content))
                answered.get(timeout=ANSWER)
                far.ack(tag)

        thread = threading.Thread(target=echo)
        thread.start()
        took = []
        for _ in range(rounds):
            begun = time.perf_counter()
            near.submit(partial(near.publish, there, body))
            confirmed.get(timeout=ANSWER)
            tag, _content = arrived.get(timeout=ANSWER)
            took.append(time.perf_counter() - begun)
            near.ack(tag)
        thread.join(ANSWER)
        return took


# The same through this project.


def our_publish_one(url: str, queue: str, count: int, body: bytes) -> float:
    """As `raw_publish_one`."""
    with Connection(url) as connection:
        producer = connection.producer()
        producer.publish(body, queue)
        begun = time.perf_counter()
        for _ in range(count - 1):
            producer.publish(body, queue)
        return (time.perf_counter() - begun) * count / (count - 1)


def our_publish_many(url: str, queue: str, count: int, body: bytes) -> float:
    """As `raw_publish_many`."""
    with Connection(url) as connection:
        producer = connection.producer()
        producer.publish(body, queue)
        begun = time.perf_counter()
        producer.publish_many((body, queue) for _ in range(count - 1))
        return (time.perf_counter() - begun) * count / (count - 1)


def our_consume(url: str, queue: str, count: int) -> float:
    """As `raw_consume`."""
    with Connection(url) as connection:
        consumer = connection.connect().consumer(queue, prefetch=PREFETCH, decode=False)
        begun = time.perf_counter()
        for _ in range(count):
            message = consumer.receive(timeout=ANSWER)
            assert message is not None, "a message is missing"
            message.ack()
        consumer.flush()
        return time.perf_counter() - begun


def our_ping_pong(url: str, there: str, back: str, rounds: int, body: bytes) -> list[float]:
    """As `raw_ping_pong`."""
    with Connection(url) as near, Connection(url) as far:
        calls, answers = far.consumer(there), near.consumer(back)
        calls.start()
        answers.start()
        caller, answerer = near.producer(), far.producer()

        def echo() -> None:
            for _ in range(rounds):
                message = calls.receive(timeout=ANSWER)
                assert message is not None, "a call is missing"
                answerer.publish(message.body, back)
                message.ack()

        thread = threading.Thread(target=echo)
        thread.start()
        took = []
        for _ in range(rounds):
            begun = time.perf_counter()
            caller.publish(body, there)
            message = answers.receive(timeout=ANSWER)
            assert message is not None, "an answer is missing"
            took.append(time.perf_counter() - begun)
            message.ack()
        thread.join(ANSWER)
        return took


# Both in turn.


class Place:
    """Queues on the broker for one run, deleted at the end; a context manager."""

    def __init__(self, url: str, kind: Any) -> None:
        self._connection = Connection(url)
        self._kind = kind
        self._made: list[Queue] = []
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for queue in self._made:
            self._connection.delete(queue)
        self._connection.close()

    def queue(self, filled: int = 0, body: bytes = b"") -> str:
        """Return a new queue that holds ``filled`` messages."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        self._made.append(self._connection.declare(Queue(name, queue_type=self._kind)))
        if filled:
            self._connection.producer().publish_many((body, name) for _ in range(filled))
        return name

    def drop(self, name: str) -> None:
        """Delete a queue."""
        self._connection.delete(Queue(name))
        self._made = [queue for queue in self._made if queue.name != name]


def one_round(place: Place, work: str, count: int, body: bytes, *, mine: bool) -> float:
    """Do ``work`` once; seconds per message."""
    first, second = place.queue(count if work == "consume" else 0, body), place.queue()
    if work == "publish-one":
        one = our_publish_one if mine else raw_publish_one
        seconds = one(place.url, first, count, body) / count
    elif work == "publish-many":
        many = our_publish_many if mine else raw_publish_many
        seconds = many(place.url, first, count, body) / count
    elif work == "consume":
        seconds = (our_consume if mine else raw_consume)(place.url, first, count) / count
    else:
        play = our_ping_pong if mine else raw_ping_pong
        seconds = statistics.median(play(place.url, first, second, count, body))
    for name in (first, second):
        place.drop(name)
    return seconds


def at_depth(place: Place, depth: int, rounds: int, body: bytes) -> dict[bool, list[float]]:
    """Seconds per message while some are taken from a queue that holds ``depth`` of them."""
    count = min(depth, 10_000)
    took: dict[bool, list[float]] = {False: [], True: []}
    name = place.queue(depth, body)
    for _ in range(rounds):
        for mine in (False, True):
            if depth <= count:
                place.drop(name)
                name = place.queue(depth, body)
            took[mine].append(
                (our_consume if mine else raw_consume)(place.url, name, count) / count
            )
    place.drop(name)
    return took


COUNTS = {"publish-one": 1000, "publish-many": 20_000, "consume": 20_000, "ping-pong": 500}


def compare(what: str, took: dict[bool, list[float]]) -> float:
    """Print one line; return how many times as fast as raw we are."""
    ratios = [raw / ours for raw, ours in zip(took[False], took[True], strict=True)]
    raw, ours = (statistics.median(took[mine]) * 1e6 for mine in (False, True))
    print(
        f"{what:16} raw {raw:8.1f} us  ours {ours:8.1f} us  ours is "
        f"{statistics.median(ratios):5.2f} x as fast ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--work", nargs="*", default=list(COUNTS), choices=list(COUNTS))
    parser.add_argument("--depths", nargs="*", type=int, default=[], metavar="MESSAGES")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--type", default="classic", choices=["classic", "quorum"])
    options = parser.parse_args()
    body = b"x" * options.bytes
    with Place(options.url, options.type) as place:
        for work in options.work:
            count = options.count or COUNTS[work]
            took: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(options.rounds):
                for mine in (False, True):
                    took[mine].append(one_round(place, work, count, body, mine=mine))
            compare(work, took)
        for depth in options.depths:
            compare(f"depth {depth}", at_depth(place, depth, options.rounds, body))


def _ignore(_frame: object) -> None:
    """Nobody waits for this confirm."""


if __name__ == "__main__":
    main()
