"""Store handles: who has which, and what becomes of one that failed.

A handle serves one thread at a time. Consumers and the keeper have their own; everybody else takes
one from the `Pool` for the length of a call.

The rules: a handle that raised a transport error is closed and never used again, and when the
connection was lost the idle ones are closed too, since they lead to the same place. The others are
kept until the pool closes: opening one costs more than many calls, and as many threads as came at
once will come again. Waiting for a handle, opening one, and its calls share the deadline of who
asks for it; but a call may always take twice what opening a handle took, up to a second, for stores
that are far away. A handle inherited through a fork is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, TypeVar, cast

from queue_core.errors import (
    Closed,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    SessionLost,
    TransportError,
)
from queue_core.transport import KeyEntry, KeyValue, KeyWrite, Punctual, Store

__all__ = ["Pool", "PooledKeyValue", "close_quietly", "punctual"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_HANDLES: Final = 8
_LEAST: Final = 0.1
"""Seconds that each call may take, however little time its caller has left."""
_FAR: Final = 1.0
"""The same of a store that is far away, at most."""


def close_quietly(store: Store) -> None:
    """Close a handle whose end interests nobody any more."""
    try:
        store.close()
    except QueueCoreError as error:
        logger.debug("closing a store handle failed: %s", error)


def punctual(store: Store) -> Callable[[float], None]:
    """Return the handle's `Punctual.expect_by`; of one that cannot do that, what does nothing."""
    return store.expect_by if isinstance(store, Punctual) else _wait_as_ever


def _wait_as_ever(until: float) -> None:
    pass


class Pool:
    """A few store handles for short calls. Thread-safe."""

    def __init__(self, open_store: Callable[[float], Store]) -> None:
        """Open handles when they are needed, with ``open_store(seconds to do it in)``."""
        self._open = open_store
        self._opening = math.inf  # the least that it ever took
        self._least = _LEAST
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._idle: list[_Loan] = []
        self._used = 0
        self._waiting = 0
        self._closed = False

    def open(self, until: float = math.inf) -> Store:
        """Return a new handle that the caller owns; ``until`` is when it should be open."""
        began = time.monotonic()
        known = 0.0 if self._opening == math.inf else 2 * self._opening
        store = self._open(max(until - began, known, self._least))
        self._opening = min(self._opening, time.monotonic() - began)
        self._least = min(max(_LEAST, 2 * self._opening), _FAR)
        return store

    def within(self, seconds: float) -> float:
        """Return when a call must have ended that has so many seconds (``time.monotonic()``)."""
        return time.monotonic() + max(seconds, self._least)

    def borrow(self, timeout: float = 10.0) -> _Loan:
        """Return a handle, to be used as a context manager; its calls end within the timeout, too.

        Waits at most ``timeout`` seconds for one.

        Raises:
            ConnectTimeout: all handles were in use for that long.
            Closed: the pool is closed.
        """
        until = self.within(timeout)
        with self._lock:
            if self._used >= MAX_HANDLES:
                if not self._wait(timeout):
                    raise ConnectTimeout(
                        f"all {MAX_HANDLES} store handles of this connection were in use"
                        f" for {timeout:g} seconds"
                    )
                until = max(until, self.within(0.0))
            if self._closed:
                raise Closed("the session is closed")
            self._used += 1
            loan = self._idle.pop() if self._idle else None
        try:
            if loan is None:
                loan = _Loan(self, self.open(until))
                until = max(until, self.within(0.0))
            loan.expect_by(until)
            return loan
        except BaseException:
            with self._lock:
                self._free()
            raise

    def _wait(self, timeout: float) -> bool:
        self._waiting += 1
        try:
            return self._freed.wait_for(
                lambda: self._closed or self._used < MAX_HANDLES, min(timeout, 1e6)
            )
        finally:
            self._waiting -= 1

    def _free(self) -> None:
        self._used -= 1
        if self._waiting:  # a condition takes as long to find that out as the rest of `give`
            self._freed.notify()

    def give(self, loan: _Loan) -> None:
        """Take a handle back."""
        with self._lock:
            self._free()
            if not self._closed:
                self._idle.append(loan)
                return
        close_quietly(loan.store)

    def discard(self, loan: _Loan, *, lost: bool) -> None:
        """Throw a handle away; ``lost`` throws the idle ones away too."""
        with self._lock:
            self._free()
            others = self._idle if lost else []
            if lost:
                self._idle = []
        for handle in (loan, *others):
            close_quietly(handle.store)

    def close(self) -> None:
        """Close the idle handles now and the others when they come back. May be called twice."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._freed.notify_all()
        for loan in idle:
            close_quietly(loan.store)


class _Loan(contextlib.AbstractContextManager[Store]):
    """A handle in somebody's hands until the end of the block, or idle."""

    __slots__ = ("_pool", "expect_by", "store")

    def __init__(self, pool: Pool, store: Store) -> None:
        self._pool = pool
        self.store = store
        self.expect_by = punctual(store)

    def __enter__(self) -> Store:
        return self.store

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or (
            isinstance(error, QueueCoreError) and not isinstance(error, TransportError)
        ):
            self._pool.give(self)
        elif isinstance(error, SessionLost):
            self._pool.give(self)
        else:
            self._pool.discard(self, lost=isinstance(error, ConnectionLost))


class PooledKeyValue:
    """A thread-safe `KeyValue` on the handles of a pool."""

    def __init__(self, pool: Pool, timeout: float, check: Callable[[], None]) -> None:
        """Each call has ``timeout`` seconds; ``check`` says whether we are open."""
        self._pool = pool
        self._timeout = timeout
        self._check = check

    def _call(self, operation: Callable[[KeyValue], T]) -> T:
        self._check()
        with self._pool.borrow(self._timeout) as store:
            return operation(cast(KeyValue, store))

    def key_get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        return self._call(lambda store: store.key_get(key))

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """See `KeyValue.key_set`."""
        return self._call(lambda store: store.key_set(key, value, ttl=ttl, version=version))

    def key_set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """See `KeyValue.key_set_many`."""
        return self._call(lambda store: store.key_set_many(writes))

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        return self._call(lambda store: store.key_increment(key, amount, ttl=ttl))

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        return self._call(lambda store: store.key_delete(key, version=version))
