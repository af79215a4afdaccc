"""The arithmetic of delays, and what is declared for them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_core.topology import check_seconds
from queue_core.transports.amqp.ladder import (
    LONGEST,
    LOST,
    MARKER,
    OUT,
    SINK,
    Target,
    climbed,
    entry,
    ladder_steps,
    levels,
    rounded,
    target_steps,
    way_to,
)

delays = st.floats(min_value=0.0, max_value=LONGEST / 1000, allow_nan=False)


@given(delays)
@example(LONGEST / 1000)
@example(255.0)
@example(0.256)
def test_a_wait_is_never_shorter_and_at_most_a_little_longer(delay: float) -> None:
    wait = rounded(delay)
    assert wait >= delay * 1000 - 0.001
    assert wait <= delay * 1000 * 1.008 + 1
    assert len(levels(wait)) <= 8 or wait == LONGEST
    assert sum(2**level for level in levels(wait)) == wait


def test_short_and_round_waits_are_exact() -> None:
    assert [rounded(n / 1000) for n in range(256)] == list(range(256))
    assert rounded(0.0001) == 1
    assert rounded(257 / 1000) == 258
    assert rounded(1.0) == 1000
    assert rounded(3600.0) == 220 << 14


def test_the_longest_delay_that_anybody_may_ask_for_has_a_level() -> None:
    longest = check_seconds("delay", 2**32 / 1000)
    assert longest is not None
    assert rounded(longest) == LONGEST
    assert entry(LONGEST) == "qc.delay.31"


def test_a_message_enters_at_its_highest_level() -> None:
    assert [entry(wait) for wait in (0, 1, 2, 3, 255, 256)] == [
        OUT,
        "qc.delay.0",
        "qc.delay.1",
        "qc.delay.1",
        "qc.delay.7",
        "qc.delay.8",
    ]
    assert levels(0) == []
    assert levels(0b1011) == [3, 1, 0]


def test_everything_is_declared_before_it_is_needed() -> None:
    """Whatever is bound, or named as an alternate, was declared in an earlier step."""
    there: set[str] = set()
    target = [Target("exchange", "x"), Target("queue", "q")]
    steps = ladder_steps() + [step for item in target for step in target_steps(item)]
    for method, arguments in steps:
        more = arguments.get("arguments", {})
        needed = {more[name] for name in ("alternate-exchange",) if name in more}
        if method == "queue_bind":
            needed |= {arguments["queue"], arguments["exchange"]}
        elif method == "exchange_bind":
            needed |= {arguments["source"], arguments["destination"]}
        assert needed <= there, (method, arguments)
        if method == "exchange_declare":
            there.add(arguments["exchange"])
        elif method == "queue_declare":
            there.add(arguments["queue"])
    assert {MARKER, OUT, LOST, SINK, "qc.delay.31"} <= there
    assert ladder_steps()[-1].arguments["exchange"] == MARKER


def test_every_queue_that_messages_wait_in_dead_letters_at_least_once() -> None:
    steps = ladder_steps() + target_steps(Target("exchange", "x"))
    waiting = [
        step.arguments["arguments"]
        for step in steps
        if step.method == "queue_declare" and "x-message-ttl" in step.arguments.get("arguments", {})
    ]
    assert sorted(item["x-message-ttl"] for item in waiting) == [0, *(2**k for k in range(32))]
    for item in waiting:
        assert item["x-queue-type"] == "quorum"
        assert item["x-dead-letter-strategy"] == "at-least-once"
        assert item["x-overflow"] == "reject-publish"
        assert "x-dead-letter-routing-key" not in item


def test_a_queue_that_takes_everything_needs_no_relay() -> None:
    target = Target("queue", "q", relayed=False)
    ((method, arguments),) = target_steps(target)
    assert (method, arguments["queue"], arguments["exchange"]) == ("queue_bind", "q", OUT)
    assert arguments["arguments"] == {"x-match": "all", "qc-to-queue": "q"}


@pytest.mark.parametrize("name", ["x", "x" * 255, "é" * 127])
def test_a_relay_has_a_name_of_its_own_that_fits(name: str) -> None:
    targets = [Target("queue", name), Target("exchange", name), Target("queue", f"{name[1:]}y")]
    relays = {target.relay for target in targets}
    assert len(relays) == 3
    assert all(len(relay.encode()) <= 255 and climbed(relay) for relay in relays)


@pytest.mark.parametrize("target", [Target("exchange", "x"), Target("queue", "q", relayed=False)])
def test_a_way_out_of_the_ladder_can_be_taken_back(target: Target) -> None:
    queue = target.relay if target.relayed else target.name
    bind, unbind = way_to(queue)
    assert bind in target_steps(target)
    assert unbind == ("queue_unbind", bind.arguments)
