"""The memory store keeps the store contract: on any clock, by name, and with features missing."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import settings

from queue_core.errors import Unsupported
from queue_core.message import Token
from queue_core.policy import SystemClock
from queue_core.testing.clocks import FakeClock
from queue_core.testing.machine import StoreMachine
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import Envelope, Features, Limit, PutResult, Store, Transaction
from queue_core.transports.memory import FEATURES, MemoryBroker, MemoryBrokers, MemoryStore

BROKERS = MemoryBrokers()


def open_by_name(name: str) -> Store:
    """Open a broker of this process as the transport does; other processes import this."""
    return MemoryStore(BROKERS.get(name, SystemClock()))


class PoorStore:
    """A memory store that does the minimum, as one that keeps files in a folder may."""

    def __init__(self, broker: MemoryBroker) -> None:
        rich = self._rich = MemoryStore(broker)
        self.open_session = rich.open_session
        self.heartbeat = rich.heartbeat
        self.sessions = rich.sessions
        self.end_session = rich.end_session
        self.claim = rich.claim
        self.interrupt = rich.interrupt
        self.owned = rich.owned
        self.collect = rich.collect
        self.inspect = rich.inspect
        self.purge = rich.purge
        self.read_table = rich.read_table
        self.write_table = rich.write_table
        self.close = rich.close

    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        if transaction is not None:
            raise Unsupported("transactions", "poor")
        if any(envelope.priority for envelope in batch):
            raise Unsupported("priority", "poor")
        if any(envelope.delay for envelope in batch):
            raise Unsupported("delay", "poor")
        return self._rich.put(batch, versions, settle=settle, limits=limits)

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        if delay:
            raise Unsupported("delay", "poor")
        return self._rich.release(tokens, counted=counted)


class TestMemory(StoreSuite):
    features = FEATURES
    transport = "memory"
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self) -> OpenStore:
        self.clock = FakeClock()
        return functools.partial(MemoryStore, MemoryBroker(self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestMemoryByName(StoreSuite):
    features = FEATURES
    transport = "memory"

    @pytest.fixture
    def open_store(self) -> OpenStore:
        return functools.partial(open_by_name, uuid.uuid4().hex)


class TestPoorStore(StoreSuite):
    features = Features()
    transport = "poor"
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self) -> OpenStore:
        self.clock = FakeClock()
        return functools.partial(PoorStore, MemoryBroker(self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class Machine(StoreMachine):
    features = FEATURES
    exact = True

    def open_store(self) -> OpenStore:
        self.clock = FakeClock()
        return functools.partial(MemoryStore, MemoryBroker(self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class PoorMachine(StoreMachine):
    features = Features()

    def open_store(self) -> OpenStore:
        return functools.partial(PoorStore, MemoryBroker())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestPoorMachine = PoorMachine.TestCase
TestPoorMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
