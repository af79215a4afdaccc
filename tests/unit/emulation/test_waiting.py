"""A receive that waits at the store comes back at once for what it could not know of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from queue_core.emulation import EmulatedSession
from queue_core.errors import Closed
from queue_core.message import Delivery
from queue_core.topology import Queue
from tests.unit.emulation.stores import Bench, ack, bodies, send

SOON = 3.0
"""Seconds within which something is at once, even on a busy machine; the waits are far longer."""

LONG = 10.0


@pytest.fixture
def session(bench: Bench) -> EmulatedSession:
    session = bench.open()
    for name in ("a", "b"):
        session.declare(Queue(name))
        session.subscribe("c", name, prefetch=1)
    return session


class Receiving:
    """A receive on a thread of its own."""

    def __init__(self, session: EmulatedSession) -> None:
        self.found: list[Delivery] = []
        self._session = session
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(Closed):
            self.found += self._session.receive("c", wait=LONG)

    def ends_soon(self) -> bool:
        self._thread.join(SOON)
        return not self._thread.is_alive()

    def goes_on(self) -> bool:
        self._thread.join(0.5)
        return self._thread.is_alive()

    def ends_sometime(self) -> None:
        self._thread.join(2 * LONG)


@contextmanager
def waiting(bench: Bench, session: EmulatedSession) -> Iterator[Receiving]:
    """A receive whose claim waits at the store."""
    before = bench.faults.calls.count("claim")
    receiving = Receiving(session)
    until = time.monotonic() + LONG
    while bench.faults.calls.count("claim") == before or not bench.broker.waiters:
        assert time.monotonic() < until, "no claim waits"
        time.sleep(0.001)
    try:
        yield receiving
    finally:
        session.wake("c")
        receiving.ends_sometime()


def timed(call: Callable[[], Any]) -> float:
    before = time.monotonic()
    call()
    return time.monotonic() - before


def test_an_ack_and_the_wait_for_more_are_one_call(bench: Bench, session: EmulatedSession) -> None:
    send(session, "a", b"1")
    ack(session, session.receive("c"))
    before = len(bench.faults.calls)
    with waiting(bench, session):
        assert bench.faults.calls[before:] == ["claim"]
        assert not bench.broker.queues["a"].ids


def test_flush_does_not_wait_for_a_claim_that_took_the_acks_along(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "a", b"1")
    ack(session, session.receive("c"))
    with waiting(bench, session) as receiving:
        assert timed(lambda: session.flush("c")) < SOON
        assert receiving.goes_on()


def test_wake_ends_a_receive_that_waits_at_the_store(
    bench: Bench, session: EmulatedSession
) -> None:
    with waiting(bench, session) as receiving:
        session.wake("c")
        assert receiving.ends_soon()
        assert receiving.found == []


def test_closing_and_cancelling_end_it_too(bench: Bench) -> None:
    for end in (EmulatedSession.close, lambda session: session.cancel("c")):
        session = bench.open()
        session.declare(Queue("a"))
        session.subscribe("c", "a", prefetch=1)
        receiving = Receiving(session)
        time.sleep(0.02)
        assert timed(lambda end=end, session=session: end(session)) < SOON  # type: ignore[misc]
        receiving.ends_sometime()


def test_room_in_a_window_that_was_full_ends_the_wait_for_the_others(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "a", b"1", b"2")
    (first,) = session.receive("c")
    with waiting(bench, session) as receiving:
        ack(session, [first])
        assert receiving.ends_soon()
        assert bodies(receiving.found) == [b"2"]


def test_a_queue_subscribed_to_meanwhile_is_waited_for_too(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("new"))
    send(session, "new", b"1")
    with waiting(bench, session) as receiving:
        session.subscribe("c", "new", prefetch=1)
        assert receiving.ends_soon()
        assert bodies(receiving.found) == [b"1"]


def test_a_wake_that_comes_before_the_claim_is_not_lost(
    bench: Bench, session: EmulatedSession
) -> None:
    """At the latest moment: the ledger was looked at, the store was not called yet."""
    new_request = session._core.new_request

    def wake_first() -> str:
        session.wake("c")
        return new_request()

    session._core.new_request = wake_first  # type: ignore[method-assign]
    assert timed(lambda: session.receive("c", wait=LONG)) < SOON


def test_flush_waits_for_acks_that_were_taken_and_are_not_on_their_way_yet(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "a", b"1")
    ack(session, session.receive("c"))
    new_request = session._core.new_request
    flushed = threading.Event()
    flushing: list[threading.Thread] = []

    def flush() -> None:
        session.flush("c")
        assert not bench.broker.queues["a"].ids, "flush returned too early"
        flushed.set()

    def flush_meanwhile() -> str:
        if not flushing:
            flushing.append(threading.Thread(target=flush))
            flushing[0].start()
            flushed.wait(0.1)
        return new_request()

    session._core.new_request = flush_meanwhile  # type: ignore[method-assign]
    session.receive("c", wait=0.2)
    flushing[0].join(LONG)
    assert flushed.is_set()
