"""Every field of `Features`, kept to: what it declares works, and what it lacks is refused aloud.

`CAN` and `CANNOT` have one check for each field. `FeatureTests` runs the one that the transport
declares. A test elsewhere that needs a feature says so with `needs`; where it is missing, the test
becomes the check that asking for it is refused, so that nothing is skipped in silence.

A few fields describe a behaviour that nobody asks for (``attempts``, ``requeue_in_place`` ...):
there is nothing to refuse, and "cannot" checks what happens instead.
"""
# ruff: noqa: D102, D103 - the names of tests and checks are sentences

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

import pytest

from queue_core.errors import StaleDelivery, TopologyMismatch, Unsupported
from queue_core.message import Publication
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.topology import Binding, Entity, Exchange, Queue
from queue_core.transport import Features, Transaction

Check = Callable[[Bench], None]


def refused(bench: Bench, feature: str, call: Callable[[], object]) -> None:
    """Check that ``call()`` raises `Unsupported`, naming the feature and the transport."""
    with pytest.raises(Unsupported) as caught:
        call()
    assert caught.value.feature == feature
    assert caught.value.transport == (bench.suite.transport or caught.value.transport)
    assert caught.value.transport and caught.value.transport in str(caught.value)
    assert feature in str(caught.value)


def refused_entity(bench: Bench, feature: str, *entities: Entity) -> None:
    """Check that declaring each entity is refused, and made nothing."""
    for entity in entities:
        refused(bench, feature, functools.partial(bench.session.declare, entity))
        if not isinstance(entity, Binding):
            assert not bench.exists(type(entity)(entity.name))


def refused_publication(bench: Bench, feature: str, publication: Publication) -> None:
    """Check that a batch with ``publication`` is refused and that nothing of it was sent."""
    queue = bench.queue()
    publication.exchange, publication.routing_key = "", queue.name
    plain = bench.publication(queue, b"before")
    refused(bench, feature, lambda: bench.publish(plain, publication))
    bench.expect(queue, [])


# --- durable, shared -----------------------------------------------------------------------------


def can_durable(bench: Bench) -> None:
    first = bench.open()
    queue = bench.queue(session=first, durable=True)
    bench.send(queue, b"kept", session=first)
    first.close()
    bench.expect(queue, [b"kept"])


def cannot_durable(bench: Bench) -> None:
    """Queues are durable by default, so there is nothing to refuse; a session is outlived."""
    queue = bench.queue(durable=True)
    passing = bench.open()
    bench.send(queue, b"kept", session=passing)
    passing.close()
    bench.expect(queue, [b"kept"])


def one_broker_for_all_sessions(bench: Bench) -> None:
    """Between processes it is proved elsewhere, with processes; between sessions it always is."""
    other = bench.open()
    queue = bench.queue(session=other)
    bench.send(queue, b"seen by both")
    assert bench.tap(queue, session=other).one().body == b"seen by both"


# --- publishing ----------------------------------------------------------------------------------


def can_priority(bench: Bench) -> None:
    queue = bench.queue(max_priority=9)
    for priority in (0, 9, 4, 9, 0):
        bench.send(queue, b"%d" % priority, priority=priority)
    bench.expect(queue, [b"9", b"9", b"4", b"0", b"0"])


def cannot_priority(bench: Bench) -> None:
    refused_entity(bench, "priority", bench.queue(declare=False, max_priority=9))


def can_delay(bench: Bench) -> None:
    queue = bench.queue()
    tap = bench.tap(queue)
    begun = time.monotonic()
    bench.send(queue, b"later", delay=0.3)
    tap.one()
    took = time.monotonic() - begun
    assert took >= 0.29, f"{took:.3f} s: early"
    assert took < 0.3 + 5.0, f"{took:.3f} s: much too late"


def cannot_delay(bench: Bench) -> None:
    refused_publication(bench, "delay", bench.publication("", b"later", delay=0.3))
    queue = bench.queue()
    bench.send(queue, b"again")
    tap = bench.tap(queue)
    delivery = tap.one()
    refused(bench, "delay", lambda: tap.requeue(delivery, delay=0.3))


