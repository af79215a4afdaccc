"""What the AMQP tests stand on: sessions and queues that are put away after the test."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from queue_core.errors import QueueCoreError
from queue_core.message import Delivery, Properties, Publication, Settlement
from queue_core.topology import Exchange, Queue
from queue_core.transport import Outcome, SessionOptions
from queue_core.transports.amqp import transport
from queue_core.transports.amqp.session import AmqpSession
from queue_core.url import BrokerURL, parse


class AmqpBench:
    """Sessions on one broker, and shorthands."""

    def __init__(self, url: str) -> None:
        self.url = parse(url)
        self._sessions: list[AmqpSession] = []
        self._made: list[Exchange | Queue] = []
        self.session = self.open()

    def at(self, port: int, **options: str) -> BrokerURL:
        """Return the broker's URL with another port on this host, and options."""
        return replace(self.url, host="127.0.0.1", port=port, options=options)

    def open(self, url: BrokerURL | None = None, **options: Any) -> AmqpSession:
        session = transport.open(url or self.url, SessionOptions(**options))
        assert isinstance(session, AmqpSession)
        self._sessions.append(session)
        return session

    def queue(self, **fields: Any) -> str:
        queue = Queue(f"queue-{uuid.uuid4().hex[:12]}", **fields)
        self.session.declare(queue)
        self._made.append(Queue(queue.name))
        return queue.name

    def exchange(self, kind: Any = "direct") -> str:
        exchange = Exchange(f"exchange-{uuid.uuid4().hex[:12]}", kind)
        self.session.declare(exchange)
        self._made.append(exchange)
        return exchange.name

    def close(self) -> None:
        for session in self._sessions:
            if session is not self.session:
                session.close(timeout=2.0)
        if self.session.closed:
            self.session = self.open()
        for entity in self._made:
            try:
                self.session.delete(entity)
            except QueueCoreError:
                if self.session.closed:
                    self.session = self.open()
        for session in self._sessions:
            session.close(timeout=2.0)


def message(
    queue: str, body: bytes = b"x", *, exchange: str = "", mandatory: bool = True, **fields: Any
) -> Publication:
    return Publication(exchange, queue, body, Properties(**fields), uuid.uuid4().hex, mandatory)


def send(session: AmqpSession, queue: str, *bodies: bytes, timeout: float = 10.0) -> None:
    outcomes = session.publish([message(queue, body) for body in bodies], timeout=timeout)
    assert {outcome.status for outcome in outcomes} <= {"confirmed"}, outcomes


def statuses(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def take(
    session: AmqpSession, consumer: str, count: int, *, within: float = 10.0
) -> list[Delivery]:
    """Receive exactly ``count`` deliveries."""
    deadline = time.monotonic() + within
    got: list[Delivery] = []
    while len(got) < count and time.monotonic() < deadline:
        got += session.receive(consumer, limit=count - len(got), wait=0.2)
    assert len(got) == count, f"{len(got)} of {count}"
    return got


def acks(deliveries: Sequence[Delivery]) -> list[Settlement]:
    return [Settlement(delivery) for delivery in deliveries]
