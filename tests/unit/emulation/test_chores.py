"""What a session could not do at once: it is done later, once, and before the session ends."""

from __future__ import annotations

import threading

import pytest

from queue_core.errors import ConnectionLost
from queue_core.message import Settlement
from queue_core.topology import Queue
from tests.unit.emulation.stores import Bench, ack, send


def test_a_cancel_for_which_no_handle_can_be_opened_strands_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    session = bench.open()
    session.declare(Queue("work"))
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=2)
    ack(session, session.receive("c", wait=0)[:1])

    def refuse(timeout: float) -> object:
        raise ConnectionLost("the broker is away")

    with monkeypatch.context() as patched:
        patched.setattr(session._pool, "borrow", refuse)
        with pytest.raises(ConnectionLost):
            session.cancel("c")
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked, info.consumers) == (1, 0, 0)
    session.close()


def test_chores_that_fail_wait_once_and_are_not_tried_without_a_pause() -> None:
    bench = Bench()
    session = bench.open()
    session.declare(Queue("work"))
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=2)
    ack(session, session.receive("c", wait=0)[:1])
    bench.faults.plan[:] = ["before"] * 1000
    with pytest.raises(ConnectionLost):
        session.cancel("c")
    waiting = len(session._core.chores)
    for _ in range(20):
        session.tick()
    assert len(session._core.chores) <= waiting
    bench.faults.plan.clear()
    session.tick()
    assert not session._core.chores
    assert session.inspect("work").ready == 1
    session.close()


def test_what_a_cancelled_consumer_held_goes_back_however_often_that_fails() -> None:
    bench = Bench()
    session = bench.open()
    session.declare(Queue("work"))
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=2)
    session.receive("c", wait=0)
    bench.faults.plan[:] = ["before"] * 4
    bench.faults.only = frozenset({"release"})
    with pytest.raises(ConnectionLost):
        session.cancel("c")
    for _ in range(4):
        assert session.inspect("work").unacked == 2
        session.tick()
    assert session.inspect("work").ready == 2
    session.close()


def test_acks_of_an_interrupted_cancel_are_sent_before_the_session_ends() -> None:
    bench = Bench()
    session = bench.open()
    session.declare(Queue("work"))
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=2)
    ack(session, session.receive("c", wait=0))
    bench.faults.plan[:] = ["before"]
    with pytest.raises(ConnectionLost):
        session.cancel("c")
    session.close()
    other = bench.open()
    assert other.inspect("work").ready == 0
    other.close()


def test_flush_sends_what_somebody_else_failed_to_send() -> None:
    bench = Bench()
    session = bench.open()
    session.declare(Queue("work", max_deliveries=5))
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=2)
    [delivery] = session.receive("c", wait=0)
    session._core.table.forget(["q:work"])  # so that the keeper reads before it sends
    session.settle([Settlement(delivery, "requeue")])
    started, go_on = threading.Event(), threading.Event()

    def hold_up(method: str) -> None:
        if method == "read_table" and threading.current_thread() is keeper:
            bench.faults.hook = lambda method: None
            started.set()
            assert go_on.wait(30)
            bench.faults.plan[:] = ["before"]

    bench.faults.hook = hold_up
    keeper = threading.Thread(target=session.tick)
    keeper.start()
    assert started.wait(30)
    threading.Timer(0.1, go_on.set).start()
    session.flush("c")
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (1, 0)
    keeper.join()
    session.close()
