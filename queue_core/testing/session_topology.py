"""`SessionSuite`, part 2: declaring, looking, deleting."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

from typing import Any

import pytest

from queue_core.errors import AccessRefused, QueueNotFound, TopologyMismatch
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.testing.session_features import CANNOT, needs
from queue_core.topology import Binding, Exchange, Queue

DIFFERENCES: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    # field: (feature, a value, another value, what else the queue needs)
    "message_ttl": ("message_ttl", 60.0, 61.0, {}),
    "expires": ("queue_expiry", 60.0, 61.0, {}),
    "max_length": ("max_length", 7, 0, {}),
    "overflow": ("max_length", "reject-publish", None, {"max_length": 5}),
    "max_priority": ("priority", 5, 6, {}),
    "max_deliveries": ("max_deliveries", 3, 4, {}),
    "dead_letter_exchange": ("dead_letter", "", "", {}),
    "dead_letter_routing_key": ("dead_letter", "a", "b", {"dead_letter_exchange": ""}),
    "auto_delete": ("auto_delete", True, None, {}),
    "exclusive": ("exclusive", True, None, {"durable": False}),
}


class TopologyTests(SessionTests):
    """What exists, and who refuses what."""

    def test_declare_returns_the_name(self, bench: Bench) -> None:
        exchange, queue = Exchange(bench.name("exchange")), Queue(bench.name("queue"))
        assert bench.session.declare(exchange) == exchange.name
        assert bench.session.declare(queue) == queue.name

    def test_declaring_again_changes_nothing(self, bench: Bench) -> None:
        exchange = bench.exchange("topic")
        queue = bench.queue((exchange, "#"))
        bench.send(queue, b"kept")
        for session in (bench.session, bench.open()):
            session.declare(exchange)
            session.declare(queue)
            session.declare(Binding(exchange.name, queue.name, "#"))
        bench.send(exchange, b"once")
        bench.expect(queue, [b"kept", b"once"])

    def test_declaring_with_a_new_binding_adds_it(self, bench: Bench) -> None:
        direct = bench.exchange("direct")
        queue = bench.queue((direct, "a"))
        bench.declare(Queue(queue.name, exchange=direct, routing_key="b"))
        bench.send(direct, b"a", key="a")
        bench.send(direct, b"b", key="b")
        bench.expect(queue, [b"a", b"b"])

    @needs("max_length")
    def test_a_queue_declared_differently_names_both_sides(self, bench: Bench) -> None:
        queue = bench.queue(max_length=7)
        for session in (bench.session, bench.open()):
            with pytest.raises(TopologyMismatch, match=queue.name) as caught:
                session.declare(Queue(queue.name, max_length=8))
            assert "7" in str(caught.value).replace(queue.name, "")
            assert "8" in str(caught.value).replace(queue.name, "")
        bench.session.declare(queue)

    @pytest.mark.parametrize("field", sorted(DIFFERENCES))
    def test_every_argument_of_a_queue_counts_as_a_difference(
        self, bench: Bench, field: str
    ) -> None:
        feature, one, other, more = DIFFERENCES[field]
        if not getattr(bench.features, feature):
            CANNOT[feature](bench)
            return
        if "dead_letter_exchange" in field:
            one, other = bench.exchange("fanout").name, bench.exchange("fanout").name
        queue = bench.queue(**more, **{field: one})
        bench.session.declare(Queue(queue.name, **more, **{field: one}))
        for value in (other, None) if other is not None else (None,):
            different = {} if value is None else {field: value}
            # AMQP cannot tell a queue that is exclusive to somebody else from one that should be.
            errors = (TopologyMismatch, AccessRefused) if field == "exclusive" else TopologyMismatch
            with pytest.raises(errors, match=queue.name):
                bench.session.declare(Queue(queue.name, **more, **different))
        bench.session.declare(queue, passive=True)

    def test_an_exchange_declared_differently_names_both_sides(self, bench: Bench) -> None:
        exchange = bench.exchange("topic", name=bench.name("x"))
        with pytest.raises(TopologyMismatch, match=exchange.name) as caught:
            bench.session.declare(Exchange(exchange.name, "fanout"))
        assert "topic" in str(caught.value)
        assert "fanout" in str(caught.value)
        assert bench.exists(exchange)

    def test_durability_counts_as_a_difference(self, bench: Bench) -> None:
        exchange = bench.exchange("direct", durable=True)
        with pytest.raises(TopologyMismatch, match=exchange.name):
            bench.session.declare(Exchange(exchange.name, durable=False))
        queue = bench.queue(durable=False)
        with pytest.raises(TopologyMismatch, match=queue.name):
            bench.session.declare(Queue(queue.name, durable=True))

    def test_a_passive_declare_only_looks(self, bench: Bench) -> None:
        exchange, queue = bench.exchange("fanout"), bench.queue()
        assert bench.session.declare(queue, passive=True) == queue.name
        assert bench.session.declare(exchange, passive=True) == exchange.name
        for missing in (Queue(bench.name("queue")), Exchange(bench.name("exchange"))):
            with pytest.raises(QueueNotFound, match=missing.name):
                bench.session.declare(missing, passive=True)
            with pytest.raises(QueueNotFound, match=missing.name):
                bench.session.declare(missing, passive=True)

    def test_a_queue_without_a_name_gets_a_fresh_one(self, bench: Bench) -> None:
        fanout = bench.exchange("fanout")
        names = [bench.session.declare(Queue(exchange=fanout, durable=False)) for _ in range(3)]
        assert len(set(names)) == 3
        assert all(names)
        bench.send(fanout, b"copy")
        bench.expect_each({name: [b"copy"] for name in names})
        for name in names:
            assert bench.session.delete(Queue(name))

    def test_a_queue_brings_the_exchange_object_that_it_names(self, bench: Bench) -> None:
        exchange = bench.exchange("topic", declare=False)
        queue = bench.queue(declare=False, exchange=exchange, routing_key="a.#")
        bench.declare(queue)
        bench.send(exchange, b"x", key="a.b")
        bench.expect(queue, [b"x"])

    @needs("dead_letter")
    def test_a_queue_brings_its_dead_letter_exchange_object(self, bench: Bench) -> None:
        dead = bench.exchange("fanout", declare=False)
        bench.queue(dead_letter_exchange=dead)
        assert bench.exists(dead)

    def test_an_exchange_that_is_only_named_must_exist(self, bench: Bench) -> None:
        name = bench.name("missing")
        with pytest.raises(QueueNotFound, match=name):
            bench.session.declare(bench.queue(declare=False, exchange=name))
        with pytest.raises(QueueNotFound, match=name):
            bench.session.declare(Binding(name, bench.queue().name))

    @needs("dead_letter")
    def test_a_missing_dead_letter_exchange_is_refused(self, bench: Bench) -> None:
        name = bench.name("missing")
        queue = bench.queue(declare=False, dead_letter_exchange=name)
        with pytest.raises(QueueNotFound, match=name):
            bench.session.declare(queue)
        assert not bench.exists(queue)

    def test_a_binding_needs_its_target(self, bench: Bench) -> None:
        exchange = bench.exchange("fanout")
        name = bench.name("missing")
        with pytest.raises(QueueNotFound, match=name):
            bench.session.declare(Binding(exchange.name, name))
        assert bench.publish(bench.publication(exchange, b""))[0].status == "unroutable"

    @needs("exchange_bindings")
    def test_a_binding_needs_its_target_exchange(self, bench: Bench) -> None:
        exchange = bench.exchange("fanout")
        name = bench.name("missing")
        with pytest.raises(QueueNotFound, match=name):
            bench.session.declare(Binding(exchange.name, name, destination_type="exchange"))

    def test_what_one_session_declares_others_use(self, bench: Bench) -> None:
        maker, user = bench.open(), bench.open()
        exchange = bench.exchange("direct", declare=False)
        bench.declare(exchange, session=maker)
        queue = bench.queue((exchange, "k"), session=maker)
        bench.send(exchange, b"x", key="k", session=user)
        assert bench.tap(queue, session=user).one().body == b"x"

    # deleting

    def test_delete_says_whether_it_existed(self, bench: Bench) -> None:
        exchange, queue = bench.exchange("fanout"), bench.queue()
        binding = bench.bind(exchange, queue)
        assert bench.session.delete(binding) is True
        if bench.strict:  # AMQP's unbind does not tell
            assert bench.session.delete(binding) is False
        for entity in (queue, exchange):
            assert bench.session.delete(entity) is True
            assert bench.session.delete(entity) is False

    def test_delete_takes_the_messages_along(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2")
        tap = bench.tap(queue, prefetch=1)
        tap.one()
        assert bench.session.delete(queue)
        bench.declare(queue)
        bench.expect(queue, [])

    def test_a_queue_in_use_is_not_deleted_if_unused(self, bench: Bench) -> None:
        queue = bench.queue()
        tap = bench.tap(queue, session=bench.open())
        with pytest.raises(TopologyMismatch, match=queue.name):
            bench.session.delete(queue, if_unused=True)
        assert bench.exists(queue)
        tap.cancel()
        bench.soon(lambda: bench.session.inspect(queue.name).consumers in (0, None))
        assert bench.session.delete(queue, if_unused=True)

    def test_a_queue_with_messages_is_not_deleted_if_empty(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"kept")
        with pytest.raises(TopologyMismatch, match=queue.name):
            bench.session.delete(queue, if_empty=True)
        bench.expect(queue, [b"kept"])
        assert bench.session.delete(queue, if_empty=True)

    def test_an_exchange_with_bindings_is_not_deleted_if_unused(self, bench: Bench) -> None:
        exchange = bench.exchange("fanout")
        binding = bench.bind(exchange, bench.queue())
        with pytest.raises(TopologyMismatch, match=exchange.name):
            bench.session.delete(exchange, if_unused=True)
        bench.session.delete(binding)
        assert bench.session.delete(exchange, if_unused=True)

    @needs("auto_delete")
    def test_an_auto_delete_exchange_goes_with_its_last_binding(self, bench: Bench) -> None:
        exchange = bench.exchange("fanout", auto_delete=True)
        one, two = bench.queue(), bench.queue()
        binding = bench.bind(exchange, one)
        bench.bind(exchange, two)
        bench.session.delete(binding)
        assert bench.exists(exchange)
        bench.session.delete(two)
        bench.soon(lambda: not bench.exists(exchange))

    # looking

    def test_inspect_counts_messages_and_consumers(self, bench: Bench) -> None:
        queue = bench.queue()
        assert bench.session.inspect(queue.name).ready == 0
        bench.send(queue, b"1", b"2", b"3")
        bench.holds(queue, 3)
        tap = bench.tap(queue, prefetch=1)
        delivery = tap.one()
        bench.holds(queue, 2)
        info = bench.session.inspect(queue.name)
        assert info.name == queue.name
        assert info.unacked in (1, None)
        assert info.consumers in (1, None)
        tap.ack(delivery)
        tap.cancel()
        bench.holds(queue, 2)
        assert bench.session.inspect(queue.name).consumers in (0, None)

    @needs("delay")
    def test_inspect_counts_delayed_messages_apart(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"later", delay=60.0)
        info = bench.session.inspect(queue.name)
        assert info.ready == 0
        assert info.delayed in (1, None)

    def test_inspect_and_purge_of_a_missing_queue(self, bench: Bench) -> None:
        name = bench.name("missing")
        with pytest.raises(QueueNotFound, match=name):
            bench.session.inspect(name)
        with pytest.raises(QueueNotFound, match=name):
            bench.session.purge(name)

    def test_purge_spares_what_is_with_consumers(self, bench: Bench) -> None:
        queue, other = bench.queue(), bench.queue()
        bench.send(queue, b"1", b"2", b"3")
        bench.send(other, b"other")
        tap = bench.tap(queue, prefetch=1)
        delivery = tap.one()
        bench.holds(queue, 2)
        assert bench.session.purge(queue.name) == 2
        assert bench.session.purge(queue.name) == 0
        tap.none()
        tap.requeue(delivery)
        tap.cancel()
        bench.expect(queue, [b"1"])
        bench.expect(other, [b"other"])
