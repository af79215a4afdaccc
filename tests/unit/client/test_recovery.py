"""Recovery: which errors are waited for, what is replayed, what is given up."""

import os

import pytest

from queue_core.errors import (
    AccessRefused,
    Closed,
    ConnectionLost,
    QueueNotFound,
    SessionLost,
    TopologyMismatch,
)
from queue_core.topology import Binding, Exchange, Queue


def purge(recovery, timeout=10.0):
    return recovery.call(lambda session, left: session.purge("q", timeout=left), timeout=timeout)


def test_nothing_connects_before_the_first_call(broker, recovery):
    assert recovery.session is None
    assert broker.opened == []
    assert purge(recovery) == 3
    assert len(broker.opened) == 1


def test_the_first_connect_tries_each_url_once_and_raises(broker, recovery):
    broker.refusals.extend([ConnectionLost("a is down"), ConnectionLost("b is down")])
    with pytest.raises(ConnectionLost, match="b is down"):
        purge(recovery)
    assert [url.host for url in broker.opened] == ["a", "b"]
    assert broker.clock.slept == []


def test_the_second_url_serves_when_the_first_is_down(broker, recovery):
    broker.refusals.append(ConnectionLost("a is down"))
    assert purge(recovery) == 3
    assert recovery.endpoint[0].host == "b"


def test_a_lost_session_is_replaced_and_everything_is_replayed_in_order(broker, recovery):
    exchange, queue = Exchange("x"), Queue("q", exchange="x")
    purge(recovery)
    recovery.declare(exchange, timeout=10.0)
    recovery.declare(queue, timeout=10.0)
    recovery.subscribe("c", "q", 7, timeout=10.0)
    broker.failures.append(ConnectionLost("cut"))
    assert purge(recovery) == 3
    first, second = broker.sessions
    assert first.calls[-1] == ("close",)
    assert second.calls == [
        ("declare", exchange),
        ("declare", queue),
        ("subscribe", "q", 7),
        ("purge", "q"),
    ]


def test_a_session_that_survives_the_connection_is_used_again(broker, recovery):
    purge(recovery)
    broker.dies = False
    broker.failures.append(ConnectionLost("the database restarted"))
    assert purge(recovery) == 3
    assert len(broker.sessions) == 1


def test_a_lost_lease_always_means_a_new_session(broker, recovery):
    purge(recovery)
    broker.dies = False
    broker.failures.append(SessionLost("somebody else has the messages"))
    assert purge(recovery) == 3
    assert len(broker.sessions) == 2


def test_waiting_ends_at_the_deadline_with_the_last_error(broker, recovery):
    purge(recovery)
    broker.failures.append(ConnectionLost("cut"))
    broker.refusals.extend(ConnectionLost(f"attempt {number}") for number in range(1000))
    start = broker.clock.monotonic()
    with pytest.raises(ConnectionLost, match="attempt"):
        purge(recovery, timeout=60.0)
    assert 50.0 < broker.clock.monotonic() - start <= 60.0


def test_an_error_that_waiting_cannot_mend_passes_at_once(broker, recovery):
    purge(recovery)
    broker.failures.append(TopologyMismatch("other arguments"))
    with pytest.raises(TopologyMismatch):
        purge(recovery)
    broker.failures.append(ConnectionLost("cut"))
    broker.refusals.extend([AccessRefused("password changed"), AccessRefused("here too")])
    with pytest.raises(AccessRefused):
        purge(recovery)


def test_a_subscription_whose_queue_is_gone_is_reported_once(broker, recovery):
    recovery.subscribe("c", "gone", 1, timeout=10.0)
    broker.failures.extend([ConnectionLost("cut"), QueueNotFound("no queue 'gone'")])
    assert purge(recovery) == 3
    assert "gone" in str(recovery.take_lost("c"))
    assert recovery.take_lost("c") is None


