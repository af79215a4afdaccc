"""Dead letters: their history in the headers, their id, and circles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from queue_core.emulation import stored
from queue_core.emulation.deadletter import dead_id, dead_properties, is_cycle
from queue_core.emulation.stored import Stored
from queue_core.message import Headers, Properties

NOW = 1_700_000_000.75


def die(headers: Headers, queue: str, reason: str, **properties: Any) -> Properties:
    message = Stored("ex", "key", None, Properties(headers=headers, **properties))
    return dead_properties(message, queue, reason, NOW)


def test_the_first_death_is_noted_three_ways() -> None:
    headers = die({"mine": 1}, "q", "rejected").headers
    assert headers == {
        "mine": 1,
        "x-death": [
            {
                "queue": "q",
                "reason": "rejected",
                "count": 1,
                "exchange": "ex",
                "routing-keys": ["key"],
                "time": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            }
        ],
        "x-first-death-queue": "q",
        "x-first-death-reason": "rejected",
        "x-first-death-exchange": "ex",
    }


def test_the_newest_death_comes_first_and_the_first_one_stays_named() -> None:
    headers = die(die({}, "a", "rejected").headers, "b", "expired").headers
    assert [(d["queue"], d["reason"]) for d in headers["x-death"]] == [
        ("b", "expired"),
        ("a", "rejected"),
    ]
    assert headers["x-first-death-queue"] == "a"


def test_the_same_death_again_is_counted_and_moves_to_the_front() -> None:
    headers: Headers = {}
    for queue, reason in [("a", "rejected"), ("b", "expired"), ("a", "rejected")]:
        headers = die(headers, queue, reason).headers
    assert [(d["queue"], d["count"]) for d in headers["x-death"]] == [("a", 2), ("b", 1)]


def test_the_ttl_ends_with_the_first_death_and_is_remembered() -> None:
    properties = die({}, "q", "expired", expiration=1.5, priority=3, message_id="m")
    assert properties.expiration is None
    assert (properties.priority, properties.message_id) == (3, "m")
    assert properties.headers["x-death"][0]["original-expiration"] == "1500"


def test_the_original_message_is_not_changed() -> None:
    headers = die({}, "a", "rejected").headers
    before = stored.encode("e", "k", Properties(headers=headers))
    die(headers, "a", "rejected")
    assert stored.encode("e", "k", Properties(headers=headers)) == before


def test_a_history_written_by_hand_does_no_harm() -> None:
    headers = die({"x-death": "nonsense"}, "q", "expired").headers
    assert headers["x-death"][0]["count"] == 1
    headers = die({"x-death": [1, {"queue": "q", "reason": "expired"}]}, "q", "expired").headers
    assert headers["x-death"][0]["count"] == 1
    assert len(headers["x-death"]) == 1
    by_hand = {"queue": "q", "reason": "expired"}
    for count in (2**64 - 1, -3, "many", None, 1.5):
        headers = die({"x-death": [{**by_hand, "count": count}]}, "q", "expired").headers
        assert headers["x-death"][0]["count"] == 1
    for odd in ({"queue": [], "reason": "expired"}, {"queue": "q", "reason": {}}, {}):
        headers = die({"x-death": [odd, {**by_hand, "count": 1}]}, "q", "expired").headers
        assert [row["count"] for row in headers["x-death"]] == [2]
        assert is_cycle(headers, "q") and not is_cycle({"x-death": [odd]}, "q")


def test_the_history_survives_storing() -> None:
    properties = die({}, "q", "expired")
    assert stored.load(stored.encode("e", "k", properties)).properties == properties


def test_a_copy_has_one_id_per_claim() -> None:
    assert dead_id(7, "q", b"raw") == dead_id(7, "q", b"raw")
    others = {dead_id(8, "q", b"raw"), dead_id(7, "p", b"raw"), dead_id(("a", 1), "q", b"raw")}
    assert dead_id(7, "q", b"raw") not in others
    assert len(others) == 3


def test_what_only_dies_by_itself_does_not_go_round() -> None:
    headers = die({}, "a", "expired").headers
    assert is_cycle(headers, "a")
    assert not is_cycle(headers, "b")
    headers = die(headers, "b", "maxlen").headers
    assert is_cycle(headers, "a") and is_cycle(headers, "b")


def test_a_rejection_on_the_way_makes_a_circle_right() -> None:
    headers = die(die({}, "work", "rejected").headers, "wait", "expired").headers
    assert not is_cycle(headers, "work")
    assert is_cycle(headers, "wait")
    assert not is_cycle(die({}, "work", "my own reason").headers, "work")
