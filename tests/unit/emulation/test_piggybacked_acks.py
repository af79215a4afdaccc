"""Acks that travel with a publish: settled by it, or by somebody else soon after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from queue_core.emulation import EmulatedSession
from queue_core.errors import BrokerFull, ConnectionLost, QueueNotFound, StaleDelivery
from queue_core.topology import Queue
from queue_core.transports.memory import MemoryStore
from tests.unit.emulation.stores import Bench, ack, bodies, publication, send


@pytest.fixture
def session(bench: Bench) -> Iterator[EmulatedSession]:
    made = bench.open()
    made.declare(Queue("work"))
    made.declare(Queue("full", max_length=0, overflow="reject-publish"))
    made.subscribe("c", "work", prefetch=2)
    yield made
    bench.faults.plan.clear()
    made.close()


def acked(session: EmulatedSession, *sent: bytes) -> None:
    """Take what is sent, and ack it."""
    send(session, "work", *sent)
    found = session.receive("c", wait=0)
    assert bodies(found) == list(sent)
    ack(session, found)


def puts(bench: Bench) -> int:
    return bench.faults.calls.count("put")


def unacked(session: EmulatedSession) -> int | None:
    return session.inspect("work").unacked


def test_pending_acks_are_settled_by_the_next_publish(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("other"))
    session.subscribe("d", "other", prefetch=1)
    acked(session, b"1", b"2")
    send(session, "other", b"3")
    ack(session, session.receive("d", wait=0))
    before = puts(bench)
    send(session, "work", b"4")
    assert puts(bench) == before + 1
    assert unacked(session) == session.inspect("other").unacked == 0
    session.tick()
    session.flush("c")
    session.flush("d")
    assert puts(bench) == before + 1, "nothing was left to send"


def test_a_publish_without_pending_acks_settles_nothing(
    session: EmulatedSession,
) -> None:
    send(session, "work", b"1")
    found = session.receive("c", wait=0)
    send(session, "work", b"2")
    assert unacked(session) == 1
    ack(session, found)
    session.flush("c")


@pytest.mark.parametrize("fault", ["before", "after"])
def test_acks_of_a_lost_publish_are_sent_again_without_one_and_are_not_stale(
    bench: Bench, session: EmulatedSession, fault: str
) -> None:
    acked(session, b"1")
    again = publication("work", b"2")
    bench.faults.plan[:] = [fault]
    with pytest.raises(ConnectionLost):
        session.publish([again])
    session.publish([again])
    assert unacked(session) == (1 if fault == "before" else 0), "it does not travel twice"
    bench.clock.advance(1.0)
    session.tick()
    assert unacked(session) == 0
    session.flush("c")
    assert bodies(session.receive("c", wait=0)) == [b"2"]


def test_publishes_that_a_full_store_refuses_do_not_keep_acks_from_it(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    acked(session, b"1")
    put = MemoryStore.put

    def full(self: MemoryStore, batch: Any, versions: Any, **options: Any) -> Any:
        if batch:
            raise BrokerFull("no room")
        return put(self, batch, versions, **options)

    monkeypatch.setattr(MemoryStore, "put", full)
    for _ in range(3):
        with pytest.raises(BrokerFull):
            session.publish([publication("work")])
        bench.clock.advance(0.3)
        session.tick()
    assert unacked(session) == 0


@pytest.mark.parametrize("count", [1, 3])
def test_acks_are_settled_although_a_full_queue_refuses_what_they_travel_with(
    session: EmulatedSession, count: int
) -> None:
    acked(session, b"1")
    outcomes = session.publish([publication("full") for _ in range(count)])
    assert {outcome.status for outcome in outcomes} == {"refused"}
    assert unacked(session) == 0
    session.flush("c")


def test_acks_are_settled_although_nobody_wants_what_they_travel_with(
    session: EmulatedSession,
) -> None:
    acked(session, b"1")
    (outcome,) = session.publish([publication("nowhere", mandatory=True)])
    assert outcome.status == "unroutable"
    assert unacked(session) == 0
    acked(session, b"2")
    with pytest.raises(QueueNotFound):
        session.publish([publication("key", exchange="no such exchange")])
    assert unacked(session) == 0
    session.flush("c")


def test_of_several_puts_the_first_settles(bench: Bench, session: EmulatedSession) -> None:
    acked(session, b"1")
    bench.faults.plan[:] = ["", "before"]
    with pytest.raises(ConnectionLost):
        session.publish([publication("work", bytes(60_000)) for _ in range(2)])
    assert unacked(session) == 0
    before = puts(bench)
    session.flush("c")
    assert puts(bench) == before


def test_acks_on_their_way_make_no_room_yet(bench: Bench, session: EmulatedSession) -> None:
    send(session, "work", b"1", b"2", b"3")
    ack(session, session.receive("c", wait=0))
    meanwhile: list[list[bytes]] = []

    def receive(method: str) -> None:
        if method == "put":
            bench.faults.hook = lambda method: None
            meanwhile.append(bodies(session.receive("c", wait=0)))

    bench.faults.hook = receive
    send(session, "work", b"4")
    assert meanwhile == [[]]
    assert bodies(session.receive("c", wait=0)) == [b"3", b"4"]


def test_an_ack_that_came_too_late_is_reported_by_flush(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    (delivery,) = session.receive("c", wait=0)
    assert not MemoryStore(bench.broker).release([delivery.token])
    ack(session, [delivery])
    send(session, "work", b"2")
    with pytest.raises(StaleDelivery, match="1 settlement "):
        session.flush("c")
    assert session.inspect("work").ready == 2