def can_transactions(bench: Bench) -> None:
    queue = bench.queue()
    ended: list[bool] = []
    for commit in (False, True):
        handle, end = bench.suite.begin()
        outcomes = bench.session.publish(
            [bench.publication(queue, b"commit" if commit else b"rollback")],
            transaction=Transaction(handle, ended.append),
        )
        assert [outcome.status for outcome in outcomes] == ["confirmed"]
        assert bench.session.inspect(queue.name).ready == 0, "visible before the commit"
        end(commit)
    bench.expect(queue, [b"commit"])
    assert ended == [False, True]


def cannot_transactions(bench: Bench) -> None:
    queue = bench.queue()
    transaction = Transaction(object(), lambda committed: None)
    refused(
        bench,
        "transactions",
        lambda: bench.session.publish([bench.publication(queue, b"")], transaction=transaction),
    )
    bench.expect(queue, [])


def can_deduplicate(bench: Bench) -> None:
    queue = bench.queue()
    twice = bench.publication(queue, b"once", id="the-same-id")
    assert [outcome.status for outcome in bench.publish(twice)] == ["confirmed"]
    assert [outcome.status for outcome in bench.publish(twice)] == ["confirmed"]
    bench.expect(queue, [b"once"])


def cannot_deduplicate(bench: Bench) -> None:
    """A repeat may be stored again, and never swallows anything."""
    queue = bench.queue()
    twice = bench.publication(queue, b"once or twice", id="the-same-id")
    bench.publish(twice)
    bench.publish(twice)
    bench.late(lambda: bench.session.inspect(queue.name).ready in (1, 2), bench.patience)


def can_key_value(bench: Bench) -> None:
    mine = bench.session.key_value()
    theirs = bench.open().key_value()
    key = bench.name("key")
    assert mine.key_get(key) is None
    version = mine.key_set(key, b"one", version=0)
    assert version is not None
    assert theirs.key_set(key, b"two", version=0) is None
    found = theirs.key_get(key)
    assert found is not None
    assert (found.value, found.version) == (b"one", version)
    assert theirs.key_set(key, b"two", version=version) not in (None, version)
    assert not mine.key_delete(key, version=version)
    assert mine.key_delete(key)
    counter = bench.name("counter")
    assert [mine.key_increment(counter), theirs.key_increment(counter, 5)] == [1, 6]
    mine.key_set(key, b"short", ttl=0.1)
    bench.late(lambda: theirs.key_get(key) is None, bench.patience, "the key's ttl")
    _many_threads_share_a_counter(bench)


def _many_threads_share_a_counter(bench: Bench) -> None:
    counter = bench.name("counter")
    values = bench.session.key_value()

    def count() -> None:
        for _ in range(20):
            values.key_increment(counter)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(bench.patience)
    assert values.key_increment(counter, 0) == 80


def cannot_key_value(bench: Bench) -> None:
    refused(bench, "key_value", lambda: bench.session.key_value())


# --- settling ------------------------------------------------------------------------------------


def can_atomic_settle(bench: Bench) -> None:
    """A stale delivery publishes nothing, and a good one is acked with what it publishes."""
    work, following = bench.queue(), bench.queue()
    bench.send(work, b"job")
    tap = bench.tap(work)
    delivery = tap.one()
    tap.cancel()
    with pytest.raises(StaleDelivery):
        bench.session.settle_then(delivery, [bench.publication(following, b"result")])
    bench.expect(following, [])
    bench.expect(work, [b"job"])
    _publishes_and_acks(bench)


def _publishes_and_acks(bench: Bench) -> None:
    work, following = bench.queue(), bench.queue()
    bench.send(work, b"job")
    tap = bench.tap(work)
    outcomes = bench.session.settle_then(
        tap.one(), [bench.publication(following, b"one"), bench.publication(following, b"two")]
    )
    assert [outcome.status for outcome in outcomes] == ["confirmed", "confirmed"]
    tap.flush()
    tap.cancel()
    bench.expect(following, [b"one", b"two"])
    bench.expect(work, [])


def can_requeue_in_place(bench: Bench) -> None:
    queue = bench.queue()
    bench.send(queue, b"1", b"2", b"3", b"4")
    tap = bench.tap(queue, prefetch=2)
    first, second = tap.take(2)
    tap.requeue(second, first)
    tap.cancel()
    if bench.strict:
        bench.expect(queue, [b"1", b"2", b"3", b"4"])
        return
    # A broker may count as the old place the head of the queue, whatever the order of the returns.
    got = [delivery.body for delivery in bench.tap(queue).take(4)]
    assert (sorted(got[:2]), got[2:]) == ([b"1", b"2"], [b"3", b"4"])


