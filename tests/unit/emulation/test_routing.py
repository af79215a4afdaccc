"""Routing: topic patterns against a simple reference, headers, exchanges bound to exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.emulation.entries import BindingEntry, ExchangeEntry, QueueEntry, q, x
from queue_core.emulation.routing import (
    Known,
    Route,
    compile_matcher,
    headers_match,
    route,
    topic_words,
)
from queue_core.topology import ExchangeType


def matches(pattern: list[str], key: list[str]) -> bool:
    """The rule as the AMQP text has it, slow and plain."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(matches(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and matches(pattern[1:], key[1:])


def exchange(kind: ExchangeType, *bindings: BindingEntry) -> ExchangeEntry:
    return ExchangeEntry(kind, bindings=bindings)


def targets(entry: ExchangeEntry, key: str, headers: Mapping[str, Any] = {}) -> set[str]:
    return set(compile_matcher(entry).match(key, headers))


WORDS = st.sampled_from(["a", "b", "", "*", "#"])
PATTERNS = st.lists(st.lists(WORDS, max_size=5).map(".".join), max_size=8)
KEYS = st.lists(st.sampled_from(["a", "b", "c", "", "*", "#"]), max_size=6).map(".".join)


@given(PATTERNS, KEYS)
def test_topic_finds_exactly_the_patterns_that_the_plain_rule_finds(
    patterns: list[str], key: str
) -> None:
    entry = exchange(
        "topic", *(BindingEntry(f"q{i}", routing_key=p) for i, p in enumerate(patterns))
    )
    expected = {
        q(f"q{i}")
        for i, pattern in enumerate(patterns)
        if matches(topic_words(pattern), topic_words(key))
    }
    assert targets(entry, key) == expected


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("#", "", True),
        ("*", "", False),
        ("", "", True),
        ("a.#", "a", True),
        ("a.*", "a", False),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("#.a.#", "b.a.c", True),
        ("*.#", "a", True),
        ("#.*", "", False),
        ("a*", "ab", False),
        ("a*", "a*", True),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
        ("*", "#", True),
    ],
)
def test_topic_examples(pattern: str, key: str, expected: bool) -> None:
    found = targets(exchange("topic", BindingEntry("t", routing_key=pattern)), key)
    assert bool(found) is expected


def test_a_topic_with_many_hashes_takes_no_exponential_time() -> None:
    pattern = ".".join(["#", "a"] * 30) + ".z"
    key = ".".join(["a"] * 120)
    assert targets(exchange("topic", BindingEntry("t", routing_key=pattern)), key) == set()


def test_direct_compares_whole_keys() -> None:
    entry = exchange(
        "direct", BindingEntry("one", routing_key="k"), BindingEntry("two", routing_key="k.l")
    )
    assert targets(entry, "k") == {q("one")}
    assert targets(entry, "") == set()


def test_fanout_ignores_the_key() -> None:
    entry = exchange("fanout", BindingEntry("one", routing_key="k"), BindingEntry("two"))
    assert targets(entry, "other") == {q("one"), q("two")}


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, True),
        ({"x-match": "any"}, {"a": 1}, False),
        ({"x-other": 1, "a": 1}, {"a": 1}, True),
        ({"a": None}, {"a": "anything"}, True),
        ({"a": None}, {}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": 1.0}, True),
    ],
)
def test_headers_examples(
    arguments: dict[str, Any], headers: dict[str, Any], expected: bool
) -> None:
    entry = exchange("headers", BindingEntry("t", arguments=arguments))
    assert bool(targets(entry, "key", headers)) is expected


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)))
def test_all_headers_match_themselves(headers: dict[str, int]) -> None:
    assert headers_match(headers, headers, any_of=False)
    assert headers_match(headers, headers, any_of=True) is bool(headers)


# --- the walk


def world(
    exchanges: dict[str, ExchangeEntry], queues: list[str]
) -> tuple[dict[str, Known], dict[str, int]]:
    known = {
        x(name): Known(number, exchange=entry, matcher=compile_matcher(entry))
        for number, (name, entry) in enumerate(exchanges.items(), 1)
    }
    known |= {q(name): Known(100 + i, queue=QueueEntry(uid=name)) for i, name in enumerate(queues)}
    return known, {name: item.version for name, item in known.items()}


def names(found: Route) -> list[str]:
    return [name for name, _ in found.queues]


def test_the_default_exchange_leads_to_the_queue_of_that_name() -> None:
    known, versions = world({}, ["orders"])
    found = route(known.get, "", "orders", {})
    assert names(found) == ["orders"]
    assert found.versions == versions


def test_a_missing_queue_is_unroutable_and_its_absence_is_reported() -> None:
    found = route({q("gone"): Known(0)}.get, "", "gone", {})
    assert names(found) == [] and not found.missing
    assert found.versions == {q("gone"): 0}


def test_a_missing_exchange_is_said() -> None:
    assert route({x("gone"): Known(0)}.get, "gone", "k", {}).missing


def test_entries_never_read_are_asked_for() -> None:
    known, _ = world({"e": exchange("fanout", BindingEntry("a"), BindingEntry("b"))}, ["a"])
    assert route(known.get, "e", "", {}).unread == {q("b")}


def test_each_queue_gets_one_copy_however_many_ways_lead_to_it() -> None:
    known, versions = world(
        {
            "top": exchange(
                "topic",
                BindingEntry("q", routing_key="#"),
                BindingEntry("q", routing_key="a.*"),
                BindingEntry("side", "exchange", "#"),
            ),
            "side": exchange("fanout", BindingEntry("q")),
        },
        ["q"],
    )
    found = route(known.get, "top", "a.b", {})
    assert names(found) == ["q"]
    assert found.versions == versions


def test_exchanges_in_a_circle_are_walked_once() -> None:
    known, _ = world(
        {
            "a": exchange("fanout", BindingEntry("b", "exchange"), BindingEntry("one")),
            "b": exchange("fanout", BindingEntry("a", "exchange"), BindingEntry("two")),
            "self": exchange("fanout", BindingEntry("self", "exchange")),
        },
        ["one", "two"],
    )
    assert sorted(names(route(known.get, "a", "", {}))) == ["one", "two"]
    assert names(route(known.get, "self", "", {})) == []


def test_a_route_through_a_headers_exchange_says_so() -> None:
    known, _ = world(
        {
            "top": exchange("fanout", BindingEntry("by", "exchange")),
            "by": exchange("headers", BindingEntry("q", arguments={"a": 1})),
        },
        ["q"],
    )
    assert names(route(known.get, "top", "", {"a": 1})) == ["q"]
    assert names(route(known.get, "top", "", {"a": 2})) == []
    assert route(known.get, "top", "", {}).by_headers


@given(st.data())
def test_the_walk_reaches_what_is_reachable(data: st.DataObject) -> None:
    places = ["e0", "e1", "e2", "e3"]
    queues = ["q0", "q1", "q2"]
    edges = data.draw(
        st.lists(st.tuples(st.sampled_from(places), st.sampled_from(places + queues)), max_size=12)
    )
    known, _ = world(
        {
            place: exchange(
                "fanout",
                *(
                    BindingEntry(to, "exchange" if to in places else "queue")
                    for start, to in edges
                    if start == place
                ),
            )
            for place in places
        },
        queues,
    )
    reachable, todo = {"e0"}, ["e0"]
    while todo:
        here = todo.pop()
        for start, to in edges:
            if start == here and to not in reachable:
                reachable.add(to)
                todo.append(to)
    assert set(names(route(known.get, "e0", "", {}))) == reachable & set(queues)
