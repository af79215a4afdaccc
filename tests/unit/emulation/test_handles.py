"""The pool of store handles."""

from __future__ import annotations

from contextlib import ExitStack

from queue_core.emulation.handles import MAX_HANDLES, Pool
from queue_core.transports.memory import MemoryBroker, MemoryStore


def test_handles_that_were_in_use_at_once_are_kept_for_the_next_time() -> None:
    broker, opened = MemoryBroker(), []

    def open_store() -> MemoryStore:
        opened.append(MemoryStore(broker))
        return opened[-1]

    pool = Pool(open_store)
    for _ in range(3):
        with ExitStack() as stack:
            taken = [stack.enter_context(pool.borrow()) for _ in range(MAX_HANDLES)]
            assert len(set(map(id, taken))) == MAX_HANDLES
    assert len(opened) == MAX_HANDLES
    pool.close()
