"""Many threads, keepers that run, and a store that loses one call in fifty: nothing is lost."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from queue_core.emulation import EmulatedSession, StoreTransport
from queue_core.errors import ConnectionLost, StaleDelivery
from queue_core.message import Settlement
from queue_core.topology import Queue
from queue_core.transport import SessionOptions
from queue_core.transports.memory import FEATURES, MemoryBroker
from queue_core.url import parse
from tests.unit.emulation.stores import Faults, FaultyStore, publication

T = TypeVar("T")

SECONDS = 1.0
MESSAGES = 1000


class RandomFaults(Faults):
    """Loses a request or a reply now and then, of any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0
        self.random = random.Random(7)

    def next(self, method: str) -> str:
        if self.random.random() >= self.rate:
            return ""
        return self.random.choice(["before", "after"])


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def persist(call: Callable[[], T]) -> T:
    """Repeat a call as a client does whose connection is lost; at most a thousand times."""
    for _ in range(1000):
        try:
            return call()
        except ConnectionLost:
            continue
    raise AssertionError("a thousand lost connections in a row")


class Run:
    """What the threads share."""

    def __init__(self, broker: MemoryBroker, faults: RandomFaults) -> None:
        self.faults = faults
        self.transport = StoreTransport(
            "memory", FEATURES, lambda url, options: FaultyStore(broker, faults)
        )
        self.until = time.monotonic() + SECONDS
        self.published: set[bytes] = set()
        self.doubtful: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.errors: list[BaseException] = []

    def open(self) -> EmulatedSession:
        return persist(lambda: self.transport.open(parse("memory://x"), SessionOptions(lease=30.0)))

    def thread(self, target: Callable[..., None], *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                target(*args)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def publish(self, session: EmulatedSession, name: str) -> None:
        number = 0
        while time.monotonic() < self.until and number < MESSAGES:
            batch = [publication("work", f"{name}-{number + i}".encode()) for i in range(5)]
            number += 5
            tries = 0
            while True:
                try:
                    outcomes = session.publish(batch)
                    break
                except ConnectionLost:
                    tries += 1
                    assert tries < 1000
            assert [outcome.status for outcome in outcomes] == ["confirmed"] * 5
            bodies = {item.body for item in batch}
            self.published |= bodies
            if tries:
                self.doubtful |= bodies

    def consume(self, session: EmulatedSession, name: str, patient: bool) -> None:
        rng = random.Random(name)
        persist(lambda: session.subscribe(name, "work", prefetch=10))
        pending: set[bytes] = set()
        quiet = 0
        while quiet < 3:
            found = persist(lambda: session.receive(name, wait=0.05))
            quiet = 0 if found or time.monotonic() < self.until else quiet + 1
            for delivery in found:
                assert delivery.body not in self.acked - self.doubtful, "acked, delivered again"
                if rng.random() < 0.1:
                    session.settle([Settlement(delivery, "requeue")])
                else:
                    session.settle([Settlement(delivery)])
                    pending.add(delivery.body)
            if rng.random() < 0.2 or quiet:
                persist(lambda: session.flush(name))
                self.acked |= pending
                pending.clear()
            if not patient and rng.random() < 0.05:
                persist(lambda: session.flush(name))
                self.acked |= pending
                pending.clear()
                for _ in range(2):
                    try:
                        session.cancel(name)
                    except ConnectionLost:
                        continue
                persist(lambda: session.subscribe(name, "work", prefetch=10))
        persist(lambda: session.flush(name))
        self.acked |= pending


def test_threads_and_faults_lose_nothing_and_strand_nothing(switching: None) -> None:
    broker, faults = MemoryBroker(), RandomFaults()
    run = Run(broker, faults)
    sessions = [run.open(), run.open()]
    sessions[0].declare(Queue("work"))
    faults.rate = 0.02
    threads = [run.thread(run.publish, sessions[i], name) for i, name in enumerate("ab")]
    for index, name in enumerate("cde"):
        threads.append(run.thread(run.consume, sessions[index % 2], name, index > 0))
    for thread in threads:
        thread.join(50.0)
    assert not run.errors, run.errors
    assert not any(thread.is_alive() for thread in threads)
    faults.rate = 0.0
    for session in sessions:
        session.close()
    assert not broker.sessions
    assert faults.open == 0, "handles were not closed"
    work = broker.queues["work"]
    left = {message.body for message in work.ids.values()}
    assert work.claimed == 0
    assert len(run.published) > 50
    assert run.published <= run.acked | left, "lost"
    assert not (left & run.acked) - run.doubtful, "acked, and still there"


def test_a_settlement_from_another_thread_is_never_sent_twice(switching: None) -> None:
    """Acks race with the keeper and with the next claim; none of them may come too late."""
    broker, faults = MemoryBroker(), RandomFaults()
    run = Run(broker, faults)
    session = run.open()
    session.declare(Queue("work"))
    session.subscribe("c", "work", prefetch=3)
    total = 500
    for start in range(0, total, 100):
        session.publish([publication("work", b"%d" % (start + i)) for i in range(100)])
    queue: list[Any] = []
    done = threading.Event()
    seen = 0

    def acknowledge() -> None:
        while not done.is_set() or queue:
            if queue:
                session.settle([Settlement(queue.pop(0))])
            else:
                time.sleep(0)

    threads = [run.thread(acknowledge) for _ in range(1)]
    deadline = time.monotonic() + 40.0
    while seen < total and time.monotonic() < deadline:
        found = session.receive("c", wait=0.5)
        assert len(found) <= 3
        seen += len(found)
        queue.extend(found)
    done.set()
    for thread in threads:
        thread.join(20.0)
    try:
        session.flush("c")
    except StaleDelivery as error:
        pytest.fail(str(error))
    assert seen == total
    assert not run.errors
    assert not broker.queues["work"].ids
    session.close()