def test_forgetting_a_queue_forgets_its_bindings(broker, recovery):
    for entity in (Exchange("x"), Queue("q"), Binding("x", "q", "key")):
        recovery.declare(entity, timeout=10.0)
    recovery.forget(Queue("q"))
    broker.failures.append(ConnectionLost("cut"))
    purge(recovery)
    assert broker.sessions[1].calls == [("declare", Exchange("x")), ("purge", "q")]


def test_a_declaration_made_while_the_session_is_replaced_is_made_on_the_new_one(broker, recovery):
    purge(recovery)
    first = broker.sessions[0]
    declare = first.declare

    def declare_and_lose(entity, **options):
        name = declare(entity, **options)
        first.closed = True
        return name

    first.declare = declare_and_lose
    assert recovery.declare(Queue(), timeout=10.0) == Queue("generated")
    assert ("declare", Queue("generated")) in broker.sessions[1].calls


def test_what_is_deleted_while_the_session_is_replaced_is_deleted_on_the_new_one(broker, recovery):
    recovery.declare(Queue("q"), timeout=10.0)
    first = broker.sessions[0]
    delete = first.delete

    def delete_and_lose(entity, **options):
        existed = delete(entity, **options)
        first.closed = True
        purge(recovery)  # another thread opens the new session, and declares the queue there
        return existed

    first.delete = delete_and_lose
    assert recovery.delete(Queue("q"), if_unused=False, if_empty=False, timeout=10.0)
    assert broker.sessions[1].calls[-1] == ("delete", Queue("q"))


def test_an_exclusive_queue_that_the_broker_still_holds_for_us_is_waited_for(broker, recovery):
    recovery.declare(Queue("mine", exclusive=True), timeout=10.0)
    broker.failures.extend([ConnectionLost("cut"), held()])
    assert purge(recovery) == 3
    assert len(broker.sessions) == 3


@pytest.mark.parametrize("forever", [True, False])
def test_an_exclusive_queue_that_another_process_has_is_given_up_and_the_rest_goes_on(
    broker, recovery, monkeypatch, forever
):
    """At once where the refusal is final, else when our earlier connection cannot have it."""
    recovery.declare(Queue("mine", exclusive=True), timeout=10.0)
    recovery.subscribe("c", "mine", 1, timeout=10.0)
    declared = []

    def refuse(session, entity, **_):
        declared.append(entity)
        raise held(forever=forever)

    monkeypatch.setattr(type(broker.sessions[0]), "declare", refuse)
    began = broker.clock.monotonic()
    broker.failures.append(ConnectionLost("cut"))
    assert purge(recovery, timeout=None) == 3
    took = broker.clock.monotonic() - began
    assert took < 5.0 if forever else 60.0 <= took < 120.0
    assert isinstance(recovery.take_lost("c"), AccessRefused)
    declared.clear()
    broker.failures.append(ConnectionLost("cut"))
    assert purge(recovery) == 3
    assert not declared


def held(*, forever: bool = False) -> AccessRefused:
    refused = AccessRefused("405 RESOURCE_LOCKED")
    refused.retryable = not forever
    return refused


def test_a_session_that_is_opened_again_is_told_from_those_of_other_connections(broker, recovery):
    purge(recovery)
    broker.failures.append(ConnectionLost("cut"))
    purge(recovery)
    first, second = broker.asked
    assert (first.again, second.again) == (False, True)
    assert first.origin == second.origin != ""


def test_closing_refuses_later_calls_and_may_happen_twice(broker, recovery):
    purge(recovery)
    recovery.close(timeout=1.0)
    recovery.close(timeout=1.0)
    assert broker.sessions[0].calls.count(("close",)) == 1
    with pytest.raises(Closed):
        purge(recovery)


def test_a_forked_child_leaves_the_parents_session_alone(broker, recovery, monkeypatch):
    purge(recovery)
    recovery.subscribe("c", "q", 7, timeout=10.0)
    pid = os.getpid()
    monkeypatch.setattr("queue_core.process._own", pid + 1)
    assert recovery.session is None
    purge(recovery)
    parent, child = broker.sessions
    assert not parent.closed
    assert child.calls == [("purge", "q")]


