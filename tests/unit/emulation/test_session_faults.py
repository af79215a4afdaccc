"""A session whose store loses requests and replies: nothing is lost, stranded or settled twice."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from queue_core.emulation import EmulatedSession
from queue_core.errors import (
    BrokerFull,
    ConnectionLost,
    QueueNotFound,
    SessionLost,
    StaleDelivery,
    TransportError,
)
from queue_core.message import Action, Delivery, Publication, Settlement
from queue_core.topology import Queue
from queue_core.transport import Store
from tests.unit.emulation.stores import Bench, ack, bodies, publication, send


@pytest.fixture
def session(bench: Bench) -> Iterator[EmulatedSession]:
    made = bench.open()
    made.declare(Queue("work", max_deliveries=50))
    yield made
    bench.faults.plan.clear()
    made.close()
    assert bench.faults.open == 0, "handles were not closed"
    assert not bench.broker.sessions, "sessions were left behind"


def lose(bench: Bench, *plan: str, only: str = "") -> None:
    bench.faults.plan[:] = plan
    if only:
        bench.faults.only = frozenset({only})


def lose_a_claim(bench: Bench, session: EmulatedSession, fault: str) -> None:
    lose(bench, fault)
    with pytest.raises(ConnectionLost):
        session.receive("c", wait=0)


def test_a_claim_whose_reply_was_lost_is_repeated_and_strands_nothing(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=2)
    lose_a_claim(bench, session, "after")
    assert not session.closed
    assert bodies(session.receive("c", wait=0)) == [b"1", b"2"]
    assert session.inspect("work").unacked == 2


def test_a_claim_whose_request_was_lost_claims_when_repeated(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=2)
    lose_a_claim(bench, session, "before")
    assert bodies(session.receive("c", wait=0)) == [b"1"]


@pytest.mark.parametrize("fault", ["before", "after"])
def test_what_a_lost_claim_took_goes_back_when_the_consumer_is_cancelled(
    bench: Bench, session: EmulatedSession, fault: str
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=2)
    lose_a_claim(bench, session, fault)
    session.cancel("c")
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (1, 0)


@pytest.mark.parametrize("how", ["repeated", "cancelled"])
def test_what_a_claim_takes_that_arrives_after_it_was_given_up_goes_back(
    bench: Bench, session: EmulatedSession, how: str
) -> None:
    session.subscribe("c", "work", prefetch=5)
    lose_a_claim(bench, session, "late")
    if how == "cancelled":
        session.cancel("c")
        session.subscribe("c", "work", prefetch=5)
    else:
        assert not session.receive("c", wait=0)
    session.tick()
    send(session, "work", b"1", b"2")
    bench.faults.arrive()
    assert session.inspect("work").unacked == 2
    session.tick()
    assert session.inspect("work").unacked == 0
    found = session.receive("c", wait=0)
    assert [(item.body, item.attempts) for item in found] == [(b"1", 1), (b"2", 1)]
    session.tick()
    assert session.inspect("work").unacked == 2
    session.settle([Settlement(item) for item in found])
    session.flush("c")


def test_what_a_lost_claim_took_is_not_taken_back_from_who_got_it_by_the_repeat(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=5)
    lose_a_claim(bench, session, "after")
    found = session.receive("c", wait=0)
    for _ in range(5):
        bench.pass_time(5.0, session)
    ack(session, found)
    session.flush("c")
    assert session.inspect("work").ready == 0


def test_dead_letters_that_a_late_collect_took_are_buried(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("dead"))
    session.declare(
        Queue("short", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    lose(bench, "late", only="collect")
    session.tick()
    session.tick()
    send(session, "short", b"1")
    bench.clock.advance(1.5)
    bench.faults.arrive()
    session.tick()
    session.tick()
    assert session.inspect("dead").ready == 1


def test_claims_that_were_lost_long_ago_are_not_asked_for_any_more(
    bench: Bench, session: EmulatedSession
) -> None:
    session.subscribe("c", "work", prefetch=5)
    for _ in range(200):
        lose(bench, "before")
        with pytest.raises(ConnectionLost):
            session.receive("c", wait=0)
        session.receive("c", wait=0)
    bench.faults.calls.clear()
    session.tick()
    assert 0 < bench.faults.calls.count("claim") <= 100
    bench.pass_time(400.0, session, step=3.0)
    bench.faults.calls.clear()
    session.tick()
    assert bench.faults.calls.count("claim") == 0
    assert bench.faults.calls.count("open_session") == 0


@pytest.mark.parametrize("fault", ["before", "after"])
def test_what_a_lost_claim_took_goes_back_when_the_consumer_stops(
    bench: Bench, session: EmulatedSession, fault: str
) -> None:
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=1)
    [held] = session.receive("c", wait=0)
    ack(session, [held])
    lose_a_claim(bench, session, fault)
    session.stop("c")
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (1, 0)


def test_what_a_claim_takes_while_its_consumer_stops_goes_back_though_its_reply_is_lost(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)

    def hook(method: str) -> None:
        if method == "claim":
            bench.faults.hook = lambda name: None
            session.stop("c")
            bench.faults.plan[:] = ["after"]

    bench.faults.hook = hook
    with pytest.raises(ConnectionLost):
        session.receive("c", wait=0)
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (1, 0)


@pytest.mark.parametrize("fault", ["before", "after"])
def test_acks_that_travelled_with_a_lost_claim_are_sent_again_and_are_not_stale(
    bench: Bench, session: EmulatedSession, fault: str
) -> None:
    send(session, "work", b"1", b"2", b"3")
    session.subscribe("c", "work", prefetch=2)
    ack(session, session.receive("c", wait=0))
    lose_a_claim(bench, session, fault)
    session.flush("c")
    assert bodies(session.receive("c", wait=0)) == [b"3"]
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (0, 1)


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("action", ["ack", "requeue", "reject"])
def test_a_flush_whose_reply_was_lost_can_be_repeated(
    bench: Bench, session: EmulatedSession, fault: str, action: str
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=2)
    [delivery] = session.receive("c", wait=0)
    session.settle([Settlement(delivery, action)])  # type: ignore[arg-type] # parametrized
    lose(bench, fault)
    with pytest.raises(ConnectionLost):
        session.flush("c")
    session.flush("c")
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (int(action == "requeue"), 0)


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_settle_then_whose_reply_was_lost_can_be_repeated_with_the_same_ids(
    bench: Bench, session: EmulatedSession, fault: str
) -> None:
    session.declare(Queue("next"))
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=2)
    [delivery] = session.receive("c", wait=0)
    then = [publication("next")]
    lose(bench, fault, only="put")
    with pytest.raises(ConnectionLost):
        session.settle_then(delivery, then)
    assert [outcome.status for outcome in session.settle_then(delivery, then)] == ["confirmed"]
    assert session.inspect("next").ready == 1
    assert session.inspect("work").unacked == 0
    with pytest.raises(StaleDelivery):
        session.settle_then(delivery, then)


def test_a_settle_then_with_other_messages_does_not_pass_for_the_lost_one_that_worked(
    bench: Bench, session: EmulatedSession
) -> None:
    session.declare(Queue("results"))
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    [delivery] = session.receive("c", wait=0)
    lose(bench, "after", only="put")
    with pytest.raises(ConnectionLost):
        session.settle_then(delivery, [publication("results", b"result")])
    with pytest.raises(StaleDelivery):
        session.settle_then(delivery, [publication("results", b"failure")])
    assert session.inspect("results").ready == 1


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("method", ["collect", "put", "read_table", "open_session"])
def test_dead_letters_arrive_once_whatever_the_keeper_loses(
    bench: Bench, session: EmulatedSession, fault: str, method: str
) -> None:
    session.declare(Queue("dead"))
    queue = Queue("short", message_ttl=1.0, dead_letter_exchange="", dead_letter_routing_key="dead")
    session.declare(queue)
    send(session, "short", b"1", b"2", b"3")
    bench.clock.advance(1.5)
    lose(bench, fault, "", fault, only=method)
    for _ in range(5):
        session.tick()
    bench.faults.plan.clear()
    assert session.inspect("dead").ready == 3
    assert session.inspect("short").ready == 0


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("method", ["release", "end_session", "put", "heartbeat", "read_table"])
def test_a_cancel_that_was_interrupted_is_finished_by_the_keeper(
    bench: Bench, session: EmulatedSession, fault: str, method: str
) -> None:
    session.declare(Queue("brief", auto_delete=True))
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=5)
    session.subscribe("c", "brief", prefetch=5)
    ack(session, session.receive("c", wait=0)[:1])
    lose(bench, fault, only=method)
    with contextlib.suppress(ConnectionLost):
        session.cancel("c")
    with contextlib.suppress(ConnectionLost):
        session.cancel("c")
    session.tick()
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked, info.consumers) == (1, 0, 0)
    assert session.publish([publication("brief")])[0].status == "unroutable"


def test_a_cancel_that_is_interrupted_strands_nothing(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1", b"2")
    session.subscribe("c", "work", prefetch=5)
    ack(session, session.receive("c", wait=0)[:1])

    def interrupt(method: str) -> None:
        bench.faults.hook = lambda name: None
        raise KeyboardInterrupt

    bench.faults.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        session.cancel("c", "work")
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked, info.consumers) == (1, 0, 0)


@pytest.mark.parametrize("queue", ["work", None])
def test_flush_makes_certain_what_an_interrupted_cancel_left(
    bench: Bench, session: EmulatedSession, queue: str | None
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    ack(session, session.receive("c", wait=0))
    lose(bench, "before", only="put")
    with pytest.raises(ConnectionLost):
        session.cancel("c", queue)
    assert session.inspect("work").unacked == 1
    session.flush("c")
    assert session.inspect("work").unacked == 0
    session.tick()
    session.flush("c")


def test_a_lost_flush_of_a_cancelled_consumer_does_not_pass_for_a_good_one(
    bench: Bench, session: EmulatedSession
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    ack(session, session.receive("c", wait=0))
    lose(bench, "before", "before", "before", only="put")
    with pytest.raises(ConnectionLost):
        session.cancel("c")
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            session.flush("c")
    session.flush("c")
    assert session.inspect("work").unacked == 0


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("method", ["read_table", "open_session", "write_table"])
def test_a_subscription_whose_reply_was_lost_leaves_no_second_consumer(
    bench: Bench, session: EmulatedSession, fault: str, method: str
) -> None:
    session.declare(Queue("brief", auto_delete=True))
    lose(bench, fault, only=method)
    with pytest.raises(ConnectionLost):
        session.subscribe("c", "brief", prefetch=1)
    session.subscribe("c", "brief", prefetch=1)
    assert session.inspect("brief").consumers == 1
    lose(bench, fault)
    with pytest.raises(ConnectionLost):
        session.subscribe("other", "brief", prefetch=1)


@pytest.mark.parametrize("action", ["ack", "requeue", "then"])
def test_a_settlement_that_fails_after_its_consumer_was_cancelled_is_not_forgotten(
    bench: Bench, session: EmulatedSession, action: str
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)
    [delivery] = session.receive("c", wait=0)

    def hook(method: str) -> None:
        if method in ("put", "release"):
            bench.faults.hook = lambda name: None
            session.cancel("c")
            bench.faults.plan[:] = ["before"]

    bench.faults.hook = hook
    if action == "then":
        with pytest.raises(ConnectionLost):
            session.settle_then(delivery, [publication("work")])
    else:
        session.settle([Settlement(delivery, action)])  # type: ignore[arg-type] # parametrized
        session.tick()
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (int(action != "ack"), 0)


@pytest.mark.parametrize("fault", ["before", "after", ""])
def test_what_a_claim_takes_while_its_consumer_is_cancelled_goes_back(
    bench: Bench, session: EmulatedSession, fault: str
) -> None:
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=5)

    def hook(method: str) -> None:
        if method == "claim":
            bench.faults.hook = lambda name: None
            session.cancel("c")
            bench.faults.plan[:] = [fault]

    bench.faults.hook = hook
    with contextlib.suppress(ConnectionLost):
        assert not session.receive("c", wait=0)
    session.tick()
    info = session.inspect("work")
    assert (info.ready, info.unacked) == (1, 0)


def test_every_handle_that_failed_is_thrown_away(bench: Bench, session: EmulatedSession) -> None:
    session.subscribe("c", "work", prefetch=5)
    for _ in range(20):
        lose(bench, "before")
        with pytest.raises(ConnectionLost):
            session.inspect("work")
        lose(bench, "after")
        with pytest.raises(ConnectionLost):
            session.receive("c", wait=0)
        lose(bench, "after")
        session.tick()
        bench.faults.plan.clear()
    session.inspect("work")
    assert bench.faults.open <= 4


WHO = st.integers(0, 1)
PLAN: st.SearchStrategy[list[str]] = st.one_of(
    st.just([]),
    st.builds(
        lambda passed, fault: [""] * passed + [fault],
        st.integers(0, 3),
        st.sampled_from(["before", "after"]),
    ),
)


class FaultMachine(RuleBasedStateMachine):
    """Two sessions and a queue; any call may lose its request or its reply."""

    PREFETCH = 3

    @initialize()
    def begin(self) -> None:
        self.bench = Bench()
        self.bench.faults.only = frozenset()
        self.sessions: list[EmulatedSession] = []
        self.held: dict[int, list[Delivery]] = {}
        self.published: set[bytes] = set()
        self.maybe: dict[bytes, Publication] = {}
        self.doubtful: set[bytes] = set()  # published again when the first may have been consumed
        self.acked: set[bytes] = set()
        self.recorded: dict[int, set[bytes]] = {}
        self.seen: Counter[bytes] = Counter()
        self.number = 0
        first = self._open()
        first.declare(Queue("dead"))
        first.declare(Queue("work", dead_letter_exchange="", dead_letter_routing_key="dead"))
        first.subscribe("c", "work", prefetch=self.PREFETCH)
        self._open().subscribe("c", "work", prefetch=self.PREFETCH)
        self.bench.faults.only = frozenset(
            "put claim release collect heartbeat sessions end_session read_table".split()
        )

    def _open(self) -> EmulatedSession:
        session = self.bench.open()
        self.held[len(self.sessions)] = []
        self.recorded[len(self.sessions)] = set()
        self.sessions.append(session)
        return session

    def trouble(self, plan: list[str]) -> None:
        self.bench.faults.plan[:] = plan

    @rule(who=WHO, count=st.integers(1, 4), plan=PLAN)
    def publish(self, who: int, count: int, plan: list[str]) -> None:
        for _ in range(count):
            self.number += 1
            body = b"%d" % self.number
            self.maybe[body] = publication("work", body)
        self.publish_again(who, plan)

    @rule(who=WHO, plan=PLAN)
    def publish_again(self, who: int, plan: list[str]) -> None:
        self.trouble(plan)
        batch = list(self.maybe.values())
        with contextlib.suppress(ConnectionLost):
            outcomes = self.sessions[who].publish(batch)
            assert all(outcome.status == "confirmed" for outcome in outcomes)
            self.published.update(self.maybe)
            self.maybe.clear()
        self.doubtful.update(self.maybe)

    @rule(who=WHO, plan=PLAN)
    def receive(self, who: int, plan: list[str]) -> None:
        self.trouble(plan)
        with contextlib.suppress(ConnectionLost):
            for delivery in self.sessions[who].receive("c", wait=0):
                assert delivery.body not in self.acked - self.doubtful, "acked, delivered again"
                self.held[who].append(delivery)

    @rule(who=WHO, actions=st.lists(st.sampled_from(["ack", "requeue", "reject"]), max_size=3))
    def settle(self, who: int, actions: list[Action]) -> None:
        for action, delivery in zip(actions, self.held[who][:], strict=False):
            self.held[who].remove(delivery)
            self.sessions[who].settle([Settlement(delivery, action)])
            if action == "ack":
                self.recorded[who].add(delivery.body)

    @rule(who=WHO, plan=PLAN)
    def settle_then(self, who: int, plan: list[str]) -> None:
        if not self.held[who]:
            return
        self.trouble(plan)
        delivery = self.held[who].pop(0)
        then = [publication("dead", delivery.body)]
        with contextlib.suppress(ConnectionLost):
            self.sessions[who].settle_then(delivery, then)
            self.acked.add(delivery.body)
            return
        self.trouble([])
        self.sessions[who].settle_then(delivery, then)
        self.acked.add(delivery.body)

    @rule(who=WHO, plan=PLAN)
    def flush(self, who: int, plan: list[str]) -> None:
        self.trouble(plan)
        with contextlib.suppress(ConnectionLost):
            self.sessions[who].flush("c")
            self.acked |= self.recorded[who]
            self.recorded[who].clear()

    @rule(who=WHO, plan=PLAN)
    def cancel_and_subscribe(self, who: int, plan: list[str]) -> None:
        self.trouble(plan)
        self.held[who].clear()
        with contextlib.suppress(ConnectionLost):
            self.sessions[who].cancel("c")
        self.trouble([])
        self.sessions[who].subscribe("c", "work", prefetch=self.PREFETCH)

    @rule(plan=PLAN)
    def tick(self, plan: list[str]) -> None:
        self.trouble(plan)
        self.bench.clock.advance(0.5)
        for session in self.sessions:
            session.tick()

    @invariant()
    def the_prefetch_holds(self) -> None:
        # What a lost claim of a cancelled consumer took is a chore until the keeper gave it back.
        if hasattr(self, "sessions") and not any(item._core.chores for item in self.sessions):
            work = self.bench.broker.queues.get("work")
            assert work is None or work.claimed <= 2 * self.PREFETCH

    def teardown(self) -> None:
        """Every message is exactly somewhere: acked, dead, or delivered to the last consumer."""
        if not hasattr(self, "sessions"):
            return
        self.bench.faults.plan.clear()
        self.publish_again(0, [])
        for who, session in enumerate(self.sessions):
            session.tick()
            session.flush("c")
            self.acked |= self.recorded[who]
            session.close()
        last = self.bench.open()
        last.subscribe("w", "work", prefetch=1000)
        last.subscribe("d", "dead", prefetch=1000)
        last.tick()
        left = Counter(bodies(last.receive("w", wait=0)))
        dead = Counter(bodies(last.receive("d", wait=0)))
        work = self.bench.broker.queues.get("work")
        assert work is None or work.claimed == sum(left.values()), "something is stranded"
        assert set(left) | set(dead) | self.acked >= self.published, "lost"
        for body in self.doubtful:
            left.pop(body, None)
            dead.pop(body, None)
        assert not set(left) & self.acked, "acked, and still there"
        assert all(count == 1 for count in left.values()), "stored twice"
        assert all(count == 1 for count in dead.values()), "died twice"
        last.close()
        assert not self.bench.broker.sessions
        assert self.bench.faults.open == 0, "handles were not closed"


TestFaultMachine = FaultMachine.TestCase
TestFaultMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_session_ended_by_others_is_lost_for_every_call(bench: Bench) -> None:
    session = bench.open()
    session.declare(Queue("work"))
    send(session, "work", b"1")
    session.subscribe("c", "work", prefetch=1)
    held = session.receive("c", wait=0)
    other = bench.open()
    bench.pass_time(12.0, other)
    assert other.inspect("work").ready == 1
    session.tick()
    assert session.closed
    with pytest.raises(SessionLost):
        session.receive("c", wait=0)
    with pytest.raises(SessionLost):
        ack(session, held)
    with pytest.raises(SessionLost):
        session.publish([publication("work")])
    with pytest.raises(SessionLost):
        session.flush("c")
    session.close()
    session.close()
    other.close()
    assert bench.faults.open == 0


@pytest.mark.parametrize("error", [BrokerFull("no room"), ConnectionLost("cut")])
def test_closing_gives_everything_back_though_a_chore_fails(
    bench: Bench, error: TransportError
) -> None:
    session = bench.open()
    session.declare(Queue("work"))
    session.declare(Queue("mine", exclusive=True))
    session.subscribe("c", "work", prefetch=9)
    send(session, "work", b"1", b"2")
    first, _ = session.receive("c")
    ack(session, [first])

    def fail(store: Store) -> None:
        raise error

    session._core.later(fail)
    session.close()
    assert not bench.broker.sessions
    assert (bench.broker.queues["work"].claimed, len(bench.broker.queues["work"].ids)) == (0, 1)
    assert bench.faults.open == 0
    other = bench.open()
    with pytest.raises(QueueNotFound):
        other.inspect("mine")
    other.close()