def cannot_requeue_in_place(bench: Bench) -> None:
    queue = bench.queue()
    bench.send(queue, b"1", b"2", b"3")
    tap = bench.tap(queue, prefetch=1)
    tap.requeue(tap.one())
    tap.cancel()
    bench.expect(queue, [b"1", b"2", b"3"], ordered=False)


def can_attempts(bench: Bench) -> None:
    queue = bench.queue()
    bench.send(queue, b"again")
    tap = bench.tap(queue)
    for attempt in (1, 2, 3):
        delivery = tap.one()
        assert delivery.attempts == attempt
        assert delivery.redelivered == (attempt > 1)
        tap.requeue(delivery)


def cannot_attempts(bench: Bench) -> None:
    queue = bench.queue()
    bench.send(queue, b"again")
    tap = bench.tap(queue)
    for _ in range(2):
        delivery = tap.one()
        assert delivery.attempts == 0
        tap.requeue(delivery)


# --- queues --------------------------------------------------------------------------------------


def can_message_ttl(bench: Bench) -> None:
    queue = bench.queue(message_ttl=0.1)
    plain = bench.queue()
    bench.send(queue, b"by the queue")
    bench.send(plain, b"by itself", expiration=0.1)
    bench.late(lambda: bench.idle(queue) and bench.idle(plain), bench.patience)


def cannot_message_ttl(bench: Bench) -> None:
    refused_publication(bench, "message_ttl", bench.publication("", b"", expiration=60.0))
    refused_entity(bench, "message_ttl", bench.queue(declare=False, message_ttl=60.0))


def can_queue_expiry(bench: Bench) -> None:
    queue = bench.queue(expires=0.5)
    assert bench.exists(queue)
    watcher = bench.open()
    bench.late(lambda: bench.unroutable(queue), 0.5 + bench.patience)
    watcher.close()


def cannot_queue_expiry(bench: Bench) -> None:
    refused_entity(bench, "queue_expiry", bench.queue(declare=False, expires=60.0))


def can_max_length(bench: Bench) -> None:
    dropping = bench.queue(max_length=2)
    bench.send(dropping, b"1", b"2", b"3")
    bench.expect(dropping, [b"2", b"3"])
    refusing = bench.queue(max_length=1, overflow="reject-publish")
    bench.expect(refusing, bench.fill(refusing, 1))


def cannot_max_length(bench: Bench) -> None:
    refused_entity(bench, "max_length", bench.queue(declare=False, max_length=2))


def can_dead_letter(bench: Bench) -> None:
    dead = bench.exchange("fanout")
    grave = bench.queue((dead, ""))
    queue = bench.queue(dead_letter_exchange=dead)
    bench.send(queue, b"bad")
    tap = bench.tap(queue)
    tap.reject(tap.one())
    bench.expect(grave, [b"bad"])


def cannot_dead_letter(bench: Bench) -> None:
    queue = bench.queue(declare=False, dead_letter_exchange=bench.exchange("fanout"))
    refused_entity(bench, "dead_letter", queue)


def can_max_deliveries(bench: Bench) -> None:
    queue = bench.queue(max_deliveries=2)
    bench.send(queue, b"poison")
    tap = bench.tap(queue)
    for _ in range(2):
        tap.requeue(tap.one())
    tap.none()
    tap.cancel()
    bench.expect(queue, [])


def cannot_max_deliveries(bench: Bench) -> None:
    refused_entity(bench, "max_deliveries", bench.queue(declare=False, max_deliveries=2))


def can_exclusive(bench: Bench) -> None:
    owner = bench.open()
    queue = bench.queue(session=owner, exclusive=True)
    bench.send(queue, b"mine")
    assert bench.tap(queue, session=owner).one().body == b"mine"
    owner.close()
    bench.late(lambda: not bench.exists(Queue(queue.name)), bench.patience)


def cannot_exclusive(bench: Bench) -> None:
    refused_entity(bench, "exclusive", bench.queue(declare=False, exclusive=True))


