"""The emulated session on a fake clock: leases, fences, races, and the work of the keeper."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from queue_core.emulation import EmulatedSession, StoreTransport
from queue_core.emulation.keeper import Keeper, Schedule
from queue_core.errors import (
    AccessRefused,
    Closed,
    ConfigError,
    ConnectTimeout,
    QueueNotFound,
    SessionLost,
    StaleDelivery,
    TopologyMismatch,
    Unsupported,
)
from queue_core.message import Settlement
from queue_core.testing.eventually import eventually
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transport import Features, SessionOptions
from queue_core.transports.memory import MemoryBroker, MemoryStore
from queue_core.url import parse
from tests.unit.emulation.stores import Bench, ack, bodies, publication, send


@pytest.fixture
def session(bench: Bench) -> Iterator[EmulatedSession]:
    made = bench.open()
    made.declare(Queue("work"))
    yield made
    bench.faults.hook = lambda method: None
    made.close()


def once(bench: Bench, method: str, action: Callable[[], object], *, skip: int = 0) -> None:
    """Do something in the moment before a call of ``method``, after ``skip``, reaches the store."""
    left = skip

    def hook(called: str) -> None:
        nonlocal left
        if called != method:
            return
        left -= 1
        if left < 0:
            bench.faults.hook = lambda name: None
            action()

    bench.faults.hook = hook


# --- fences and leases


def test_nothing_new_is_handed_out_while_the_heartbeat_is_not_confirmed(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    bench.clock.advance(9.5)
    assert session.receive("c", wait=0) == ()
    assert session.inspect("work").ready == 1
    session.tick()
    assert bodies(session.receive("c", wait=0)) == [b"1"]
    send(session, "work", b"2")
    bench.clock.advance(8.5)
    assert bodies(session.receive("c", wait=0)) == [b"2"]
    send(session, "work", b"3")
    bench.clock.advance(1.0)
    assert session.receive("c", wait=0) == ()


def test_a_heartbeat_counts_from_when_it_was_sent(bench: Bench, session: EmulatedSession) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    once(bench, "heartbeat", lambda: bench.clock.advance(6.0))
    session.tick()
    bench.clock.advance(3.5)
    assert not session.holds
    assert session.receive("c", wait=0) == ()


def test_an_answer_that_comes_after_the_lease_is_kept_until_the_session_is_known_to_live(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    once(bench, "claim", lambda: bench.clock.advance(60))
    assert session.receive("c", wait=0) == ()
    assert session.inspect("work").unacked == 1
    session.tick()
    assert bodies(session.receive("c", wait=0)) == [b"1"]


def test_an_answer_that_comes_after_the_end_of_the_session_is_never_handed_out(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    once(bench, "claim", lambda: bench.clock.advance(60))
    session.receive("c", wait=0)
    lost = next(name for name in bench.broker.sessions if name.startswith("conn:"))
    MemoryStore(bench.broker).end_session(lost)
    session.tick()
    with pytest.raises(SessionLost):
        session.receive("c", wait=0)


def test_a_dead_sessions_messages_return_counted_with_everything_that_was_its_own(
    bench: Bench, session: EmulatedSession
) -> None:
    dead = bench.open()
    dead.declare(Queue("mine", exclusive=True))
    dead.declare(Queue("brief", auto_delete=True))
    dead.subscribe("c", "work", prefetch=5)
    dead.subscribe("c", "brief", prefetch=5)
    send(session, "work", b"1")
    assert dead.receive("c", wait=0)[0].attempts == 1
    bench.pass_time(9.0, session)
    assert session.inspect("work").unacked == 1
    bench.pass_time(3.0, session)
    session.subscribe("c", "work", prefetch=5)
    [delivery] = session.receive("c", wait=0)
    assert (delivery.attempts, delivery.redelivered) == (2, True)
    for name in ("mine", "brief"):
        assert session.publish([publication(name)])[0].status == "unroutable"
    assert session.inspect("work").consumers == 1
    assert {name.partition(":")[0] for name in bench.broker.sessions} == {
        "conn",
        "collect",
        "consumer",
    }
    assert len(bench.broker.sessions) == 3


def test_what_many_dead_connections_left_is_put_away_with_few_looks_at_all_sessions(
    bench: Bench, session: EmulatedSession
) -> None:
    for number in range(50):
        dead = bench.open()
        dead.declare(Queue(f"answers-{number}", exclusive=True))
        dead.subscribe("c", f"answers-{number}", prefetch=5)
    left = 50 * 3  # each a connection, a queue and a consumer
    bench.pass_time(10.0, session, step=1.0)
    bench.faults.calls.clear()
    bench.clock.advance(1.0)
    session.tick()
    while len(bench.broker.sessions) > 10:
        session.tick()
    assert bench.faults.calls.count("sessions") <= 2 * left / 20 + 2
    for number in range(50):
        with pytest.raises(QueueNotFound):
            session.inspect(f"answers-{number}")


def test_a_session_with_a_beating_keeper_lives_for_ever(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    session.subscribe("c", "work", prefetch=1)
    send(session, "work", b"1")
    held = session.receive("c", wait=0)
    bench.pass_time(100.0, other, session)
    ack(session, held)
    session.flush("c")
    assert session.inspect("work").unacked == 0
    other.close()


def test_a_store_that_paused_for_a_minute_kills_nobody(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    bench.pass_time(3.0, session, other)
    bench.clock.advance(60.0)
    other.tick()
    session.tick()
    assert not session.closed
    other.close()


def test_a_node_that_starts_again_ends_its_older_session_at_once(bench: Bench) -> None:
    first = bench.open(node="n:1")
    other = bench.open(node="n")
    first.declare(Queue("work"))
    first.declare(Queue("mine", exclusive=True))
    send(first, "work", b"1")
    first.subscribe("c", "work", prefetch=5)
    assert first.receive("c", wait=0)
    second = bench.open(node="n:1")
    info = second.inspect("work")
    assert (info.ready, info.unacked, info.consumers) == (1, 0, 0)
    second.declare(Queue("mine", exclusive=True))
    first.tick()
    assert first.closed
    other.tick()
    assert not other.closed
    for session in (first, second, other):
        session.close()


def test_who_opens_again_what_another_process_of_its_name_has_ended_leaves_that_one_alone(
    bench: Bench,
) -> None:
    first = bench.open(node="n", origin="a1")
    other = bench.open(node="n", origin="b2")
    first.tick()
    assert first.closed
    again = bench.open(node="n", origin="a1", again=True)
    other.tick()
    assert not other.closed
    last = bench.open(node="n", origin="a1", again=True)
    again.tick()
    assert again.closed
    for session in (first, other, again, last):
        session.close()


def test_a_node_name_that_would_not_fit_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="too long"):
        bench.open(node="n" * 301)
    assert bench.faults.open == 0


# --- queues that delete themselves


def expire(bench: Bench, session: EmulatedSession, seconds: float) -> None:
    bench.pass_time(seconds, session, step=0.2)


def test_a_queue_expires_when_nobody_used_it(bench: Bench, session: EmulatedSession) -> None:
    session.declare(Queue("brief", expires=2.0))
    expire(bench, session, 1.6)
    assert session.inspect("brief").ready == 0
    session.declare(Queue("brief", expires=2.0))
    expire(bench, session, 1.6)
    session.declare(Queue("brief"), passive=True)
    expire(bench, session, 1.6)
    session.inspect("brief")
    expire(bench, session, 1.0)
    with pytest.raises(QueueNotFound):
        session.inspect("brief")


def test_a_queue_does_not_expire_while_somebody_consumes(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("brief", expires=1.0))
    session.subscribe("c", "brief", prefetch=1)
    expire(bench, session, 5.0)
    session.cancel("c")
    session.inspect("brief")
    expire(bench, session, 0.6)
    session.inspect("brief")
    expire(bench, session, 1.0)
    with pytest.raises(QueueNotFound):
        session.inspect("brief")


@pytest.mark.parametrize("passive", [False, True])
def test_a_declaration_in_the_moment_of_expiry_saves_the_queue(
    bench: Bench, session: EmulatedSession, passive: bool
) -> None:
    """Whatever moment of the deletion it is, the queue is there once declare has returned.

    It is one of a batch of many that expire. One that only looks may find that it is too late.
    """
    queue = Queue("brief", expires=2.0)
    other = bench.open()
    declared: list[str] = []

    def declare() -> None:
        with contextlib.suppress(QueueNotFound):
            declared.append(other.declare(queue, passive=passive))

    methods = ("read_table", "sessions", "write_table", "end_session")
    for method, skip in itertools.product(methods, range(8)):
        for name in ("aside", "brief", "cast"):
            other.declare(Queue(name, expires=2.0))
        bench.pass_time(1.8, session, step=0.2)
        declared.clear()
        once(bench, method, declare, skip=skip)
        bench.pass_time(0.4, session, step=0.2)
        bench.faults.hook = lambda name: None
        if declared:
            assert session.publish([publication("brief")])[0].status == "confirmed"
            bench.pass_time(1.0, session, step=0.2)
            session.inspect("brief")
    other.close()


def test_an_exclusive_queue_expires_although_its_owner_lives(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("mine", exclusive=True, expires=2.0))
    session.subscribe("c", "mine", prefetch=1)
    expire(bench, session, 4.0)
    session.cancel("c")
    expire(bench, session, 1.5)
    session.inspect("mine")
    expire(bench, session, 1.5)
    with pytest.raises(QueueNotFound):
        session.inspect("mine")


def test_an_exclusive_queue_whose_owner_is_gone_can_be_declared_by_the_next(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    other.declare(Queue("mine", exclusive=True))
    with pytest.raises(AccessRefused):
        session.declare(Queue("mine", exclusive=True))
    with pytest.raises(AccessRefused):
        session.subscribe("c", "mine", prefetch=1)
    main = next(n for n, s in bench.broker.sessions.items() if other._core.main == n)
    MemoryStore(bench.broker).end_session(main)
    session.declare(Queue("mine", exclusive=True))
    session.subscribe("c", "mine", prefetch=1)
    other.close()


@pytest.mark.parametrize("closes", [True, False])
def test_an_exclusive_queue_whose_declaration_was_interrupted_goes_with_its_session(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    write = MemoryStore.write_table

    def interrupted(*arguments: Any) -> bool:
        monkeypatch.undo()
        assert write(*arguments)
        raise KeyboardInterrupt

    mine = bench.open()
    monkeypatch.setattr(MemoryStore, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine.declare(Queue("answers", exclusive=True))
    session.declare(Queue("work"))
    assert session.inspect("answers").ready == 0
    if closes:
        mine.close()
    else:
        bench.pass_time(12.0, session)
    with pytest.raises(QueueNotFound):
        session.inspect("answers")


def test_of_two_consumers_that_leave_together_one_deletes_the_auto_delete_queue(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    for method in ("read_table", "sessions", "end_session"):
        session.declare(Queue("brief", auto_delete=True))
        session.subscribe("c", "brief", prefetch=1)
        other.subscribe("c", "brief", prefetch=1)
        once(bench, method, lambda: other.cancel("c"))
        session.cancel("c")
        with pytest.raises(QueueNotFound):
            session.inspect("brief")
    other.close()


def test_an_auto_delete_queue_stays_if_somebody_subscribes_while_the_last_one_leaves(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    for method in ("read_table", "sessions", "write_table"):
        session.declare(Queue("brief", auto_delete=True))
        session.subscribe("c", "brief", prefetch=1)
        once(bench, method, lambda: other.subscribe("c", "brief", prefetch=1))
        session.cancel("c")
        assert session.inspect("brief").consumers == 1
        other.cancel("c")
        with pytest.raises(QueueNotFound):
            session.inspect("brief")
    other.close()


# --- races about the topology


def test_a_binding_made_in_the_moment_of_a_publish_counts(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    session.declare(Exchange("e"))
    assert session.publish([publication("k", exchange="e")])[0].status == "unroutable"
    once(bench, "put", lambda: other.declare(Binding("e", "work", "k")))
    assert session.publish([publication("k", exchange="e")])[0].status == "confirmed"
    once(bench, "put", lambda: other.delete(Queue("work")))
    assert session.publish([publication("k", exchange="e")])[0].status == "unroutable"
    other.close()


def test_an_exchange_declared_in_the_moment_of_a_publish_counts(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    with pytest.raises(QueueNotFound, match="'e'"):
        session.publish([publication("k", exchange="e")])
    once(bench, "put", lambda: other.declare(Queue("work", exchange=Exchange("e"))))
    assert session.publish([publication("", exchange="e")])[0].status == "confirmed"
    other.close()


def test_a_limit_that_changed_in_the_moment_of_a_publish_holds(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()

    def replace() -> None:
        other.delete(Queue("work"))
        other.declare(Queue("work", max_length=1, overflow="reject-publish"))

    send(session, "work", b"1")
    once(bench, "put", replace)
    outcomes = session.publish([publication("work"), publication("work")])
    assert [outcome.status for outcome in outcomes] == ["confirmed", "refused"]
    assert "'work'" in outcomes[1].detail
    other.close()


def test_two_who_declare_the_same_at_once_both_succeed(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    for name, options in (("a", {}), ("b", {"expires": 9.0}), ("c", {"auto_delete": True})):
        queue = Queue(name, exchange=Exchange("e"), **options)
        once(bench, "write_table", partial(other.declare, queue))
        session.declare(queue)
    assert sum(name.startswith("queue:") for name in bench.broker.sessions) == 1
    once(bench, "write_table", lambda: other.declare(Queue("d", max_length=1)))
    with pytest.raises(TopologyMismatch):
        session.declare(Queue("d", max_length=2))
    other.close()


def test_a_declaration_against_never_ending_changes_ends_with_a_timeout(
    bench: Bench, session: EmulatedSession
) -> None:
    store = MemoryStore(bench.broker)

    def hook(method: str) -> None:
        if method == "write_table":
            bench.clock.advance(1.0)
            bench.faults.hook = lambda name: None
            other.delete(Exchange("e"))
            other.declare(Exchange("e"))
            bench.faults.hook = hook

    other = bench.open()
    other.declare(Exchange("e"))
    bench.faults.hook = hook
    with pytest.raises(ConnectTimeout, match="again and again"):
        session.declare(Binding("e", "work", "k"), timeout=5.0)
    bench.faults.hook = lambda name: None
    assert store.read_table(["x:e"])
    other.close()


def test_a_deleted_queue_is_told_to_its_consumers_once(
    bench: Bench, session: EmulatedSession
) -> None:
    other = bench.open()
    session.declare(Queue("second"))
    session.subscribe("c", "work", prefetch=1)
    session.subscribe("c", "second", prefetch=1)
    send(session, "second", b"2")
    other.delete(Queue("work"))
    other.declare(Queue("work"))
    session.tick()
    with pytest.raises(QueueNotFound, match="'work' was deleted"):
        session.receive("c", wait=0)
    assert bodies(session.receive("c", wait=0)) == [b"2"]
    session.delete(Queue("second"))
    with pytest.raises(QueueNotFound, match="'second' was deleted"):
        session.receive("c", wait=0)
    assert session.inspect("work").consumers == 0
    other.close()


# --- publishing


def test_the_batch_is_cut_and_its_order_kept(bench: Bench, session: EmulatedSession) -> None:
    bench.faults.calls.clear()
    send(session, "work", *(b"%d" % number for number in range(250)))
    assert bench.faults.calls.count("put") == 3
    bench.faults.calls.clear()
    send(session, "work", *(b"x" * 30_000 for _ in range(6)))
    assert bench.faults.calls.count("put") == 3
    session.subscribe("c", "work", prefetch=1000)
    assert bodies(session.receive("c", wait=0))[:250] == [b"%d" % n for n in range(250)]


def test_priorities_act_only_where_the_queue_has_them(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("ranked", max_priority=5))
    for queue in ("work", "ranked"):
        for priority in (0, 9, 5, 7):
            send(session, queue, b"%d" % priority, properties={"priority": priority})
        session.subscribe("c", queue, prefetch=10)
    found = session.receive("c", wait=0)
    assert [d.body for d in found if d.queue == "work"] == [b"0", b"9", b"5", b"7"]
    assert [d.body for d in found if d.queue == "ranked"] == [b"9", b"5", b"7", b"0"]


def test_a_ttl_that_ends_before_the_delay_is_refused(session: EmulatedSession) -> None:
    late = publication("work", delay=5.0, properties={"expiration": 5.0})
    with pytest.raises(ConfigError, match="expire before"):
        session.publish([late])


def test_the_ttl_of_a_queue_counts_from_the_end_of_the_delay(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("short", message_ttl=1.0))
    send(session, "short", b"1", delay=5.0)
    bench.pass_time(5.5, session)
    assert session.inspect("short").ready == 1
    bench.pass_time(1.0, session)
    assert session.inspect("short").ready == 0


def test_what_a_store_cannot_do_is_refused_by_name() -> None:
    broker = MemoryBroker()
    plain = StoreTransport("plain", Features(), lambda url, options: MemoryStore(broker))
    session = plain.open(parse("memory://x"), SessionOptions(keeper=False))
    session.declare(Queue("q"))
    attempts: dict[str, Callable[[], object]] = {
        "priority": lambda: session.declare(Queue("p", max_priority=3)),
        "delay": lambda: session.publish([publication("q", delay=1.0)]),
        "key_value": session.key_value,
        "arguments": lambda: session.declare(Queue("a", arguments={"x": 1})),
    }
    for feature, attempt in attempts.items():
        with pytest.raises(Unsupported) as caught:
            attempt()
        assert (caught.value.feature, caught.value.transport) == (feature, "plain")
    session.close()


# --- dead letters


def test_dead_letters_that_nobody_wants_are_dropped_and_logged(
    bench: Bench, session: EmulatedSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session.declare(Exchange("dlx"))
    session.declare(Queue("short", message_ttl=1.0, dead_letter_exchange="dlx"))
    send(session, "short", b"1", b"2")
    bench.pass_time(2.0, session)
    assert caplog.text.count("is dropped: nothing is bound") == 2
    session.delete(Exchange("dlx"))
    send(session, "short", b"3")
    bench.pass_time(2.0, session)
    assert caplog.text.count("is dropped: nothing is bound") == 3
    assert session.inspect("short").ready == 0


def test_a_copy_taken_before_the_lost_put_is_repeated_is_not_stored_again(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("dead"))
    session.declare(Queue("in", dead_letter_exchange="", dead_letter_routing_key="dead"))
    send(session, "in", b"1")
    session.subscribe("c", "in", prefetch=5)
    session.subscribe("d", "dead", prefetch=5)
    session.settle([Settlement(session.receive("c", wait=0)[0], "reject")])
    bench.faults.plan[:] = ["after"]
    bench.faults.only = frozenset({"put"})
    session.tick()
    bench.faults.only = frozenset()
    ack(session, session.receive("d", wait=0))
    session.flush("d")
    session.flush("c")
    assert session.receive("d", wait=0) == ()
    assert session.inspect("dead").unacked == 0


def test_a_dead_letter_goes_into_a_full_queue_rather_than_nowhere(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("dead", max_length=1, overflow="reject-publish"))
    session.declare(
        Queue("in", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    send(session, "in", b"1", b"2", b"3")
    bench.pass_time(2.0, session)
    assert session.inspect("dead").ready == 3
    assert session.publish([publication("dead")])[0].status == "refused"


def test_a_message_that_dies_in_a_circle_by_itself_is_dropped_and_logged(
    bench: Bench, session: EmulatedSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session.declare(
        Queue("a", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="b")
    )
    session.declare(
        Queue("b", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="a")
    )
    send(session, "a", b"1")
    bench.pass_time(10.0, session)
    assert caplog.text.count("it would go round") == 1
    assert session.inspect("a").ready == session.inspect("b").ready == 0


@pytest.mark.parametrize(
    "row",
    [
        {"queue": "short", "reason": "", "count": 2**64 - 1},
        {"queue": "elsewhere", "reason": ["a list"], "count": 1},
        {"queue": {}, "reason": "expired"},
    ],
    ids=["count", "reason", "queue"],
)
@pytest.mark.parametrize("how", ["expired", "rejected"])
def test_a_history_written_by_hand_keeps_no_dead_letter_back(
    session: EmulatedSession, bench: Bench, row: dict[str, Any], how: str
) -> None:
    session.declare(Queue("dead"))
    session.declare(Queue("short", dead_letter_exchange="", dead_letter_routing_key="dead"))
    ttl = {"expiration": 1.0} if how == "expired" else {}
    row = {**row, "reason": how} if row["reason"] == "" else row
    send(session, "short", b"forged", properties={"headers": {"x-death": [row]}, **ttl})
    send(session, "short", b"good", properties=ttl)
    if how == "rejected":
        session.subscribe("c", "short", prefetch=2)
        session.settle([Settlement(item, "reject") for item in session.receive("c", wait=0)])
        session.flush("c")
    bench.pass_time(3.0, session)
    session.subscribe("d", "dead", prefetch=2)
    assert sorted(bodies(session.receive("d", wait=0))) == [b"forged", b"good"]


@pytest.mark.parametrize("how", ["rejected", "expired", "watched"])
def test_heartbeats_go_on_while_a_slow_store_takes_many_steps(bench: Bench, how: str) -> None:
    """A watcher that looks at each step must not see a lease without a beat."""
    session, watcher = bench.open(), bench.open()
    session.declare(Queue("work", message_ttl=1.0 if how == "expired" else None))
    if how == "watched":
        dead = [bench.open() for _ in range(50)]
        bench.pass_time(9.5, session, watcher)
        assert all(other in bench.broker.sessions for other in (item._core.main for item in dead))
    else:
        send(session, "work", *(b"%d" % number for number in range(90)))
    if how == "rejected":
        session.subscribe("c", "work", prefetch=90)
        found = session.receive("c", wait=0)
        session.settle([Settlement(item, "reject") for item in found])
    bench.clock.advance(1.5)
    watching = False

    def slow(method: str) -> None:
        nonlocal watching
        if method in ("put", "end_session") and not watching:
            watching = True
            bench.clock.advance(0.5)
            watcher.tick()
            watching = False

    bench.faults.hook = slow
    session.tick()
    session.tick()
    bench.faults.hook = lambda method: None
    assert session._core.main in bench.broker.sessions
    session.close()
    watcher.close()


def test_a_dead_letter_exchange_that_others_gave_the_queue_meanwhile_counts(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("dead"))
    session.declare(Queue("short", message_ttl=1.0))
    send(session, "short", b"dropped")
    bench.pass_time(2.0, session)
    other = bench.open()
    other.delete(Queue("short"))
    other.declare(
        Queue("short", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    send(other, "short", b"kept")
    bench.pass_time(2.0, session)
    assert session.inspect("dead").ready == 1
    other.close()


def test_many_dead_letters_are_buried_within_a_few_rounds(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("dead"))
    session.declare(
        Queue("in", max_length=10, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    send(session, "in", *(b"%d" % number for number in range(310)))
    for _ in range(5):
        session.tick()
    assert session.inspect("dead").ready == 300
    assert session.inspect("in").ready == 10


# --- receiving and settling


def test_a_small_limit_leaves_the_rest_for_the_next_receive(session: EmulatedSession) -> None:
    session.declare(Queue("second"))
    for queue in ("work", "second"):
        send(session, queue, b"1", b"2")
        session.subscribe("c", queue, prefetch=10)
    found = [session.receive("c", limit=1, wait=0) for _ in range(5)]
    assert [len(batch) for batch in found] == [1, 1, 1, 1, 0]
    found = [session.receive("c", limit=3, wait=0)]
    assert found == [()]


def test_what_waits_for_the_next_receive_goes_back_with_a_cancel(session: EmulatedSession) -> None:
    session.declare(Queue("second"))
    for queue in ("work", "second"):
        send(session, queue, b"1", b"2")
        session.subscribe("c", queue, prefetch=10)
    assert [d.queue for d in session.receive("c", limit=1, wait=0)] == ["work"]
    session.cancel("c", "second")
    assert [d.queue for d in session.receive("c", limit=5, wait=0)] == ["work"]
    session.cancel("c", "work")
    for queue in ("work", "second"):
        info = session.inspect(queue)
        assert (info.ready, info.unacked) == (2, 0)


def test_a_message_returned_for_the_last_time_is_buried_at_once(session: EmulatedSession) -> None:
    session.declare(Queue("dead"))
    session.declare(
        Queue("in", max_deliveries=2, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    send(session, "in", b"1", b"2")
    session.subscribe("c", "in", prefetch=5)
    for expected in (0, 2):
        for delivery in session.receive("c", wait=0):
            session.settle([Settlement(delivery, "requeue")])
        session.flush("c")
        assert session.inspect("dead").ready == expected


def test_late_settlements_are_counted_once_by_flush(session: EmulatedSession) -> None:
    send(session, "work", b"1", b"2", b"3")
    session.subscribe("c", "work", prefetch=5)
    found = session.receive("c", wait=0)
    ack(session, found[:1])
    ack(session, found[:1])
    session.cancel("c", "work")
    ack(session, found[1:])
    with pytest.raises(StaleDelivery, match="3 settlements"):
        session.flush("c")
    session.flush("c")
    session.cancel("c")
    ack(session, found[:1])
    with pytest.raises(StaleDelivery, match="1 settlement"):
        session.flush("c")
    session.flush("c")


def test_a_smaller_prefetch_still_sends_the_acks(bench: Bench, session: EmulatedSession) -> None:
    send(session, "work", b"1", b"2", b"3", b"4")
    session.subscribe("c", "work", prefetch=3)
    found = session.receive("c", wait=0)
    session.subscribe("c", "work", prefetch=1)
    ack(session, found[:1])
    assert session.receive("c", wait=0) == ()
    session.tick()
    assert session.inspect("work").unacked == 2


def test_a_cancelled_consumer_with_settlements_under_way_can_come_back(
    session: EmulatedSession,
) -> None:
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=1)
    [first] = session.receive("c", wait=0)
    ack(session, [first])
    session.cancel("c")
    session.subscribe("c", "work", prefetch=5)
    assert bodies(session.receive("c", wait=0)) == [b"2"]


# --- the keeper


def test_a_schedule_names_what_is_due_and_when_to_wake() -> None:
    schedule = Schedule(["a", "b"], 100.0)
    assert schedule.due("a", 100.0)
    schedule.done("a", 101.0)
    schedule.done("b", 105.0)
    assert not schedule.due("a", 100.5)
    assert schedule.next() == 101.0


def test_an_ack_that_comes_while_a_claim_waits_calls_the_keeper(
    bench: Bench, session: EmulatedSession
) -> None:
    called: list[float] = []

    class Listener:
        def call(self, due: float) -> None:
            called.append(due)

    session._core.keeper = Listener()
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    held = session.receive("c", wait=0)
    called.clear()

    def ack_and_look() -> None:
        ack(session, held)
        assert called

    once(bench, "claim", ack_and_look)
    session.receive("c", wait=0)


def test_a_consumers_session_that_vanished_is_opened_again(
    bench: Bench, session: EmulatedSession
) -> None:
    session.subscribe("c", "work", prefetch=5)
    for kind in ("consumer:", "collect:"):
        session.tick()
        name = next(name for name in bench.broker.sessions if name.startswith(kind))
        MemoryStore(bench.broker).end_session(name)
        session.tick()
        assert name in bench.broker.sessions


def real(**options: Any) -> tuple[MemoryBroker, EmulatedSession]:
    broker = MemoryBroker()
    transport = StoreTransport(
        "memory", Features(delay=True), lambda url, options: MemoryStore(broker)
    )
    session = transport.open(parse("memory://x"), SessionOptions(**options))
    session.declare(Queue("work"))
    return broker, session


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper has something to do three times a minute only, but for what it is called for."""
    for name in ("keeper.LONGEST_SLEEP", "keeper.COLLECT_INTERVAL", "keeper.LOOK_INTERVAL"):
        monkeypatch.setattr(f"queue_core.emulation.{name}", 20.0)
    monkeypatch.setattr("queue_core.emulation.leases.LONGEST_LOOK", 20.0)
    monkeypatch.setattr("queue_core.emulation.leases.LOOK", 1.0)


