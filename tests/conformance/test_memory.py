"""The memory store keeps the store contract: on a clock set by hand, on the machine's, by URL."""

from __future__ import annotations

import functools

import pytest

from queue_core.testing.clocks import FakeClock
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transports.memory import FEATURES, MemoryBroker, MemoryStore


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
