"""Cutting TCP under the client while messages run: nothing is lost, and everything is acked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from queue_core import Backoff, Connection, Queue, StaleDelivery
from queue_core.testing import FaultProxy
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


class Work:
    """Publishes and consumes through the proxy, and keeps the books."""

    def __init__(self, url: str, queue: Queue) -> None:
        self.connection = Connection(
            url, lease=10.0, timeout=30.0, backoff=Backoff(base=0.05, cap=0.5)
        )
        self.queue = queue
        self.published: list[str] = []
        self.delivered: Counter[str] = Counter()
        self.acked: list[str] = []
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
        """Work on each message for a while; its ack counts once it is certain."""
        with self.connection.consumer(self.queue, prefetch=5) as consumer:
            while not self.stop.is_set():
                message = consumer.receive(timeout=0.5)
                if message is None:
                    continue
                body = message.payload
                self.delivered[body] += 1
                time.sleep(WORK)
                try:
                    message.ack()
                    consumer.flush()
                except StaleDelivery:
                    continue  # it comes again
                self.acked.append(body)

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
        through = amqp.url.replace(f":{parse(amqp.url).port}/", f":{proxy.port}/")
        work = Work(through, queue)
        publisher, consumer = work.run(work.publish), work.run(work.consume)
        cuts = 0
        ends = time.monotonic() + CUT_FOR
        while time.monotonic() < ends:
            time.sleep(CUT_EVERY)
            cuts += proxy.reset()
        publisher.join(60.0)
        deadline = time.monotonic() + 45.0
        while len(set(work.acked)) < MESSAGES and time.monotonic() < deadline:
            time.sleep(0.1)
        work.stop.set()
        consumer.join(30.0)
        work.connection.close()
        assert not work.errors
        assert cuts >= CUT_FOR / CUT_EVERY / 2, "the faults hit nothing"
        assert proxy.accepted > 10
        assert len(work.published) == MESSAGES
        assert sorted(set(work.acked)) == sorted(work.published), "lost"
        assert len(work.acked) == MESSAGES, "acked twice"
        info = direct.inspect(queue)
        assert info.ready == 0
    print(f"{cuts} cuts, {sum(work.delivered.values()) - MESSAGES} redeliveries, 0 lost")


def test_a_stalled_broker_ends_in_a_deadline_and_no_later(amqp, proxy):
    """The peer accepts and never answers: every call ends by its own timeout."""
    queue = Queue(amqp.name("work"))
    with Connection(amqp.url) as direct:
        direct.declare(queue)
    through = amqp.url.replace(f":{parse(amqp.url).port}/", f":{proxy.port}/")
    connection = Connection(through, timeout=1.0, connect_timeout=2.0)
    producer = connection.producer()
    producer.publish("before", queue.name)
    proxy.stall()
    begun = time.monotonic()
    with pytest.raises(Exception, match="."):
        producer.publish("during", queue.name)
    assert time.monotonic() - begun < 5.0
    proxy.heal()
    producer.publish("after", queue.name, timeout=20.0)
    connection.close()
