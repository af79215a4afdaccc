"""An entry of the table that cannot be read concerns its own queue, and nobody else's messages.

A newer version of the package may have written it, with a field that this one does not know.
"""

from __future__ import annotations

import pytest

from queue_core.emulation.keeper import LARGEST_BATCH, PUT_OFF
from queue_core.errors import StoreCorrupt
from queue_core.message import Action, Settlement
from queue_core.topology import Queue
from queue_core.transport import Change
from queue_core.transports.memory.store import MemoryStore
from tests.unit.emulation.stores import Bench, publication, send


def write(bench: Bench, queue: str, value: bytes) -> bytes:
    """Write a value into the table as it is; return what was there."""
    store, name = MemoryStore(bench.broker), f"q:{queue}"
    entry = store.read_table([name])[name]
    assert store.write_table([Change(name, entry.version, value)])
    return entry.value


def damage(bench: Bench, queue: str) -> bytes:
    return write(bench, queue, b"\xc1")


def short(name: str) -> Queue:
    return Queue(name, message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")


def test_dead_letters_of_other_queues_are_buried(bench: Bench) -> None:
    session = bench.open()
    session.declare(Queue("dead"))
    for name in ("bad", "good"):
        session.declare(short(name))
        send(session, name, b"1", b"2")
    damage(bench, "bad")
    bench.pass_time(5.0, session)
    assert session.inspect("dead").ready == 2
    with pytest.raises(StoreCorrupt, match="'q:bad'"):
        session.inspect("bad")


def test_dead_letters_that_nobody_can_bury_do_not_stand_before_the_others(bench: Bench) -> None:
    session = bench.open()
    session.declare(Queue("dead"))
    for name in ("bad", "good"):
        session.declare(short(name))
    send(session, "bad", *[b"%d" % number for number in range(3 * LARGEST_BATCH)])
    damage(bench, "bad")
    bench.pass_time(5.0, session)
    send(session, "good", b"1")
    bench.pass_time(5.0, session)
    assert session.inspect("dead").ready == 1


def test_dead_letters_are_buried_once_their_queue_can_be_read_again(bench: Bench) -> None:
    session = bench.open()
    session.declare(Queue("dead"))
    session.declare(short("bad"))
    send(session, "bad", b"1", b"2")
    whole = damage(bench, "bad")
    bench.pass_time(5.0, session)
    write(bench, "bad", whole)
    bench.pass_time(PUT_OFF, session)
    assert session.inspect("dead").ready == 2


@pytest.mark.parametrize("action", ["reject", "requeue"])
def test_who_settles_messages_of_it_settles_the_others_too(bench: Bench, action: Action) -> None:
    session = bench.open()
    for name in ("bad", "good", "dead"):
        session.declare(Queue(name, dead_letter_exchange="", dead_letter_routing_key="dead"))
        if name != "dead":
            session.subscribe("c", name, prefetch=5)
            send(session, name, b"1")
    held = [*session.receive("c", wait=0)]
    whole = damage(bench, "bad")
    session._core.table.forget(["q:bad"])
    session.settle([Settlement(delivery, action) for delivery in held])
    session.tick()
    assert session.inspect("good").unacked == 0
    write(bench, "bad", whole)
    session.flush("c")
    assert session.inspect("dead").ready == (2 if action == "reject" else 0)


def test_messages_of_a_session_that_died_return_all_the_same(bench: Bench) -> None:
    dying, session = bench.open(), bench.open()
    session.declare(Queue("work"))
    session.declare(Queue("bad"))
    send(session, "work", b"1")
    for queue in ("bad", "work"):
        dying.subscribe("c", queue, prefetch=5)
    assert dying.receive("c", wait=0)
    damage(bench, "bad")
    bench.pass_time(30.0, session)
    assert session.inspect("work").ready == 1
    assert session.inspect("work").consumers == 0


def test_who_consumes_from_it_goes_on_with_its_other_queues(bench: Bench) -> None:
    session = bench.open()
    for queue in ("bad", "gone", "work"):
        session.declare(Queue(queue))
        session.subscribe("c", queue, prefetch=5)
    damage(bench, "bad")
    other = bench.open()
    other.delete(Queue("gone"))
    bench.pass_time(5.0, session)
    assert "gone" not in {window.queue for window in session._consumers["c"].ledger.subscriptions()}
    assert session.publish([publication("work")])[0].status == "confirmed"
