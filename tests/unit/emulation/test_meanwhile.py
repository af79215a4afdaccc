"""What other threads do in the middle of a step: neither takes the other's for its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from queue_core.emulation import EmulatedSession
from queue_core.emulation.consuming import return_late
from queue_core.errors import QueueCoreError
from queue_core.topology import Queue
from queue_core.transport import Store
from tests.unit.emulation.stores import Bench, ack, bodies, send


def once(bench: Bench, method: str, action: Callable[[], object]) -> None:
    """Do something, as another thread would, just before the next call of a store's method."""

    def hook(name: str) -> None:
        if name == method:
            bench.faults.hook = lambda name: None
            action()

    bench.faults.hook = hook


def anew(session: EmulatedSession, queue: Queue) -> Callable[[], object]:
    """Return what declares a queue that is gone, and consumes from it."""

    def begin() -> None:
        session.declare(queue)
        session.cancel("c", queue.name)
        session.subscribe("c", queue.name, prefetch=1)

    return begin


@pytest.mark.parametrize("cancelled", [False, True])
def test_acks_that_travel_with_a_claim_arrive_before_their_session_ends(cancelled: bool) -> None:
    bench = Bench()
    session = bench.open()
    session.declare(Queue("work"))
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    ack(session, session.receive("c", wait=0))
    taken, ended = threading.Event(), threading.Event()

    def hook(name: str) -> None:
        if name == "claim":
            taken.set()
            ended.wait(0.5)
        elif name == "end_session" and session.closed:
            ended.set()

    def receive() -> None:
        try:
            session.receive("c", wait=5)
        except QueueCoreError:
            pass  # it was closed

    bench.faults.hook = hook
    thread = threading.Thread(target=receive)
    thread.start()
    assert taken.wait(30)
    if cancelled:
        session.cancel("c")
    session.close(timeout=30)
    thread.join(30)
    assert bench.open().inspect("work").ready == 0


def test_a_queue_declared_again_while_the_keeper_looks_is_consumed_from(bench: Bench) -> None:
    session, other = bench.open(), bench.open()
    session.declare(Queue("work"))
    session.subscribe("c", "work", prefetch=1)
    other.delete(Queue("work"))
    once(bench, "read_table", anew(session, Queue("work")))
    session.tick()
    send(session, "work", b"1")
    assert bodies(session.receive("c", wait=0)) == [b"1"]


def test_an_exclusive_queue_declared_again_while_it_is_deleted_is_kept(bench: Bench) -> None:
    session, other = bench.open(), bench.open()
    mine = Queue("mine", exclusive=True)
    session.declare(mine)
    session.subscribe("c", "mine", prefetch=1)
    once(bench, "end_session", anew(session, mine))
    session.delete(mine)
    send(session, "mine", b"1")
    assert bodies(session.receive("c", wait=0)) == [b"1"]
    bench.pass_time(25, session, other)
    assert session.inspect("mine").unacked == 1


def test_an_exclusive_queue_subscribed_to_in_the_moment_of_its_expiry_stays(bench: Bench) -> None:
    session = bench.open()
    session.declare(Queue("mine", exclusive=True, expires=5.0))
    session.tick()
    bench.clock.advance(6)
    expire = session._keeper._declarer.remove

    def remove(store: Store, name: str, *args: object, **options: object) -> bool:
        session.subscribe("c", "mine", prefetch=1)
        return expire(store, name, *args, **options)  # type: ignore[arg-type]

    session._keeper._declarer.remove = remove  # type: ignore[method-assign, assignment]
    session.tick()
    send(session, "mine", b"1")
    assert bodies(session.receive("c", wait=0)) == [b"1"]


def test_a_late_claim_that_makes_room_for_another_while_it_is_given_back_is_no_error(
    bench: Bench,
) -> None:
    session = bench.open()
    core = session._core
    for number in range(100):
        core.expect_late(f"request {number}", ())
    bench.clock.advance(1000)
    once(bench, "claim", lambda: core.expect_late("one more", ()))
    with session._pool.borrow() as store:
        return_late(store, core)
    assert [late.request for late in core.late] == ["one more"]
