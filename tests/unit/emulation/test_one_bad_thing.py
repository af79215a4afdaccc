"""What cannot be done for one message, queue or session is left; everything else goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_core.emulation import EmulatedSession
from queue_core.emulation.leases import Names
from queue_core.errors import ConnectionLost, QueueCoreError, StoreCorrupt, TooLarge
from queue_core.message import Settlement
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transport import Change
from queue_core.transports.memory.store import MemoryStore
from tests.unit.emulation.stores import Bench, bodies, send


def damage(bench: Bench, entry: str) -> None:
    store = MemoryStore(bench.broker)
    assert store.write_table([Change(entry, store.read_table([entry])[entry].version, b"\xc1")])


def refuse(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    when: Callable[..., bool],
    error: QueueCoreError,
) -> None:
    """Have a method of every store raise ``error`` when its arguments are so."""
    real = getattr(MemoryStore, method)

    def call(store: MemoryStore, *args: Any, **options: Any) -> Any:
        if when(*args, **options):
            raise error
        return real(store, *args, **options)

    monkeypatch.setattr(MemoryStore, method, call)


def with_dead_letters(session: EmulatedSession, *names: str) -> None:
    session.declare(Queue("dead"))
    for name in names:
        session.declare(Queue(name, dead_letter_exchange="", dead_letter_routing_key="dead"))


def letters_are_too_large(batch: Any, *args: Any, **options: Any) -> bool:
    return any(one.queue == "dead" and one.body == b"large" for one in batch)


def test_a_reject_that_cannot_be_done_does_not_keep_the_consumer_from_receiving(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(bench, monkeypatch, "put", letters_are_too_large, TooLarge("too large for the store"))
    session = bench.open()
    with_dead_letters(session, "bad")
    session.declare(Queue("good"))
    for queue in ("bad", "good"):
        session.subscribe("c", queue, prefetch=5)
    send(session, "bad", b"large")
    session.settle([Settlement(one, "reject") for one in session.receive("c", wait=0)])
    for body in (b"1", b"2"):
        send(session, "good", body)
        assert bodies(session.receive("c", wait=0)) == [body]
        bench.pass_time(1.0, session)
    with pytest.raises(TooLarge):
        session.flush("c")


def test_what_a_cancelled_consumer_held_goes_back_though_one_reject_cannot_be_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(bench, monkeypatch, "put", letters_are_too_large, TooLarge("too large for the store"))
    session = bench.open()
    with_dead_letters(session, "work")
    session.subscribe("c", "work", prefetch=5)
    send(session, "work", b"large", b"1", b"2")
    session.settle([Settlement(session.receive("c", wait=0)[0], "reject")])
    with pytest.raises(TooLarge):
        session.cancel("c")
    session.tick()
    found = session.inspect("work")
    assert (found.ready, found.consumers) == (2, 0)
    monkeypatch.undo()
    bench.pass_time(5.0, session)
    assert session.inspect("work").unacked == 0
    assert session.inspect("dead").ready == 1


def test_a_chore_that_fails_for_ever_does_not_delay_the_others(bench: Bench) -> None:
    session = bench.open()
    done: list[int] = []

    def fail(number: int) -> Callable[[Any], None]:
        def chore(store: Any) -> None:
            raise StoreCorrupt(f"{number} is damaged")

        return chore

    for number in range(10):
        session._core.later(fail(number))
    session._core.later(lambda store: done.append(1))
    opened = bench.faults.open
    session.tick()
    assert done
    assert len(session._core.chores) == 10
    assert bench.faults.open <= opened + 1


def expiring(session: EmulatedSession, name: str, exchange: str) -> None:
    session.declare(Exchange(exchange, "direct"))
    session.declare(Queue(name, expires=20.0))
    session.declare(Binding(exchange, name, "key"))


def test_a_queue_that_cannot_be_deleted_keeps_no_dead_session_alive(bench: Bench) -> None:
    dying, session = bench.open(), bench.open()
    for name in ("bad", "good"):
        expiring(session, name, f"to-{name}")
    session.declare(Queue("work"))
    dying.subscribe("c", "work", prefetch=5)
    send(session, "work", b"1")
    assert dying.receive("c", wait=0)
    damage(bench, "x:to-bad")
    bench.pass_time(60.0, session)
    assert session.inspect("work").ready == 1
    assert session.inspect("work").consumers == 0
    assert "q:good" not in MemoryStore(bench.broker).read_table()


def test_a_session_that_cannot_be_ended_keeps_no_other_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bench.open()
    session.declare(Queue("work"))
    store, uid = MemoryStore(bench.broker), "0" * 32
    names = [Names.main("", f"{number:032}") for number in range(1, 300)]
    for name in names:
        store.open_session(name, 10.0)
    last = bench.open()
    last.subscribe("c", "work", prefetch=5)
    send(session, "work", b"1")
    assert last.receive("c", wait=0)
    refuse(
        bench,
        monkeypatch,
        "end_session",
        lambda name, *args: name in names,
        StoreCorrupt("what it holds is damaged"),
    )
    bench.pass_time(60.0, session)
    assert session.inspect("work").ready == 1
    assert uid not in store.sessions()


def test_a_node_starts_though_something_of_its_last_life_cannot_be_put_away(bench: Bench) -> None:
    bench.open(node="n").declare(Queue("work"))
    first = bench.open(node="m")
    first.declare(Queue("mine", exclusive=True))
    first.declare(Exchange("news", "fanout"))
    first.declare(Binding("news", "mine"))
    first.declare(Queue("other", exclusive=True))
    first.subscribe("c", "work", prefetch=5)
    damage(bench, "x:news")
    second = bench.open(node="m")
    table = MemoryStore(bench.broker).read_table()
    assert "q:other" not in table
    assert second.inspect("work").consumers == 0


def test_the_keeper_goes_on_though_it_cannot_learn_what_a_lost_claim_took(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bench.open()
    session.declare(Queue("gone"))
    session.subscribe("c", "gone", prefetch=5)
    session._core.expect_late("damaged", ())
    refuse(
        bench,
        monkeypatch,
        "claim",
        lambda owner, request, *args, **options: request == "damaged",
        StoreCorrupt("what it took is damaged"),
    )
    other = bench.open()
    other.delete(Queue("gone"))
    bench.pass_time(5.0, session, other)
    assert not session._consumers["c"].ledger.subscriptions()
    bench.pass_time(200.0, session)
    assert not session._core.late


def test_an_exclusive_queue_that_cannot_be_deleted_keeps_no_other_one(bench: Bench) -> None:
    session = bench.open()
    for name in ("bad", "good"):
        session.declare(Exchange(f"to-{name}", "direct"))
        session.declare(Queue(name, exclusive=True, expires=5.0))
        session.declare(Binding(f"to-{name}", name, "key"))
    damage(bench, "x:to-bad")
    bench.pass_time(20.0, session)
    assert "q:good" not in MemoryStore(bench.broker).read_table()


def test_one_damaged_entry_makes_looking_through_many_no_dearer(bench: Bench) -> None:
    first = bench.open(node="n")
    for number in range(50):
        first.declare(Queue(f"q{number}"))
    damage(bench, "q:q7")
    bench.faults.calls.clear()
    bench.open(node="n")
    assert bench.faults.calls.count("read_table") < 10


def test_a_cancel_ends_each_subscription_though_one_cannot_be_put_away_yet(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(bench, monkeypatch, "put", letters_are_too_large, TooLarge("too large for the store"))
    session = bench.open()
    with_dead_letters(session, "bad", "good")
    for name in ("bad", "good"):
        session.subscribe("c", name, prefetch=5)
    send(session, "bad", b"large")
    send(session, "good", b"1")
    [large] = [one for one in session.receive("c", wait=0) if one.queue == "bad"]
    session.settle([Settlement(large, "reject")])
    with pytest.raises(TooLarge):
        session.cancel("c")
    found = session.inspect("good")
    assert (found.ready, found.consumers) == (1, 0)


def test_dead_messages_that_take_long_to_fetch_do_not_hold_up_heartbeats(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred large ones, say, on a slow line: the lease was over before they were there."""
    session, other = bench.open(), bench.open()
    session.declare(Queue("dead"))
    session.declare(
        Queue("work", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    send(session, "work", *[b"%d" % number for number in range(60)])
    collect = MemoryStore.collect
    silent: list[float] = []

    def slow(store: MemoryStore, name: str, limit: int) -> Any:
        claims = collect(store, name, limit)
        bench.clock.advance(1.0 * len(claims))
        silent.append(1.0 * len(claims))
        return claims

    monkeypatch.setattr(MemoryStore, "collect", slow)
    bench.pass_time(60.0, session, other)
    assert session.inspect("dead").ready == 60
    assert max(silent) < bench.options["lease"] * 2 / 3


def test_many_dead_messages_are_fetched_in_few_steps(bench: Bench) -> None:
    session = bench.open()
    session.declare(Queue("dead"))
    session.declare(
        Queue("work", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    send(session, "work", *[b"%d" % number for number in range(500)])
    bench.clock.advance(2.0)
    bench.faults.calls.clear()
    while session.inspect("dead").ready < 500:
        session.tick()
    assert bench.faults.calls.count("collect") < 12


def test_a_lost_claim_that_cannot_be_asked_for_keeps_no_consumer_from_receiving(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = bench.open()
    session.declare(Queue("work"))
    session.subscribe("c", "work", prefetch=5)
    send(session, "work", b"1")
    bench.faults.plan[:] = ["before"]
    bench.faults.only = frozenset({"claim"})
    with pytest.raises(ConnectionLost):
        session.receive("c", wait=0)
    bench.faults.plan.clear()
    lost = session._consumers["c"]._unresolved
    refuse(
        bench,
        monkeypatch,
        "claim",
        lambda owner, request, *args, **options: request == lost,
        StoreCorrupt("what it took is damaged"),
    )
    assert bodies(session.receive("c", wait=0)) == [b"1"]
    monkeypatch.undo()
    bench.pass_time(5.0, session)
    assert not session._core.chores
