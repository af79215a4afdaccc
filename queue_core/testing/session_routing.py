"""`SessionSuite`, part 1: where a published message goes, and what its publisher is told."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

from typing import Any

import pytest

from queue_core.errors import QueueNotFound
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.testing.session_features import needs
from queue_core.testing.session_tap import properties_of
from queue_core.topology import Binding, Exchange, Queue

TOPIC_CASES: dict[str, tuple[list[str], list[str]]] = {
    # pattern: (keys that match, keys that do not)
    "#": (["", "a", "a.b", ".", "a..b", "*", "#"], []),
    "*": (["a", "*", "#", "A b"], ["", "a.b", ".", "a."]),
    "*.*": (["a.b", ".", "a.", ".a"], ["", "a", "a.b.c"]),
    "a.#": (["a", "a.b", "a.b.c", "a."], ["", "ab", "b.a", "A"]),
    "#.a": (["a", "b.a", "c.b.a", ".a"], ["", "ba", "a.b"]),
    "a.*.c": (["a.b.c", "a..c"], ["a.c", "a.b.b.c", "a.b.c.d"]),
    "a.#.c": (["a.c", "a.b.c", "a.b.b.c", "a..c"], ["a", "c", "a.b", "ac"]),
    "#.b.#": (["b", "a.b", "b.c", "a.b.c", "b.b"], ["", "a", "ab.c"]),
    "#.#": (["", "a", "a.b.c"], []),
    "*.#": (["a", "a.b", "."], [""]),
    "#.*": (["a", "a.b", "."], [""]),
    "*.#.*": (["a.b", "a.b.c", "."], ["", "a"]),
    "a*": (["a*"], ["a", "ab", "a.b"]),
    "a#.b": (["a#.b"], ["a.b", "a.x.b", "ab"]),
    "order.new": (["order.new"], ["order", "order.new.eu", "order-new", "orderxnew"]),
    "": ([""], ["a", "."]),
    "a.*.#.b": (["a.x.b", "a.x.y.b"], ["a.b", "a"]),
}

HEADER_CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    # what it shows, binding arguments, message headers, whether it matches
    ("all of one", {"x-match": "all", "a": 1}, {"a": 1}, True),
    ("all is the default", {"a": 1, "b": 2}, {"a": 1}, False),
    ("all needs each", {"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
    ("all, another value", {"x-match": "all", "a": 1}, {"a": 2}, False),
    ("all of nothing", {"x-match": "all"}, {"a": 1}, True),
    ("all of nothing, no headers", {"x-match": "all"}, {}, True),
    ("any of two", {"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
    ("any, none there", {"x-match": "any", "a": 1, "b": 2}, {"a": 2, "c": 1}, False),
    ("any of nothing", {"x-match": "any"}, {"a": 1}, False),
    ("a text is not a number", {"x-match": "all", "a": "1"}, {"a": 1}, False),
    ("texts are compared whole", {"x-match": "all", "a": "xy"}, {"a": "xyz"}, False),
    ("truth", {"x-match": "all", "a": True}, {"a": True}, True),
    ("truth is not one", {"x-match": "all", "a": True}, {"a": 1}, False),
    ("None asks for presence", {"x-match": "all", "a": None}, {"a": "whatever"}, True),
    ("presence, but absent", {"x-match": "all", "a": None}, {"b": 1}, False),
    ("x- does not count", {"x-match": "any", "x-other": 1}, {"x-other": 1}, False),
    ("all but x-", {"x-match": "all", "x-other": 1, "a": 1}, {"a": 1}, True),
    ("no headers at all", {"x-match": "any", "a": 1}, {}, False),
]

HOSTILE_NAMES = [
    "with space",
    "quote'\"`;--",
    "'; DROP TABLE messages; --",
    "percent %s %(x)s %d $1 :name",
    "slash/../..\\back",
    "colon:comma,pipe|hash#at@",
    "ünïcödé-日本-🐇",
    "x" * 200,
    "None",
    "0",
    "-rf",
    "<script>&amp;",
]


class RoutingTests(SessionTests):
    """Exchanges, bindings, outcomes, order."""

    def test_the_default_exchange_leads_to_the_queue_of_that_name(self, bench: Bench) -> None:
        wanted, other = bench.queue(), bench.queue()
        bench.send(wanted, b"here")
        bench.expect_each({wanted.name: [b"here"], other.name: []})

    def test_a_direct_exchange_compares_whole_keys(self, bench: Bench) -> None:
        direct = bench.exchange("direct")
        one, two = bench.queue((direct, "a")), bench.queue((direct, "a"), (direct, "b"))
        star = bench.queue((direct, "*"), (direct, ""))
        for key in ("a", "b", "", "*"):
            bench.send(direct, key.encode(), key=key)
        assert bench.publish(bench.publication(direct, b"", "A"))[0].status == "unroutable"
        bench.expect_each({one.name: [b"a"], two.name: [b"a", b"b"], star.name: [b"", b"*"]})

    def test_a_queue_bound_twice_gets_one_copy(self, bench: Bench) -> None:
        direct, topic = bench.exchange("direct"), bench.exchange("topic")
        queue = bench.queue((direct, "k"), (topic, "#"), (topic, "a.*"), (topic, "*.b"))
        bench.declare(Binding(direct.name, queue.name, "k"))
        bench.send(direct, b"direct", key="k")
        bench.send(topic, b"topic", key="a.b")
        bench.expect(queue, [b"direct", b"topic"])

    def test_a_fanout_exchange_ignores_keys(self, bench: Bench) -> None:
        fanout = bench.exchange("fanout")
        queues = [bench.queue((fanout, key)) for key in ("", "a", "never")]
        bench.send(fanout, b"all", key="whatever.key")
        bench.expect_each({queue.name: [b"all"] for queue in queues})

    def test_a_topic_exchange_matches_words(self, bench: Bench) -> None:
        topic = bench.exchange("topic")
        queues = {pattern: bench.queue((topic, pattern)) for pattern in TOPIC_CASES}
        keys = sorted({key for cases in TOPIC_CASES.values() for key in (*cases[0], *cases[1])})
        for key in keys:
            bench.send(topic, key.encode(), key=key)
        tap = bench.tap(*queues.values(), prefetch=1000)
        deliveries = []
        while more := tap.take(1000, within=max(1.0, bench.suite.quiet), exactly=False):
            deliveries += more
        wrong = []
        for pattern, (matching, others) in TOPIC_CASES.items():
            got = {d.routing_key for d in deliveries if d.queue == queues[pattern].name}
            wrong += [f"{pattern!r} does not match {key!r}" for key in matching if key not in got]
            wrong += [f"{pattern!r} matches {key!r}" for key in others if key in got]
        assert not wrong

    def test_a_headers_exchange_compares_headers(self, bench: Bench) -> None:
        wrong = []
        for what, arguments, headers, matches in HEADER_CASES:
            exchange = bench.exchange("headers")
            queue = bench.queue()
            bench.declare(Binding(exchange.name, queue.name, arguments=arguments))
            status = bench.publish(bench.publication(exchange, b"", "k", headers=headers))[0].status
            if status != ("confirmed" if matches else "unroutable"):
                wrong.append(f"{what}: {arguments} and {headers}: {status}")
        assert not wrong

    def test_a_headers_exchange_ignores_the_key(self, bench: Bench) -> None:
        exchange = bench.exchange("headers")
        queue = bench.queue()
        bench.declare(Binding(exchange.name, queue.name, "ignored", arguments={"a": "b"}))
        bench.send(exchange, b"", key="other", headers={"a": "b"})
        bench.holds(queue, 1)

    def test_a_delivery_tells_where_it_was_published(self, bench: Bench) -> None:
        topic = bench.exchange("topic")
        queue = bench.queue((topic, "#"))
        bench.send(topic, b"x", key="a.b")
        bench.send(queue, b"y")
        tap = bench.tap(queue)
        first, second = tap.take(2)
        assert (first.exchange, first.routing_key) == (topic.name, "a.b")
        assert (second.exchange, second.routing_key) == ("", queue.name)
        assert first.queue == second.queue == queue.name
        assert first.consumer == tap.consumer

    # exchange to exchange

    @needs("exchange_bindings")
    def test_a_message_passes_from_exchange_to_exchange(self, bench: Bench) -> None:
        entry, middle, last = bench.exchange("fanout"), bench.exchange("topic"), bench.exchange()
        near, far = bench.queue((middle, "a.#")), bench.queue((last, "a.b"))
        bench.bind(entry, middle)
        bench.bind(middle, last, "*.b")
        bench.send(entry, b"both", key="a.b")
        bench.send(entry, b"near", key="a.c")
        bench.expect_each({near.name: [b"both", b"near"], far.name: [b"both"]})

    @needs("exchange_bindings")
    def test_two_paths_to_a_queue_give_one_copy(self, bench: Bench) -> None:
        entry, left, right = (bench.exchange("fanout") for _ in range(3))
        queue = bench.queue((left, ""), (right, ""))
        bench.bind(entry, left)
        bench.bind(entry, right)
        bench.send(entry, b"once")
        bench.expect(queue, [b"once"])

    @needs("exchange_bindings")
    def test_a_cycle_of_exchanges_ends(self, bench: Bench) -> None:
        one, two, three = (bench.exchange("fanout") for _ in range(3))
        for source, target in ((one, two), (two, three), (three, one), (two, two)):
            bench.bind(source, target)
        queue = bench.queue((three, ""))
        bench.send(one, b"once")
        bench.expect(queue, [b"once"])

    @needs("exchange_bindings")
    def test_a_path_that_ends_without_a_queue_is_unroutable(self, bench: Bench) -> None:
        entry, end = bench.exchange("fanout"), bench.exchange("fanout")
        bench.bind(entry, end)
        assert bench.publish(bench.publication(entry, b""))[0].status == "unroutable"

    @needs("exchange_bindings")
    def test_an_unbound_exchange_passes_nothing_on(self, bench: Bench) -> None:
        entry, end = bench.exchange("fanout"), bench.exchange("fanout")
        queue = bench.queue((end, ""))
        binding = bench.bind(entry, end, "k")
        bench.send(entry, b"1")
        assert bench.session.delete(binding)
        assert bench.publish(bench.publication(entry, b"2"))[0].status == "unroutable"
        bench.expect(queue, [b"1"])

    # outcomes

    def test_nobody_wants_a_mandatory_message(self, bench: Bench) -> None:
        empty = bench.exchange("fanout")
        outcomes = bench.publish(
            bench.publication(empty, b"1"),
            bench.publication(bench.name("no-such-queue"), b"2"),
            bench.publication(bench.exchange("topic"), b"3", "a"),
        )
        assert [outcome.status for outcome in outcomes] == ["unroutable"] * 3

    def test_nobody_wants_a_message_and_nobody_minds(self, bench: Bench) -> None:
        outcomes = bench.publish(
            bench.publication(bench.exchange("fanout"), b"1", mandatory=False),
            bench.publication(bench.name("no-such-queue"), b"2", mandatory=False),
        )
        assert [outcome.status for outcome in outcomes] == ["confirmed"] * 2

    def test_outcomes_come_in_the_order_of_the_batch(self, bench: Bench) -> None:
        queue, empty = bench.queue(), bench.exchange("fanout")
        batch = [
            bench.publication(queue if index % 3 else empty, b"%d" % index) for index in range(50)
        ]
        statuses = [outcome.status for outcome in bench.publish(*batch)]
        assert statuses == ["confirmed" if index % 3 else "unroutable" for index in range(50)]
        bench.expect(queue, [b"%d" % index for index in range(50) if index % 3])

    def test_an_empty_batch_is_no_work(self, bench: Bench) -> None:
        assert list(bench.publish()) == []

    def test_order_is_kept_over_many_publishes(self, bench: Bench) -> None:
        queue = bench.queue()
        bodies = [b"%d" % number for number in range(300)]
        bench.send(queue, *bodies[:200])
        for body in bodies[200:210]:
            bench.send(queue, body)
        bench.send(queue, *bodies[210:])
        assert [delivery.body for delivery in bench.tap(queue, prefetch=1000).take(300)] == bodies

    def test_a_missing_exchange_is_an_error(self, bench: Bench) -> None:
        missing = Exchange(bench.name("missing"))
        with pytest.raises(QueueNotFound, match=missing.name):
            bench.publish(bench.publication(missing, b"", "k"))
        queue = bench.queue()
        bench.send(queue, b"the session still works")
        bench.expect(queue, [b"the session still works"])

    @needs("max_length")
    def test_a_full_queue_refuses_and_takes_again_when_there_is_room(self, bench: Bench) -> None:
        queue = bench.queue(max_length=2, overflow="reject-publish")
        stored = bench.fill(queue, 2)
        tap = bench.tap(queue, prefetch=len(stored))
        tap.ack(*tap.take(len(stored)))
        tap.cancel()
        bench.send(queue, b"room")
        bench.expect(queue, [b"room"])

    @needs("max_length")
    def test_each_publication_of_a_batch_is_refused_on_its_own(self, bench: Bench) -> None:
        queue = bench.queue(max_length=2, overflow="reject-publish")
        batch = [bench.publication(queue, b"%d" % number) for number in range(20)]
        statuses = [outcome.status for outcome in bench.publish(*batch)]
        assert set(statuses) <= {"confirmed", "refused"}
        if bench.strict:  # a broker may look at the length later than it takes the batch
            assert statuses == ["confirmed"] * 2 + ["refused"] * 18
        stored = [b"%d" % number for number in range(20) if statuses[number] == "confirmed"]
        bench.expect(queue, stored)

    @needs("max_length")
    def test_one_full_queue_refuses_a_fanout(self, bench: Bench) -> None:
        """With `Features.atomic_settle` no queue has it; a broker may have stored others."""
        fanout = bench.exchange("fanout")
        full = bench.queue((fanout, ""), max_length=1, overflow="reject-publish")
        free = bench.queue((fanout, ""))
        stored = bench.fill(full, 1)
        outcome = bench.publish(bench.publication(fanout, b"copy"))[0]
        assert outcome.status == "refused"
        if bench.features.atomic_settle:
            assert full.name in outcome.detail
            bench.expect(free, [])
        bench.expect(full, stored)

    @needs("deduplicate")
    def test_a_repeated_id_is_stored_once_in_each_queue(self, bench: Bench) -> None:
        fanout = bench.exchange("fanout")
        one, two = bench.queue((fanout, "")), bench.queue((fanout, ""))
        copy = bench.publication(fanout, b"x")
        for _ in range(3):
            assert bench.publish(copy)[0].status == "confirmed"
        assert bench.publish(copy, copy)[1].status == "confirmed"
        bench.expect_each({one.name: [b"x"], two.name: [b"x"]})

    @needs("deduplicate")
    def test_the_message_id_of_the_user_is_not_the_key(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2", message_id="the user's own")
        bench.expect(queue, [b"1", b"2"])

    # changes seen by others

    def test_a_binding_made_elsewhere_counts_for_the_next_publish(self, bench: Bench) -> None:
        fanout = bench.exchange("fanout")
        one = bench.queue((fanout, ""))
        publisher, other = bench.open(), bench.open()
        bench.send(fanout, b"1", session=publisher)
        two = bench.queue()
        binding = Binding(fanout.name, two.name)
        other.declare(binding)
        bench.send(fanout, b"2", session=publisher)
        other.delete(binding)
        bench.send(fanout, b"3", session=publisher)
        bench.expect_each({one.name: [b"1", b"2", b"3"], two.name: [b"2"]})

    def test_a_deleted_queue_takes_its_bindings_along(self, bench: Bench) -> None:
        direct = bench.exchange("direct")
        queue = bench.queue((direct, "k"))
        other = bench.open()
        bench.send(direct, b"1", key="k", session=other)
        assert bench.session.delete(queue)
        again = bench.publication(direct, b"2", "k")
        assert bench.publish(again, session=other)[0].status == "unroutable"
        bench.declare(Queue(queue.name))
        assert bench.publish(again, session=other)[0].status == "unroutable"
        bench.expect(queue, [])

    def test_a_deleted_exchange_takes_its_bindings_along(self, bench: Bench) -> None:
        direct = bench.exchange("direct")
        queue = bench.queue((direct, "k"))
        bench.session.delete(direct)
        with pytest.raises(QueueNotFound, match=direct.name):
            bench.publish(bench.publication(direct, b"", "k"))
        bench.declare(direct)
        assert bench.publish(bench.publication(direct, b"", "k"))[0].status == "unroutable"
        bench.expect(queue, [])

    def test_unbinding_ends_one_path_only(self, bench: Bench) -> None:
        topic = bench.exchange("topic")
        queue = bench.queue((topic, "a.*"), (topic, "*.b"))
        assert bench.session.delete(Binding(topic.name, queue.name, "a.*"))
        assert bench.publish(bench.publication(topic, b"", "a.c"))[0].status == "unroutable"
        bench.send(topic, b"still", key="a.b")
        bench.expect(queue, [b"still"])

    # names

    def test_hostile_names_are_only_names(self, bench: Bench) -> None:
        for text in HOSTILE_NAMES:
            direct = bench.exchange("direct", name=bench.name(text))
            queue = bench.queue((direct, text), name=bench.name(text))
            neighbour = bench.queue((direct, text + "x"), name=queue.name + "x")
            bench.send(direct, text.encode(), key=text, headers={text: text})
            tap = bench.tap(queue, name=bench.name(text))
            delivery = tap.one()
            assert (delivery.queue, delivery.routing_key) == (queue.name, text)
            assert delivery.exchange == direct.name
            assert properties_of(delivery).headers == {text: text}
            tap.ack(delivery)
            tap.cancel()
            assert bench.session.inspect(neighbour.name).ready == 0
            assert bench.session.purge(queue.name) == 0
            assert bench.session.delete(Binding(direct.name, queue.name, text))
            assert bench.session.delete(queue)

    def test_names_may_be_as_long_as_the_rule_allows(self, bench: Bench) -> None:
        long = bench.name("").rjust(255, "q")
        direct = bench.exchange("direct", name=long.replace("q", "e"))
        queue = bench.queue((direct, "k" * 255), name=long)
        bench.send(direct, b"x", key="k" * 255)
        bench.expect(queue, [b"x"])