@pytest.mark.usefixtures("seldom")
@pytest.mark.parametrize("prefetch", [1, 4, 1000])
def test_acks_are_sent_although_nobody_receives(prefetch: int) -> None:
    broker, session = real(lease=60.0)
    session.subscribe("c", "work", prefetch=prefetch)
    took = 0.0
    for _ in range(6):
        send(session, "work", b"1")
        ack(session, session.receive("c", wait=1.0))
        started = time.monotonic()
        eventually(lambda: broker.queues["work"].claimed == 0)
        took += time.monotonic() - started
    assert took < 10.0, "an ack must call the keeper"
    session.close()


def test_who_calls_the_keeper_again_and_again_wakes_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = []
    run = Keeper._round

    def counted(keeper: Keeper, *, force: bool) -> None:
        rounds.append(force)
        run(keeper, force=force)

    monkeypatch.setattr(Keeper, "_round", counted)
    _, session = real()
    keeper = session._keeper
    due = time.monotonic() + 0.8
    eventually(lambda: due < keeper._next_wake < float("inf"))
    before, begun = len(rounds), time.monotonic()
    for _ in range(10):
        if time.monotonic() < due:
            session._core.call_keeper(due)
            eventually(lambda: not keeper._event.is_set() and keeper._next_wake < float("inf"))
    assert len(rounds) - before <= 2 + (time.monotonic() - begun), "it comes once a second anyway"
    session.close()


