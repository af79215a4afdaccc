"""Stores that misbehave on purpose, and a short way to a session on one."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from queue_core.emulation import EmulatedSession, StoreTransport
from queue_core.errors import ConnectionLost
from queue_core.message import Delivery, Properties, Publication, Settlement
from queue_core.testing.clocks import FakeClock
from queue_core.transport import SessionOptions
from queue_core.transports.memory import FEATURES, MemoryBroker, MemoryStore
from queue_core.url import parse

METHODS = frozenset(
    """open_session heartbeat sessions end_session put claim owned release collect inspect purge
    read_table write_table""".split()
)


class Faults:
    """What goes wrong next; shared by the handles of one broker.

    ``plan`` is used up call by call: ``before`` loses the request, ``after`` the reply, ``late``
    has the request arrive when ``arrive`` is called, anything else lets the call pass. ``hook`` is
    called before each method.
    """

    def __init__(self) -> None:
        self.plan: list[str] = []
        self.only: frozenset[str] = METHODS
        self.calls: list[str] = []
        self.hook: Callable[[str], None] = lambda method: None
        self.open = 0
        self.lock = threading.Lock()
        self.late: list[Callable[[], object]] = []

    def arrive(self) -> None:
        """Let the requests arrive that their senders have given up."""
        late, self.late = self.late, []
        for request in late:
            request()

    def next(self, method: str) -> str:
        self.calls.append(method)
        self.hook(method)
        return self.plan.pop(0) if self.plan and method in self.only else ""


class FaultyStore:
    """A handle on a memory broker that breaks as planned, and must not be used afterwards."""

    def __init__(self, broker: MemoryBroker, faults: Faults) -> None:
        self._real = MemoryStore(broker)
        self._faults = faults
        self._broken = self._closed = self._used = False
        with faults.lock:
            faults.open += 1

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*args: Any, **options: Any) -> Any:
            assert not self._broken, f"{name} on a handle that raised ConnectionLost"
            assert not self._closed, f"{name} on a closed handle"
            assert not self._used, f"{name} on a handle that another thread uses"
            self._used = True
            try:
                fault = self._faults.next(name)
                self._broken = fault in ("before", "after", "late")
                if fault == "late":
                    self._faults.late.append(partial(method, *args, **options))
                    raise ConnectionLost(f"the request {name} was given up")
                if fault == "before":
                    raise ConnectionLost(f"the request {name} was lost")
                result = method(*args, **options)
                if fault == "after":
                    raise ConnectionLost(f"the reply to {name} was lost")
                return result
            finally:
                self._used = False

        return call

    def interrupt(self) -> None:
        self._real.interrupt()

    def close(self) -> None:
        assert not self._used, "closed while another thread uses it"
        assert not self._closed, "closed twice"
        self._closed = True
        with self._faults.lock:
            self._faults.open -= 1


class Bench:
    """A memory broker on a fake clock, with sessions that run without a keeper thread."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.broker = MemoryBroker(self.clock)
        self.faults = Faults()
        self.options: dict[str, Any] = {
            "lease": 10.0,
            "keeper": False,
            "clock": self.clock,
        } | options
        self.transport = StoreTransport(
            "memory", FEATURES, lambda url, options: FaultyStore(self.broker, self.faults)
        )

    def open(self, **options: Any) -> EmulatedSession:
        return self.transport.open(
            parse("memory://bench"), SessionOptions(**(self.options | options))
        )

    def pass_time(self, seconds: float, *sessions: EmulatedSession, step: float = 0.5) -> None:
        """Let time pass while the keepers of these sessions work."""
        for session in sessions:
            session.tick()
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            for session in sessions:
                session.tick()


def publication(key: str, body: bytes = b"x", exchange: str = "", **options: Any) -> Publication:
    properties = Properties(**options.pop("properties", {}))
    return Publication(exchange, key, body, properties, uuid.uuid4().hex, **options)


def send(session: EmulatedSession, key: str, *bodies: bytes, **options: Any) -> None:
    outcomes = session.publish([publication(key, body, **options) for body in bodies])
    assert [outcome.status for outcome in outcomes] == ["confirmed"] * len(bodies)


def ack(session: EmulatedSession, deliveries: Sequence[Delivery]) -> None:
    session.settle([Settlement(delivery) for delivery in deliveries])


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]
