"""Cutting TCP under the client while messages run: nothing is lost, and everything is acked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from queue_core import (
    Backoff,
    Connection,
    ConnectionLost,
    Consumer,
    Message,
    NotConfirmed,
    Queue,
    StaleDelivery,
)
from queue_core.testing import FaultProxy, eventually
from queue_core.url import parse

CUT_FOR = 60.0
CUT_EVERY = 1.0
MESSAGES = 50
WORK = 0.2


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[FaultProxy]:
    url = parse(amqp_url)
    with FaultProxy(url.host or "127.0.0.1", url.port or 5672, seed=1) as proxy:
        yield proxy


def through(broker, proxy: FaultProxy) -> str:
    """Return the broker's URL with the proxy's port."""
    return broker.url.replace(f":{parse(broker.url).port}/", f":{proxy.port}/")


class Work:
    """Publishes and consumes through the proxy, and keeps the books.

    An ack is certain once ``flush`` returned. One whose connection was cut before that may or may
    not have arrived: its message comes again, or does not.
    """

    def __init__(self, url: str, queue: Queue) -> None:
        self.connection = Connection(
            url, lease=10.0, timeout=30.0, backoff=Backoff(base=0.05, cap=0.5)
        )
        self.queue = queue
        self.published: list[str] = []
        self.delivered: Counter[str] = Counter()
        self.acked: set[str] = set()
        self.uncertain: set[str] = set()
        self.wrong: list[str] = []
        self.errors: list[BaseException] = []
        self.stop = threading.Event()

    def publish(self) -> None:
        """Publish over the whole time of the faults; each must be confirmed."""
        producer = self.connection.producer()
        for number in range(MESSAGES):
            body = f"message-{number}"
            producer.publish(body, self.queue.name)
            self.published.append(body)
            self.stop.wait(CUT_FOR / MESSAGES)

    def consume(self) -> None:
        """Work on each message for a while, and ack it."""
        with self.connection.consumer(self.queue, prefetch=5) as consumer:
            while not self.stop.is_set():
                message = consumer.receive(timeout=0.5)
                if message is not None:
                    self.handle(consumer, message)

    def handle(self, consumer: Consumer, message: Message) -> None:
        body = message.payload
        self.delivered[body] += 1
        # A publish whose confirm was cut off is sent again, and RabbitMQ keeps both: the second one
        # may come after the first was acked, and is new. What was acked must not come back.
        if body in self.acked and message.redelivered:
            self.wrong.append(f"{body} came again after its ack")
        self.uncertain.discard(body)
        time.sleep(WORK)
        try:
            message.ack()
        except StaleDelivery:
            return  # cut before the ack was sent: it comes again for certain
        try:
            consumer.flush()
        except (StaleDelivery, ConnectionLost):
            self.uncertain.add(body)
        else:
            self.acked.add(body)

    @property
    def done(self) -> bool:
        """Every message was acked, and none is expected again."""
        return len(self.acked | self.uncertain) == MESSAGES

    def run(self, work) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self.errors.append(error)
                raise

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread


@pytest.mark.timeout(CUT_FOR + 120)
def test_cutting_tcp_every_second_loses_nothing_and_ends_with_every_ack(amqp, proxy):
    queue = Queue(amqp.name("work"))
    with Connection(amqp.url) as direct:
        direct.declare(queue)
        work = Work(through(amqp, proxy), queue)
        publisher, consumer = work.run(work.publish), work.run(work.consume)
        cuts = 0
        ends = time.monotonic() + CUT_FOR
        while time.monotonic() < ends:
            time.sleep(CUT_EVERY)
            cuts += proxy.reset()
        publisher.join(60.0)
        eventually(lambda: work.done or work.errors, 45.0, what="50 acks")
        time.sleep(1.0)  # whatever still comes, comes now
        work.stop.set()
        consumer.join(30.0)
        work.connection.close()
        assert not work.errors
        assert not work.wrong
        assert len(work.published) == MESSAGES
        assert work.acked | work.uncertain == set(work.published), "lost"
        assert direct.inspect(queue).ready == 0
    assert cuts >= CUT_FOR / CUT_EVERY / 2, "the faults hit nothing"
    print(
        f"\n{cuts} connections cut; {len(work.acked)} acks certain, {len(work.uncertain)} cut "
        f"under way; {sum(work.delivered.values()) - MESSAGES} redeliveries; 0 lost"
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("direction", "places"), [("up", 160), ("down", 24)])
def test_a_publish_cut_at_any_byte_is_repeated_until_it_is_certain(amqp, proxy, direction, places):
    """The cut comes after each number of bytes in turn; a message may come twice, never not."""
    queue = Queue(amqp.name("work"), durable=False)
    with Connection(amqp.url) as direct:
        direct.declare(queue)
        connection = Connection(through(amqp, proxy), timeout=20.0, backoff=Backoff(0.01, 0.05))
        producer = connection.producer()
        producer.publish("warm", queue.name)
        for place in range(places):
            proxy.cut_after(place, direction=direction, times=1)
            receipt = producer.publish(f"cut at {place}", queue.name)
            assert receipt.status == "confirmed"
        proxy.heal()
        connection.close()
        got = Counter()
        with direct.consumer(queue, prefetch=1000) as consumer:
            while (message := consumer.receive(timeout=0.5)) is not None:
                got[message.payload] += 1
                message.ack()
            consumer.flush()
    assert set(got) == {"warm", *(f"cut at {place}" for place in range(places))}


@pytest.mark.timeout(180)
def test_an_ack_cut_at_any_byte_is_certain_or_the_message_comes_again(amqp, proxy):
    places = 100
    queue = Queue(amqp.name("work"), durable=False)
    certain: set[int] = set()
    uncertain: set[int] = set()
    cut = 0
    with Connection(amqp.url) as direct:
        direct.declare(queue)
        direct.producer().publish_many([(number, queue.name) for number in range(places)])
        connection = Connection(through(amqp, proxy), timeout=20.0, backoff=Backoff(0.01, 0.05))
        with connection.consumer(queue, prefetch=1) as consumer:
            ends = time.monotonic() + 60.0
            while len(certain | uncertain) < places or direct.inspect(queue).ready:
                assert time.monotonic() < ends, (len(certain), len(uncertain))
                message = consumer.receive(timeout=0.5)
                if message is None:
                    continue
                number = message.payload
                assert number not in certain, "came again after its ack"
                uncertain.discard(number)
                proxy.cut_after(cut % places, direction="up", times=1)
                cut += 1
                try:
                    message.ack()
                except StaleDelivery:
                    continue
                try:
                    consumer.flush()
                    certain.add(number)
                except (StaleDelivery, ConnectionLost):
                    uncertain.add(number)
                proxy.heal()
            assert consumer.receive(timeout=1.0) is None or uncertain
        connection.close()
    assert certain
    assert len(certain) < places, "the cuts hit nothing"
    assert cut >= places


def test_a_stalled_broker_ends_in_a_deadline_and_no_later(amqp, proxy):
    """The peer accepts and never answers: every call ends by its own timeout."""
    queue = Queue(amqp.name("work"))
    with Connection(amqp.url) as direct:
        direct.declare(queue)
    connection = Connection(through(amqp, proxy), timeout=1.0, connect_timeout=2.0)
    producer = connection.producer()
    producer.publish("before", queue.name)
    proxy.stall()
    begun = time.monotonic()
    with pytest.raises((NotConfirmed, ConnectionLost)):
        producer.publish("during", queue.name)
    assert time.monotonic() - begun < 8.0
    proxy.heal()
    producer.publish("after", queue.name, timeout=20.0)
    connection.close()
