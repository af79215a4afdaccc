"""A broker that does what a test tells it, and the Transport that hands out its sessions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from queue_core.errors import ConnectTimeout, QueueCoreError
from queue_core.message import Delivery, Properties, Publication, Settlement
from queue_core.policy import Backoff
from queue_core.recovery import Recovery
from queue_core.testing.clocks import FakeClock
from queue_core.topology import Entity
from queue_core.transport import Features, KeyValue, Outcome, QueueInfo, Session, SessionOptions
from queue_core.url import BrokerURL, parse


class PlainReader:
    """Reads raw properties that are nothing but a content type."""

    def content(self, raw: bytes) -> tuple[str, str, str | None]:
        return raw.decode(), "utf-8", None

    def properties(self, raw: bytes) -> Properties:
        return Properties(raw.decode(), "utf-8", {"lang": "en"})


class ScriptedSession:
    """Records every call; ``failures`` are raised one by one before anything else happens."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self.broker = broker
        self.closed = False
        self.fenced = False
        self.features = Features(delay=True)
        self.calls: list[tuple[object, ...]] = []
        self.settled: list[Settlement] = []

    @property
    def holds(self) -> bool:
        return not self.closed and not self.fenced

    def _called(self, *call: object) -> None:
        self.calls.append(call)
        if self.broker.failures:
            failure = self.broker.failures.popleft()
            if failure is not None:
                self.closed = self.broker.dies
                raise failure

    def declare(self, entity: Entity, *, passive: bool = False, timeout: float = 10.0) -> str:
        self._called("declare", entity)
        if timeout < self.broker.slowness:
            raise ConnectTimeout("no answer in time")
        self.broker.clock.advance(self.broker.slowness)
        return getattr(entity, "name", "") or "generated"

    def delete(
        self,
        entity: Entity,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float = 10.0,
    ) -> bool:
        self._called("delete", entity)
        return True

    def inspect(self, queue: str, *, timeout: float = 10.0) -> QueueInfo:
        self._called("inspect", queue)
        return QueueInfo(queue, 3)

    def purge(self, queue: str, *, timeout: float = 10.0) -> int:
        self._called("purge", queue)
        return 3

    def publish(
        self,
        publications: Sequence[Publication],
        *,
        timeout: float = 10.0,
        transaction: object | None = None,
    ) -> Sequence[Outcome]:
        self._called("publish", *(publication.id for publication in publications))
        self.broker.published += publications
        if self.broker.outcomes:
            return self.broker.outcomes.popleft()[: len(publications)]
        return [Outcome("confirmed") for _ in publications]

    def subscribe(self, consumer: str, queue: str, *, prefetch: int, timeout: float = 10.0) -> None:
        self._called("subscribe", queue, prefetch)
        self.broker.on_subscribe()

    def cancel(self, consumer: str, queue: str | None = None, *, timeout: float = 10.0) -> None:
        self._called("cancel", queue)

    def receive(
        self, consumer: str, *, limit: int = 1000, wait: float = 1.0, timeout: float = math.inf
    ) -> Sequence[Delivery]:
        self._called("receive")
        if self.broker.batches:
            return self.broker.batches.popleft()
        self.broker.clock.advance(wait)
        return []

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self.settled += settlements

    def settle_then(
        self, delivery: Delivery, then: Sequence[Publication], *, timeout: float = 10.0
    ) -> Sequence[Outcome]:
        outcomes = self.publish(then)
        if all(outcome.status == "confirmed" for outcome in outcomes):
            self.settled.append(Settlement(delivery))
        return outcomes

    def flush(self, consumer: str, *, timeout: float = 10.0) -> None:
        self._called("flush")

    def stop(self, consumer: str) -> None:
        self._called("stop")

    def wake(self, consumer: str) -> None:
        pass

    def key_value(self, *, timeout: float = 10.0) -> KeyValue:
        raise NotImplementedError

    def close(self, *, timeout: float = 10.0) -> None:
        self.calls.append(("close",))
        self.closed = True


class ScriptedBroker:
    """What the sessions share, and the Transport that opens them."""

    name = "scripted"
    features = Features(delay=True)

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sessions: list[ScriptedSession] = []
        self.failures: deque[QueueCoreError | None] = deque()
        self.refusals: deque[QueueCoreError] = deque()
        self.outcomes: deque[Sequence[Outcome]] = deque()
        self.batches: deque[Sequence[Delivery]] = deque()
        self.published: list[Publication] = []
        self.dies = True
        self.slowness = 0.0
        self.on_subscribe: Callable[[], None] = lambda: None
        self.asked: list[SessionOptions] = []
        self.opened: list[BrokerURL] = []

    def check(self, url: BrokerURL) -> None:
        pass

    def open(self, url: BrokerURL, options: SessionOptions) -> Session:
        self.opened.append(url)
        self.asked.append(options)
        if self.refusals:
            raise self.refusals.popleft()
        session = ScriptedSession(self)
        self.sessions.append(session)
        return session

    def delivery(
        self,
        body: bytes = b"1",
        content_type: str = "application/json",
        queue: str = "q",
        attempts: int = 1,
    ) -> Delivery:
        return Delivery(
            "c", queue, "x", "key", body, content_type.encode(), PlainReader(), object(), attempts
        )


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def recovery(broker: ScriptedBroker) -> Iterator[Recovery]:
    """A recovery over two URLs whose waits pass on the fake clock."""
    options = SessionOptions(clock=broker.clock, node="shop")
    made = Recovery(
        [(parse("memory://a"), broker), (parse("memory://b"), broker)], options, Backoff()
    )
    made._closing = _FakeEvent(broker.clock)  # type: ignore[assignment]  # waits on the fake clock
    yield made
    made.close(timeout=1.0)


class _FakeEvent:
    """A threading.Event whose wait takes no real time."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0.0)
        return self._set