def test_a_forked_child_does_not_claim_its_parents_exclusive_queues(broker, recovery, monkeypatch):
    mine, ours = Queue("mine", exclusive=True, durable=False), Queue("ours")
    for entity in (mine, Binding("e", "mine"), ours):
        recovery.declare(entity, timeout=10.0)
    monkeypatch.setattr("queue_core.process._own", os.getpid() + 1)
    purge(recovery)
    _, child = broker.sessions
    assert child.calls == [("declare", ours), ("purge", "q")]


@pytest.mark.parametrize(("connected", "name"), [(True, ""), (False, "shop")])
def test_a_forked_child_of_a_connected_process_does_not_take_its_name(
    broker, recovery, monkeypatch, connected, name
):
    """Else its first call ended the parent's session. A daemon forks before it connects."""
    if connected:
        purge(recovery)
    monkeypatch.setattr("queue_core.process._own", os.getpid() + 1)
    purge(recovery)
    assert broker.asked[-1].node == name
    broker.failures.append(ConnectionLost("cut"))
    purge(recovery)
    assert broker.asked[-1].node == name


def test_a_subscription_made_while_the_session_was_replaced_is_on_the_new_one(broker, recovery):
    purge(recovery)

    def replaced():
        broker.on_subscribe = lambda: None
        broker.sessions[0].closed = True
        purge(recovery)

    broker.on_subscribe = replaced
    recovery.subscribe("c", "q", 7, timeout=10.0)
    assert ("subscribe", "q", 7) in broker.sessions[1].calls


def test_a_subscription_ended_while_the_session_was_replaced_is_not_left_on_the_new_one(
    broker, recovery
):
    recovery.subscribe("c", "q", 7, timeout=10.0)
    recovery.subscribe("other", "q", 7, timeout=10.0)
    broker.sessions[0].closed = True

    def ended():
        broker.on_subscribe = lambda: None
        recovery.unsubscribe("c", None)

    broker.on_subscribe = ended
    purge(recovery)
    assert broker.sessions[1].calls.count(("subscribe", "q", 7)) == 2
    assert broker.sessions[1].calls.count(("cancel", "q")) == 1


def test_a_reconnect_that_is_interrupted_leaves_no_session_that_nobody_knows(broker, recovery):
    recovery.subscribe("c", "q", 7, timeout=10.0)
    broker.sessions[0].closed = True

    def interrupt():
        broker.on_subscribe = lambda: None
        raise KeyboardInterrupt

    broker.on_subscribe = interrupt
    with pytest.raises(KeyboardInterrupt):
        purge(recovery)
    assert broker.sessions[1].closed
    purge(recovery)
    assert ("subscribe", "q", 7) in broker.sessions[2].calls


def test_a_session_opened_while_the_recovery_is_closed_is_closed_too(broker, recovery):
    usual = recovery._swapping

    class ClosingFirst:
        def __enter__(self):
            recovery._swapping = usual
            recovery.close(timeout=1.0)
            return usual.__enter__()

        def __exit__(self, *exc_info):
            return usual.__exit__(*exc_info)

    recovery._swapping = ClosingFirst()
    with pytest.raises(Closed):
        purge(recovery)
    assert [session.closed for session in broker.sessions] == [True]


def test_who_uses_a_session_in_the_moment_in_which_it_is_there_goes_on_when_it_breaks(
    broker, recovery
):
    usual, seen = recovery._swapping, []
    broker.dies = False

    class UsedAtOnce:
        def __enter__(self):
            return usual.__enter__()

        def __exit__(self, *exc_info):
            usual.__exit__(*exc_info)
            recovery._swapping = usual
            broker.failures.append(ConnectionLost("cut"))
            seen.append(purge(recovery))  # as another thread does

    recovery._swapping = UsedAtOnce()
    purge(recovery)
    assert seen == [3]


