"""The bench of the store suite."""

from __future__ import annotations

import threading

import pytest

from queue_core.testing import store_bench
from queue_core.testing.store_bench import StoreBench, StoreTests
from queue_core.transport import Features
from queue_core.transports.memory.broker import MemoryBroker
from queue_core.transports.memory.store import MemoryStore


class Suite(StoreTests):
    features = Features()


def test_no_handle_is_closed_under_a_thread_that_did_not_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_bench, "_THREAD_SECONDS", 0.2)
    closed: list[object] = []
    broker, goes_on = MemoryBroker(), threading.Event()
    monkeypatch.setattr(MemoryStore, "close", closed.append)
    bench = StoreBench(Suite(), lambda: MemoryStore(broker))
    with pytest.raises(AssertionError, match="did not come back"):
        bench.together(goes_on.wait)
    bench.close()
    goes_on.set()
    assert closed == []