def test_an_idle_session_does_next_to_nothing() -> None:
    _, session = real()
    session.subscribe("c", "work", prefetch=1)
    session.receive("c", wait=0.1)
    before = time.process_time()
    session.receive("c", wait=2.0)
    assert time.process_time() - before < 0.2
    session.close()


@pytest.mark.usefixtures("seldom")
def test_an_ack_from_another_thread_makes_room_for_a_waiting_receive() -> None:
    _, session = real(lease=60.0)
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=1)
    found = session.receive("c", wait=1.0)
    threading.Timer(0.1, ack, (session, found)).start()
    started = time.monotonic()
    assert bodies(session.receive("c", wait=20.0)) == [b"2"]
    assert time.monotonic() - started < 10.0
    session.close()


@pytest.mark.usefixtures("seldom")
def test_a_full_queue_does_not_keep_another_ones_room_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("queue_core.emulation.consuming.MAX_WAIT", 20.0)
    _, session = real(lease=60.0)
    session.declare(Queue("empty"))
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=1)
    session.subscribe("c", "empty", prefetch=1)
    found = session.receive("c", wait=1.0)
    threading.Timer(0.1, ack, (session, found)).start()
    started = time.monotonic()
    assert bodies(session.receive("c", wait=20.0)) == [b"2"]
    assert time.monotonic() - started < 10.0
    session.close()


