"""What the tests of `StoreSuite` stand on: a store's author's word, and a bench for one test.

A `StoreBench` belongs to one test. It opens handles on one empty store, says things briefly, and
closes the handles at the end. The defaults of its calls are one queue ``q`` and one session ``s``,
which exists from the start.
"""

from __future__ import annotations

import itertools
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest

from queue_core.errors import Unsupported
from queue_core.message import Token
from queue_core.testing.elsewhere import run_elsewhere
from queue_core.transport import (
    Claim,
    Claimed,
    Envelope,
    Features,
    KeyValue,
    Limit,
    PutResult,
    Store,
    Transaction,
)

OpenStore = Callable[[], Store]
"""Opens one more handle on the test's store; callable from any thread."""

_THREAD_SECONDS = 60.0
_SWITCH_SECONDS = 1e-5


class StoreTests:
    """What a store's author says about it; the base of every part of `StoreSuite`.

    Attributes:
        features: what the store declares. Only the fields up to ``key_value`` matter here.
        transport: the name that its `Unsupported` errors carry; empty if any will do.
        tick: seconds; the time that the tests let pass for something to become due. A store that is
        slow or whose clock
            is coarse needs more.
        exact: time passes only in ``advance``, so that a millisecond before its time nothing has
        happened.
    """

    features: Features
    transport: ClassVar[str] = ""
    tick: ClassVar[float] = 0.2
    exact: ClassVar[bool] = False

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass for the store. With a clock of its own a store overrides this."""
        time.sleep(seconds)

    def user_transaction(self) -> AbstractContextManager[object]:
        """Return a transaction of the caller's own.

        ``with`` gives its handle, commits at its end, and rolls back on an exception. Only for
        stores with `Features.transactions`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs user_transaction(): its features say transactions"
        )

    @pytest.fixture
    def bench(self, open_store: OpenStore) -> Iterator[StoreBench]:
        """Give the test its bench, and close all handles afterwards."""
        bench = StoreBench(self, open_store)
        try:
            yield bench
        finally:
            bench.close()