@pytest.mark.parametrize(
    "error",
    [TopologyMismatch("queue 'q' has other arguments"), AccessRefused("no permission for 'q'")],
)
def test_a_declaration_that_fails_again_is_reported_by_its_consumer_and_spoils_nothing_else(
    broker, recovery, caplog, error
):
    for name in ("first", "q", "last"):
        recovery.declare(Queue(name), timeout=10.0)
        recovery.subscribe(f"consumer of {name}", name, 1, timeout=10.0)
    broker.failures.extend([ConnectionLost("cut"), None, error])
    assert purge(recovery) == 3
    names = [call[1] for call in broker.sessions[1].calls if call[0] == "subscribe"]
    assert names == ["first", "q", "last"]
    assert [recovery.take_lost(f"consumer of {name}") for name in ("first", "last")] == [None, None]
    assert recovery.take_lost("consumer of q") is error
    assert recovery.take_lost("consumer of q") is None
    assert "'q'" in str(error.__notes__)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "queue 'q' could not be declared again" in caplog.records[1].getMessage()
    assert purge(recovery) == 3


def test_a_subscription_that_is_refused_again_is_reported_by_its_consumer_alone(broker, recovery):
    recovery.subscribe("one", "a", 1, timeout=10.0)
    recovery.subscribe("two", "b", 1, timeout=10.0)
    refused = AccessRefused("queue 'a' is exclusive to another connection")
    broker.failures.extend([ConnectionLost("cut"), refused])
    assert purge(recovery) == 3
    assert recovery.take_lost("one") is refused
    assert recovery.take_lost("two") is None


def test_each_lost_queue_of_a_consumer_is_reported(broker, recovery):
    for name in ("a", "b", "c"):
        recovery.subscribe("one", name, 1, timeout=10.0)
    gone = [QueueNotFound("no queue 'a'"), None, QueueNotFound("no queue 'c'")]
    broker.failures.extend([ConnectionLost("cut"), *gone])
    assert purge(recovery) == 3
    assert [recovery.take_lost("one") for _ in range(3)] == [gone[0], gone[2], None]


def test_who_has_no_time_to_spare_gets_a_new_session_too(broker, recovery):
    """A poll in a loop, with what takes a moment to declare again: it would never come back."""
    for name in ("a", "b", "c"):
        recovery.declare(Queue(name), timeout=10.0)
    broker.slowness = 0.06
    broker.sessions[0].closed = True
    assert purge(recovery, timeout=0.0) == 3
    assert [call[0] for call in broker.sessions[1].calls] == ["declare"] * 3 + ["purge"]


def test_a_session_that_another_thread_gives_up_during_a_call_is_replaced(broker, recovery):
    purge(recovery)

    def given_up_meanwhile(session, left):
        if session is broker.sessions[0]:
            recovery._abandon(session, SessionLost("another thread heard of it first"))
            raise Closed("the session is closed")
        return session.purge("q", timeout=left)

    assert recovery.call(given_up_meanwhile, timeout=10.0) == 3
    assert len(broker.sessions) == 2


def test_what_is_closed_while_its_session_is_open_is_not_waited_for(broker, recovery):
    purge(recovery)

    def closed(session, left):
        raise Closed("the consumer is closed")

    with pytest.raises(Closed, match="the consumer is closed"):
        recovery.call(closed, timeout=10.0)
    assert len(broker.sessions) == 1


class Emptied(dict):
    """What another thread empties while this one goes through it."""

    def __iter__(self):
        keys = list(super().__iter__())
        self.clear()
        return iter(keys)

    def items(self):
        items = list(super().items())
        self.clear()
        return items


def test_two_threads_may_end_the_same_subscription_or_forget_the_same_binding(broker, recovery):
    recovery._subscriptions = Emptied({("c", "q"): 1})
    recovery.unsubscribe("c", None)
    recovery._entities = Emptied({("binding",): Binding("x", "q", "key")})
    recovery.forget(Queue("q"))
    assert not recovery._subscriptions and not recovery._entities