def test_closing_ends_a_receive_of_another_thread_and_the_keeper() -> None:
    broker, session = real()
    session.subscribe("c", "work", prefetch=1)
    outcome: list[Exception] = []

    def receive() -> None:
        try:
            session.receive("c", wait=1.0)
            session.receive("c", wait=1.0)
        except Exception as error:
            outcome.append(error)

    before = threading.active_count()
    thread = threading.Thread(target=receive)
    thread.start()
    session.close()
    session.close()
    thread.join(20.0)
    assert [type(error) for error in outcome] == [Closed]
    eventually(lambda: threading.active_count() < before)
    assert not broker.sessions


@pytest.mark.parametrize("method", ["heartbeat", "sessions", "collect", "claim"])
def test_closing_leaves_alone_a_handle_that_another_thread_uses(bench: Bench, method: str) -> None:
    session = bench.open()
    session.declare(Queue("work"))
    session.subscribe("c", "work", prefetch=1)

    def close() -> None:
        closer = threading.Thread(target=session.close, kwargs={"timeout": 0.1})
        closer.start()
        closer.join()

    once(bench, method, close)
    with pytest.raises(Closed):
        session.receive("c", wait=0) if method == "claim" else session.tick()
        session.receive("c", wait=0)
    assert bench.faults.open == 0


def test_a_forked_child_is_refused_and_the_parent_goes_on() -> None:
    broker, session = real()
    session.subscribe("c", "work", prefetch=1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            refused = 0
            for call in (
                lambda: session.receive("c", wait=0),
                lambda: session.settle([]),
                lambda: session.publish([publication("work")]),
                lambda: session.declare(Queue("x")),
                lambda: session.flush("c"),
                lambda: session.cancel("c"),
            ):
                try:
                    call()
                except Closed:
                    refused += 1
            session.wake("c")
            session.close()
            code = 0 if refused == 6 and session.closed else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not session.closed
    send(session, "work", b"1")
    assert bodies(session.receive("c", wait=1.0)) == [b"1"]
    session.close()


def test_sessions_start_and_stop_from_many_threads() -> None:
    def run() -> None:
        for _ in range(10):
            _, session = real(lease=0.5)
            session.subscribe("c", "work", prefetch=1)
            closers = [threading.Thread(target=session.close) for _ in range(3)]
            for closer in closers:
                closer.start()
            for closer in closers:
                closer.join(30)
            assert session.closed

    before = threading.active_count()
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    eventually(lambda: threading.active_count() <= before)