class StoreBench:
    """Handles on one store, and shorthands for one test."""

    def __init__(self, suite: StoreTests, open_store: OpenStore) -> None:
        self.suite = suite
        self.features = suite.features
        self.tick = suite.tick
        self.open_store = open_store
        self._handles: list[Store] = []
        self._numbers = itertools.count(1)
        self.store = self.open()
        self.store.open_session("s", 30.0)

    def open(self) -> Store:
        """Open one more handle; the bench closes it."""
        store = self.open_store()
        self._handles.append(store)
        return store

    def close(self) -> None:
        """Close every handle."""
        while self._handles:
            self._handles.pop().close()

    def restart(self) -> None:
        """Close every handle, and go on with a new one."""
        self.close()
        self.store = self.open()

    def keys(self, store: Store | None = None) -> KeyValue:
        """Return the store as a `KeyValue`."""
        store = store or self.store
        assert isinstance(store, KeyValue), "Features.key_value, but the methods are missing"
        return store

    def advance(self, seconds: float) -> None:
        """Let time pass; see `StoreTests.advance`."""
        self.suite.advance(seconds)

    def request(self) -> str:
        """Return a fresh id for a claim."""
        return f"request-{next(self._numbers)}"

    # saying things briefly

    def put(
        self,
        *ids: str,
        queue: str = "q",
        settle: Sequence[Token] = (),
        limit: Limit | None = None,
        store: Store | None = None,
        **fields: Any,
    ) -> PutResult:
        """Put one message for each id, with these fields of `Envelope`; it must be accepted."""
        batch = [envelope(name, queue, **fields) for name in ids]
        limits = {queue: limit} if limit else {}
        result = (store or self.store).put(batch, {}, settle=settle, limits=limits)
        assert not result.stale_entries and not result.full
        return result

    def answer(
        self,
        room: int = 100,
        *,
        queue: str = "q",
        session: str = "s",
        wait: float = 0.0,
        settle: Sequence[Token] = (),
        store: Store | None = None,
    ) -> Claimed:
        """Claim from one queue with a fresh request id."""
        store = store or self.store
        return store.claim(session, self.request(), {queue: room}, wait, settle=settle)

    def claim(self, room: int = 100, **options: Any) -> Sequence[Claim]:
        """Return the messages of ``answer``."""
        return self.answer(room, **options).claims

    def claimed(self, room: int = 100, **options: Any) -> list[str]:
        """Return the ids that a claim takes."""
        return ids_of(self.claim(room, **options))

    def claim_one(self, **options: Any) -> Claim:
        """Claim the next message, which must be there."""
        claims = self.claim(1, **options)
        assert len(claims) == 1
        return claims[0]

    def dead(self, session: str = "s") -> dict[str, str]:
        """Collect what is dead: id -> reason. The session holds it then."""
        return {claim.id: claim.reason for claim in self.store.collect(session, 1000)}

    def counts(self, queue: str = "q", store: Store | None = None) -> tuple[int, int, int]:
        """Return the numbers of ready, delayed and claimed messages."""
        counts = (store or self.store).inspect(queue)
        return counts.ready, counts.delayed, counts.claimed

    def crash(self, session: str = "s", *, again: bool = True) -> None:
        """Let the session end as one that died; ``again`` opens it anew."""
        assert self.store.end_session(session, self.store.sessions()[session].beats)
        if again:
            self.store.open_session(session, 30.0)

    # other threads and processes

    def together(self, *functions: Callable[[], object]) -> None:
        """Run the functions in a thread each, begun at the same time; raise the first error.

        Meanwhile the interpreter changes threads after every few instructions. With its usual 5 ms
        each thread would run to its end undisturbed, and a store without any lock would pass.
        """
        barrier = threading.Barrier(len(functions))
        errors: list[BaseException] = []

        def run(function: Callable[[], object]) -> None:
            try:
                barrier.wait(_THREAD_SECONDS)
                function()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(f,), daemon=True) for f in functions]
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_THREAD_SECONDS)
                if thread.is_alive():
                    self._handles.clear()  # it still uses one, and none may be closed under it
                    raise AssertionError("a thread did not come back")
        finally:
            sys.setswitchinterval(usual)
        for error in errors:
            raise error

    # features

    def lacks(self, feature: str) -> bool:
        """Return whether the store declares that it cannot do ``feature``.

        Then it has been checked that it says so when asked.
        """
        if getattr(self.features, feature):
            return False
        if feature == "priority":
            self._refuses(
                feature, lambda: self.store.put([envelope("x", "refused", priority=1)], {})
            )
        elif feature == "delay":
            self._refuses(
                feature, lambda: self.store.put([envelope("x", "refused", delay=1.0)], {})
            )
            self.put("released", queue="refused")
            token = self.claim_one(queue="refused").token
            self._refuses(feature, lambda: self.store.release([token], delay=1.0))
            assert not self.store.put([], {}, settle=[token]).stale_tokens
        elif feature == "transactions":
            transaction = Transaction(object(), lambda _: None)
            self._refuses(
                feature,
                lambda: self.store.put([envelope("x", "refused")], {}, transaction=transaction),
            )
        elif feature == "key_value":
            assert not isinstance(self.store, KeyValue), "key_value is there but not declared"
        elif feature == "shared" and self._can_go_elsewhere():
            self.put("here", queue="unshared")
            assert run_elsewhere(_count_there, self.open_store, "unshared") == 0
        elif feature == "durable" and not self.features.shared and self._can_go_elsewhere():
            run_elsewhere(_put_there, self.open_store, "lost", ["there"])
            assert self.counts("lost") == (0, 0, 0)
        return True

    def _can_go_elsewhere(self) -> bool:
        """Return whether another process could open the store: its opener is picklable."""
        try:
            pickle.dumps(self.open_store)
        except (TypeError, AttributeError, pickle.PicklingError):
            return False
        return True

    def _refuses(self, feature: str, call: Callable[[], object]) -> None:
        with pytest.raises(Unsupported) as caught:
            call()
        assert caught.value.feature == feature
        assert caught.value.transport == (self.suite.transport or caught.value.transport)
        assert self.counts("refused")[:2] == (0, 0), "a put that was refused stored something"


def envelope(id: str, queue: str = "q", **fields: Any) -> Envelope:  # noqa: A002 - as in Envelope
    """Make an envelope; body and properties follow from its id unless they are given."""
    fields.setdefault("body", b"body of " + id.encode())
    fields.setdefault("properties", b"properties of " + id.encode())
    return Envelope(queue, id, **fields)


def ids_of(claims: Iterable[Claim]) -> list[str]:
    """Return the ids of the claims, in their order."""
    return [claim.id for claim in claims]


def tokens_of(claims: Iterable[Claim]) -> list[Token]:
    """Return the tokens of the claims, in their order."""
    return [claim.token for claim in claims]


# What other processes do; they import this module.


def _count_there(open_store: OpenStore, queue: str) -> int:
    store = open_store()
    try:
        return store.inspect(queue).ready
    finally:
        store.close()


def _put_there(open_store: OpenStore, queue: str, ids: Sequence[str]) -> None:
    store = open_store()
    try:
        store.put([envelope(name, queue) for name in ids], {})
    finally:
        store.close()