def can_auto_delete(bench: Bench) -> None:
    queue = bench.queue(auto_delete=True)
    assert bench.exists(queue)
    bench.tap(queue).cancel()
    bench.late(lambda: not bench.exists(queue), bench.patience)


def cannot_auto_delete(bench: Bench) -> None:
    refused_entity(
        bench,
        "auto_delete",
        bench.queue(declare=False, auto_delete=True),
        bench.exchange(declare=False, auto_delete=True),
    )


def can_exchange_bindings(bench: Bench) -> None:
    source, middle = bench.exchange("topic"), bench.exchange("fanout")
    queue = bench.queue((middle, ""))
    bench.bind(source, middle, "a.*")
    bench.send(source, b"through", key="a.b")
    bench.expect(queue, [b"through"])


def cannot_exchange_bindings(bench: Bench) -> None:
    source, middle = bench.exchange("topic"), bench.exchange("fanout")
    binding = Binding(source.name, middle.name, "#", "exchange")
    refused_entity(bench, "exchange_bindings", binding)


def can_arguments(bench: Bench) -> None:
    queue = bench.queue(arguments=bench.suite.arguments, durable=False)
    assert bench.declare(queue) == queue
    with pytest.raises(TopologyMismatch):
        bench.session.declare(Queue(queue.name, durable=False, arguments={"x-max-length": 77}))


def cannot_arguments(bench: Bench) -> None:
    refused_entity(
        bench,
        "arguments",
        bench.queue(declare=False, arguments=bench.suite.arguments),
        Exchange(bench.name("direct"), arguments={"alternate-exchange": "other"}),
    )


CAN: dict[str, Check] = {
    "durable": can_durable,
    "shared": one_broker_for_all_sessions,
    "priority": can_priority,
    "delay": can_delay,
    "transactions": can_transactions,
    "key_value": can_key_value,
    "deduplicate": can_deduplicate,
    "atomic_settle": can_atomic_settle,
    "requeue_in_place": can_requeue_in_place,
    "message_ttl": can_message_ttl,
    "queue_expiry": can_queue_expiry,
    "max_length": can_max_length,
    "dead_letter": can_dead_letter,
    "max_deliveries": can_max_deliveries,
    "exclusive": can_exclusive,
    "auto_delete": can_auto_delete,
    "exchange_bindings": can_exchange_bindings,
    "attempts": can_attempts,
    "arguments": can_arguments,
}
CANNOT: dict[str, Check] = {
    "durable": cannot_durable,
    "shared": one_broker_for_all_sessions,
    "priority": cannot_priority,
    "delay": cannot_delay,
    "transactions": cannot_transactions,
    "key_value": cannot_key_value,
    "deduplicate": cannot_deduplicate,
    "atomic_settle": _publishes_and_acks,
    "requeue_in_place": cannot_requeue_in_place,
    "message_ttl": cannot_message_ttl,
    "queue_expiry": cannot_queue_expiry,
    "max_length": cannot_max_length,
    "dead_letter": cannot_dead_letter,
    "max_deliveries": cannot_max_deliveries,
    "exclusive": cannot_exclusive,
    "auto_delete": cannot_auto_delete,
    "exchange_bindings": cannot_exchange_bindings,
    "attempts": cannot_attempts,
    "arguments": cannot_arguments,
}
FEATURES = list(Features.__struct_fields__)


class FeatureTests(SessionTests):
    """One test for each feature, in the direction that the transport declares."""

    @pytest.mark.parametrize("feature", FEATURES)
    def test_a_feature_works_or_is_refused_as_declared(self, bench: Bench, feature: str) -> None:
        (CAN if getattr(bench.features, feature) else CANNOT)[feature](bench)

    def test_every_feature_says_what_it_means(self, bench: Bench) -> None:
        described = bench.features.describe()
        assert set(described) == set(FEATURES) == set(CAN) == set(CANNOT)
        assert all(meaning for _, meaning in described.values())


def needs(*features: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a test of `SessionSuite` that needs features.

    Where one is missing, the test is the check of its refusal instead.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(self: SessionTests, bench: Bench) -> None:
            missing = [name for name in features if not getattr(bench.features, name)]
            if missing:
                CANNOT[missing[0]](bench)
            else:
                test(self, bench)

        return run

    return decorate


__all__ = ["CAN", "CANNOT", "FeatureTests", "needs", "refused"]
