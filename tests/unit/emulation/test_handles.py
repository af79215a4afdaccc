"""The pool of store handles."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from queue_core.emulation.handles import MAX_HANDLES, Pool, PooledKeyValue
from queue_core.errors import ConnectionLost, ConnectTimeout
from queue_core.transports.memory import MemoryBroker, MemoryStore


class PunctualStore(MemoryStore):
    """Notes until when its calls may last."""

    until = 0.0
    closed = False

    def expect_by(self, until: float) -> None:
        self.until = until

    def close(self) -> None:
        self.closed = True


class Stores:
    """Opens handles, and remembers them and how long it was given."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.opened: list[PunctualStore] = []
        self.seconds: list[float] = []

    def open(self, seconds: float) -> PunctualStore:
        self.seconds.append(seconds)
        self.opened.append(PunctualStore(self.broker))
        return self.opened[-1]


def test_handles_that_were_in_use_at_once_are_kept_for_the_next_time() -> None:
    stores = Stores()
    pool = Pool(stores.open)
    for _ in range(3):
        with ExitStack() as stack:
            taken = [stack.enter_context(pool.borrow()) for _ in range(MAX_HANDLES)]
            assert len(set(map(id, taken))) == MAX_HANDLES
    assert len(stores.opened) == MAX_HANDLES
    pool.close()


def test_opening_a_handle_and_its_calls_have_the_time_of_who_asks_for_it() -> None:
    stores = Stores()
    pool = Pool(stores.open)
    for seconds in (60.0, 600.0):
        with pool.borrow(seconds):
            (store,) = stores.opened
            assert seconds - 30 < store.until - time.monotonic() <= seconds
    assert 30 < stores.seconds[0] <= 60
    with pool.borrow(0.0):
        assert store.until - time.monotonic() < 30
    pool.close()


def test_a_handle_that_gave_a_call_up_is_not_used_again() -> None:
    stores = Stores()
    pool = Pool(stores.open)
    with pytest.raises(ConnectTimeout), pool.borrow():
        raise ConnectTimeout("no answer in time")
    assert stores.opened[0].closed
    with pool.borrow():
        assert len(stores.opened) == 2
    pool.close()


def test_a_store_far_away_has_more_time_than_it_took_to_connect() -> None:
    stores = Stores()

    def open_slowly(seconds: float) -> PunctualStore:
        time.sleep(0.2)
        return stores.open(seconds)

    pool = Pool(open_slowly)
    with pool.borrow(10.0):
        pass
    begun = time.monotonic()
    with pool.borrow(0.01):
        assert stores.opened[0].until >= begun + 0.4
    pool.close()


def test_a_key_waits_for_a_handle_no_longer_than_its_call_may_take() -> None:
    pool = Pool(Stores().open)
    keys = PooledKeyValue(pool, 0.2, lambda: None)
    with ExitStack() as stack:
        for _ in range(MAX_HANDLES):
            stack.enter_context(pool.borrow())
        begun = time.monotonic()
        with pytest.raises(ConnectionLost, match="in use"):
            keys.key_get("k")
        assert 0.15 < time.monotonic() - begun < 5.0
    assert keys.key_get("k") is None
    pool.close()
