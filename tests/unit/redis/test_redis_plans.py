"""Which puts go as plain words to ``append``, and which as a plan to ``put``."""

from __future__ import annotations

from typing import Any

import pytest

from queue_core.transport import Envelope
from queue_core.transports.redis.plans import Tokens, words_to_append


def envelope(name: str, **options: Any) -> Envelope:
    return Envelope("q", name, b"body", b"properties", **options)


def test_messages_of_one_queue_and_priority_go_in_runs_that_keep_their_order() -> None:
    batch = [
        *(envelope("a"), envelope("d", priority=3), envelope("b")),
        *(envelope("c", ttl=1.5), envelope("e", priority=3), envelope("f")),
    ]
    plain = words_to_append(batch, {"q:q": 7}, Tokens([("q", "held", "life.1")]))
    assert plain is not None
    words, order = plain
    content = b"\x00\x00\x00\x0apropertiesbody"
    assert words == [
        *(b"1", b"q:q", b"7"),
        *(b"1", b"q", b"life.1", b"1", b"held"),
        *(b"q", b"0", b"-1", b"2", b"a", b"b", content, content),
        *(b"q", b"3", b"-1", b"2", b"d", b"e", content, content),
        *(b"q", b"0", b"1500000", b"1", b"c", content),
        *(b"q", b"0", b"-1", b"1", b"f", content),
    ]
    assert order == [0, 2, 1, 4, 3, 5]


@pytest.mark.parametrize(
    "options",
    [{"delay": 1.0}, {"ttl": 0.0}, {"max_deliveries": 3}, {"cause": ("q", "x", "life.1")}],
    ids=lambda options: next(iter(options)),
)
def test_what_is_not_simply_ready_needs_a_plan(options: dict[str, Any]) -> None:
    batch = [envelope("a"), envelope("b", **options)]
    assert words_to_append(batch, {}, Tokens(())) is None


def test_more_words_than_one_command_takes_need_a_plan() -> None:
    few = [("q", str(number), "life.1") for number in range(900)]
    many = [("q", str(number), "life.1") for number in range(1000)]
    assert words_to_append([envelope("a")], {}, Tokens(few)) is not None
    assert words_to_append([envelope("a")], {}, Tokens(many)) is None
