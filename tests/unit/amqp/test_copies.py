"""What a copy carries, and that nothing of it is left when it arrives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from queue_core.message import Delivery, Properties, Publication
from queue_core.transports.amqp.copies import (
    MARK,
    NOTHING,
    Note,
    buried,
    delayed,
    restored,
    returned,
    returns,
)
from queue_core.transports.amqp.ladder import OUT, Target
from queue_core.transports.amqp.properties import READER, decode_properties, encode_properties

TARGET = Target("exchange", "orders")
names = st.text(max_size=12).filter(lambda name: not name.startswith(("qc-", "x-", "CC", "BCC")))
headers = st.dictionaries(names, st.integers(-5, 5) | st.text(max_size=5) | st.none(), max_size=5)


def publication(exchange: str = "orders", **properties: Any) -> Publication:
    return Publication(exchange, "new.eu", b"body", Properties(**properties), "id", False, 5.0)


def delivery(exchange: str = "orders", **properties: Any) -> Delivery:
    raw = encode_properties(Properties(**properties))
    return Delivery("c", "work", exchange, "new.eu", b"body", raw, READER, (1, 1, NOTHING))


def again(found: Delivery, note: Note = NOTHING, **fields: Any) -> Publication:
    asked = {"wait": 300, "target": TARGET, "now": 1000, "counted": True, "user": "me", "id": "i"}
    return returned(found, READER.properties(found.raw), note, **(asked | fields))


def row(queue: str, reason: str = "rejected", **fields: Any) -> dict[str, Any]:
    return {"queue": queue, "reason": reason, "count": 1, "exchange": "", **fields}


@given(headers, st.integers(1, 2**32 - 1), st.none() | st.integers(0, 10**6))
def test_what_was_delayed_arrives_as_it_was(
    headers: dict[str, Any], wait: int, ttl: int | None
) -> None:
    expiration = None if ttl is None else ttl / 1000
    sent = publication(headers=headers, expiration=expiration, priority=3, type="t")
    copy = delayed(sent, wait, TARGET, now=10)
    assert (copy.routing_key, copy.body, copy.mandatory, copy.delay) == ("new.eu", b"body", True, 0)
    assert copy.properties.expiration is None
    assert copy.properties.headers["qc-to-relay"] == TARGET.relay
    raw = encode_properties(copy.properties)
    assert MARK in raw
    arrived, exchange, note = restored(decode_properties(raw), OUT)
    assert (arrived, exchange) == (sent.properties, "orders")
    assert note == Note(0, None if ttl is None else 10 + ttl)


def test_only_set_bits_become_headers() -> None:
    copy = delayed(publication(), 0b1010, TARGET, now=0)
    bits = [name for name in copy.properties.headers if name.startswith("qc-d")]
    assert (copy.exchange, bits) == ("qc.delay.3", ["qc-d3", "qc-d1"])


def test_headers_of_ours_that_a_client_forged_lead_nowhere() -> None:
    forged = {"qc-d31": True, "qc-to-queue": "other", "qc-deliveries": 7, "qc-deadline": 1}
    sent = publication(headers={**forged, "qc-mine": 1})
    found = delayed(sent, 1, TARGET, now=0).properties.headers
    assert set(found) == {"qc-mine", "qc-d0", "qc-to-relay", "qc-exchange"}


def test_a_return_counts_and_keeps_what_it_knew() -> None:
    copy = again(delivery(expiration=60.0), Note(2, 5000, 9))
    assert copy.properties.headers["qc-deliveries"] == 3
    assert copy.properties.headers["qc-deadline"] == 5000
    assert copy.properties.headers["qc-expiration"] == 60_000
    polite = again(delivery(), Note(2), counted=False)
    assert polite.properties.headers["qc-deliveries"] == 2
    assert "qc-deliveries" not in again(delivery(), counted=False).properties.headers


def test_a_ttl_whose_end_nobody_knows_begins_anew() -> None:
    assert again(delivery(expiration=2.0)).properties.headers["qc-deadline"] == 3000


def test_a_return_without_delay_goes_straight_out() -> None:
    assert again(delivery(), wait=0).exchange == OUT


def test_the_brokers_counts_do_not_travel() -> None:
    found = delivery(headers={"x-delivery-count": 4, "x-acquired-count": 4, "x-mine": 1})
    sent = again(found).properties.headers
    assert "x-delivery-count" not in sent
    assert "x-acquired-count" not in sent
    assert sent["x-mine"] == 1
    assert returns(READER.properties(found.raw)) == 4


@pytest.mark.parametrize(("user", "kept"), [("me", "me"), ("other", None), (None, None)])
def test_the_user_id_is_sent_by_its_owner_only(user: str | None, kept: str | None) -> None:
    assert again(delivery(user_id=user)).properties.user_id == kept


def test_a_history_travels_apart_and_comes_back() -> None:
    history = {
        "x-death": [row("work"), row("room", "expired")],
        "x-first-death-queue": "room",
        "x-first-death-reason": "expired",
        "x-first-death-exchange": "",
    }
    copy = again(delivery(headers={**history, "mine": 1}))
    assert not [name for name in copy.properties.headers if name.startswith("x-")]
    passed = {
        "x-death": [row("qc.delay.3", "expired"), row("qc.delay.8", "expired")],
        "x-first-death-queue": "qc.delay.8",
        "x-first-death-reason": "expired",
        "x-first-death-exchange": "qc.delay.8",
    }
    arrived = replace(copy.properties, headers=copy.properties.headers | passed)
    assert restored(arrived, OUT)[0].headers == {**history, "mine": 1}


def test_a_dead_letter_that_waited_tells_of_its_deaths_only() -> None:
    """Delayed, requeued, rejected: the rows of the ladder go, equal rows are added up."""
    earlier = {"x-death": [row("work", count=2)], "x-first-death-queue": "work"}
    carried = {
        "mine": 1,
        "qc-exchange": "orders",
        "qc-deliveries": 3,
        "qc-expiration": 1,
        "qc-deadline": 1,
        "qc-death": earlier,
        "x-death": [
            row("work", exchange="qc.delay.0"),
            row("qc.delay.3", "expired"),
        ],
        "x-first-death-queue": "qc.delay.3",
        "x-first-death-exchange": "qc.delay.3",
    }
    properties, exchange, note = restored(Properties(headers=carried), "dead")
    assert exchange == "dead"
    assert note == NOTHING
    assert properties.expiration is None
    assert properties.headers == {
        "mine": 1,
        "x-death": [row("work", count=3, exchange="orders")],
        "x-first-death-queue": "work",
    }


def test_the_first_death_after_the_ladder_is_told_as_the_first() -> None:
    carried = {
        "qc-exchange": "orders",
        "x-death": [row("work", exchange="qc.delay.0"), row("qc.delay.3", "expired")],
        "x-first-death-queue": "qc.delay.3",
        "x-last-death-queue": "work",
        "x-last-death-exchange": "qc.delay.0",
    }
    assert restored(Properties(headers=carried), "dead")[0].headers == {
        "x-death": [row("work", exchange="orders")],
        "x-first-death-queue": "work",
        "x-first-death-reason": "rejected",
        "x-first-death-exchange": "orders",
        "x-last-death-queue": "work",
        "x-last-death-exchange": "orders",
    }


@given(
    st.dictionaries(
        st.sampled_from(
            ["qc-exchange", "qc-deliveries", "qc-deadline", "qc-expiration", "qc-death", "x-death"]
        ),
        st.none()
        | st.booleans()
        | st.integers(-(2**40), 2**40)
        | st.text(max_size=3)
        | st.lists(st.dictionaries(st.sampled_from(["queue", "count"]), st.integers()))
        | st.dictionaries(st.just("x-death"), st.just("nonsense") | st.just([{}, 1])),
    ),
    st.sampled_from([OUT, "dead"]),
)
def test_forged_headers_never_raise(headers: dict[str, Any], exchange: str) -> None:
    properties, _, note = restored(Properties(headers=headers), exchange)
    assert not [name for name in properties.headers if name.startswith("qc-")]
    assert note.deliveries >= 0
    assert note.deadline is None or note.deadline >= 0


@pytest.mark.parametrize(
    "odd",
    [
        row("work", count=2**63 - 1),
        row("work", count=-1),
        {"queue": ["work"], "reason": "rejected"},
        {"queue": "work", "reason": {"a": 1}},
        {},
    ],
)
@pytest.mark.parametrize("exchange", [OUT, "dead"])
def test_deaths_written_by_hand_can_be_received_copied_and_buried(
    odd: dict[str, Any], exchange: str
) -> None:
    history = {"x-death": [odd, odd]}
    forged = {"qc-exchange": "orders", "qc-death": history, **history}
    properties, _, note = restored(Properties(headers=forged), exchange)
    found = delivery(headers=properties.headers)
    assert encode_properties(again(found, note).properties)
    for headers in (properties.headers, history):
        letter = buried(
            found,
            Properties(headers=headers),
            exchange="dead",
            key=None,
            reason="rejected",
            user="me",
            now=1000.0,
            id="i",
        )
        assert encode_properties(letter.properties)
        assert letter.properties.headers["x-death"][0]["count"] >= 1


def test_a_dead_letter_of_ours_reads_like_the_brokers() -> None:
    found = delivery(
        headers={"mine": 1, "x-death": [row("other"), row("work", "delivery_limit", count=4)]},
        expiration=1.5,
        user_id="other",
    )
    letter = buried(
        found,
        READER.properties(found.raw),
        exchange="dead",
        key=None,
        reason="delivery_limit",
        user="me",
        now=1000.7,
        id="i",
    )
    assert (letter.exchange, letter.routing_key, letter.body) == ("dead", "new.eu", b"body")
    assert (letter.properties.expiration, letter.properties.user_id) == (None, None)
    latest, other = letter.properties.headers["x-death"]
    assert latest.pop("time").timestamp() == 1000
    assert latest == {
        "queue": "work",
        "reason": "delivery_limit",
        "count": 5,
        "exchange": "orders",
        "routing-keys": ["new.eu"],
        "original-expiration": "1500",
    }
    assert other == row("other")
    assert letter.properties.headers["mine"] == 1
