"""The handle on a memory broker, and the brokers of a process."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from queue_core.policy import Clock
from queue_core.process import PerProcess
from queue_core.state import StateStore
from queue_core.transport import Claim, Durability, SessionOptions, Store, Survives
from queue_core.transports.memory.broker import Interrupt, MemoryBroker
from queue_core.url import BrokerURL


class MemoryStore(StateStore):
    """A handle on a `MemoryBroker`: `Store` and `KeyValue`.

    Handles cost nothing, and closing one has no effect on others.
    """

    name = "memory"

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self._interrupt = Interrupt(broker.lock)

    def step(self) -> MemoryBroker:
        """See `StateStore.step`. What is changed in the broker is changed for all."""
        return self.broker

    def now(self) -> float:
        """Return the present of the broker's clock."""
        return self.broker.clock.monotonic()

    def wait_and_take(
        self, session: str, life: int, request: str, wants: Mapping[str, int], wait: float
    ) -> list[Claim]:
        """See `StateStore.wait_and_take`. Messages wake it, so that it need not look."""
        with self.broker as broker:
            taken = broker.wait_and_take(session, life, request, wants, wait, self._interrupt)
            self._interrupt.requested = False
            return [self.hand_over(message) for message in taken]

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        with self.broker:
            self._interrupt.requested = True
            self._interrupt.signal.notify_all()

    def durability(self, queue: str = "") -> Durability:
        """See `Detector.durability`."""
        return Durability(Survives.NOTHING, "the broker is this process's own memory")


class MemoryBrokers:
    """The memory brokers of a process, by name. A broker is made at its first use.

    A forked child begins without any: what its parent has is nobody else's.
    """

    def __init__(self) -> None:
        self._brokers = PerProcess(_Brokers)

    def open(self, url: BrokerURL, options: SessionOptions) -> Store:
        """Return a handle on the broker that the URL names; see `StoreTransport`."""
        return MemoryStore(self.get(url.host or "default", options.clock))

    def get(self, name: str, clock: Clock) -> MemoryBroker:
        """Return the broker; an older one keeps the clock that it was made with."""
        brokers = self._brokers.get()
        with brokers.lock:
            if name not in brokers.named:
                brokers.named[name] = MemoryBroker(clock)
            return brokers.named[name]


class _Brokers:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.named: dict[str, MemoryBroker] = {}
