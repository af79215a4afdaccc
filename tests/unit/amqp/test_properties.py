"""Message properties as AMQP bytes."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.errors import DecodeError, UsageError
from queue_core.message import Properties
from queue_core.transports.amqp.properties import (
    READER,
    decode_properties,
    encode_properties,
    milliseconds,
)

FULL = Properties(
    content_type="application/json",
    content_encoding="utf-8",
    headers={"a": 1.5, "compression": "zlib", "b": [None]},
    priority=7,
    correlation_id="correlation",
    reply_to="reply",
    expiration=1.5,
    message_id="message",
    timestamp=1_700_000_000.0,
    type="type",
    user_id="guest",
    app_id="app",
    delivery_mode=1,
)

READERS = (
    READER.properties,
    READER.content,
    lambda raw: READER.find(raw, ("compression", "none")),
)


def by_pika(raw: bytes) -> pika.BasicProperties:
    found = pika.BasicProperties()
    found.decode(raw)
    return found


def test_all_properties_come_back() -> None:
    assert decode_properties(encode_properties(FULL)) == FULL
    assert decode_properties(encode_properties(Properties())) == Properties()


def test_pika_reads_them_the_same() -> None:
    found = by_pika(encode_properties(FULL))
    assert found.content_type == "application/json"
    assert found.content_encoding == "utf-8"
    assert found.headers["compression"] == "zlib"
    assert (found.priority, found.delivery_mode) == (7, 1)
    assert (found.correlation_id, found.reply_to) == ("correlation", "reply")
    assert found.expiration == "1500"
    assert (found.message_id, found.type) == ("message", "type")
    assert found.timestamp == 1_700_000_000
    assert (found.user_id, found.app_id) == ("guest", "app")


def test_what_pika_writes_is_read() -> None:
    written = pika.BasicProperties(
        content_type="text/plain", headers={"k": "v"}, expiration="60000", cluster_id="c"
    )
    found = decode_properties(b"".join(written.encode()))
    assert found == Properties("text/plain", headers={"k": "v"}, expiration=60.0, delivery_mode=1)


short = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
header_names = short.filter(lambda name: name not in ("CC", "BCC"))  # those are lists of keys


@given(
    st.builds(
        Properties,
        content_type=short,
        content_encoding=short,
        headers=st.dictionaries(header_names, short | st.integers(-(2**40), 2**40), max_size=3),
        priority=st.integers(0, 9),
        correlation_id=st.none() | short,
        reply_to=st.none() | short,
        expiration=st.none() | st.integers(0, 2**31).map(lambda ms: ms / 1000),
        message_id=st.none() | short,
        timestamp=st.none() | st.integers(0, 2**40).map(float),
        type=st.none() | short,
        user_id=st.none() | short,
        app_id=st.none() | short,
        delivery_mode=st.sampled_from([1, 2]),
    )
)
def test_any_properties_come_back_and_content_is_found_in_them(properties: Properties) -> None:
    raw = encode_properties(properties)
    assert decode_properties(raw) == properties
    compression = properties.headers.get("compression")
    assert READER.content(raw) == (
        properties.content_type,
        properties.content_encoding,
        compression if isinstance(compression, str) else None,
    )
    assert READER.find(raw, tuple(properties.headers)) == properties.headers


def test_texts_that_are_no_unicode_are_written_as_they_were_read() -> None:
    """Who sends a copy of a message has to send what he got."""
    texts = Properties("é", "é", {"é": 1}, 0, "é", "é", None, "é", None, "é", None, "é")
    raw = encode_properties(texts).replace("é".encode(), b"\xe9\xff")
    assert b"\xe9\xff" in raw
    assert encode_properties(decode_properties(raw)) == raw


def test_content_is_found_without_the_rest() -> None:
    assert READER.content(encode_properties(FULL)) == ("application/json", "utf-8", "zlib")
    assert READER.content(encode_properties(Properties())) == ("", "", None)


@given(st.binary(max_size=60))
def test_damaged_bytes_raise_decode_errors_and_nothing_else(raw: bytes) -> None:
    for read in READERS:
        try:
            read(raw)
        except DecodeError:
            continue


@given(st.integers(0, 200), st.integers(0, 255))
def test_one_wrong_byte_raises_a_decode_error_at_most(place: int, value: int) -> None:
    raw = bytearray(encode_properties(FULL))
    raw[place % len(raw)] = value
    for read in READERS:
        try:
            read(bytes(raw))
        except DecodeError:
            continue


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("correlation_id", "x" * 256, "correlation_id has 256 bytes"),
        ("message_id", "\ud800", "message_id is not valid Unicode"),
        ("priority", 256, "priority is 256"),
        ("delivery_mode", -1, "delivery_mode is -1"),
        ("timestamp", -1.0, "not a Unix time"),
        ("headers", {"k": object()}, "'k'"),
        ("headers", {"CC": "text"}, "'CC' is a list"),
        ("headers", {"BCC": {"k": "v"}}, "'BCC' is a list"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(field: str, value: Any, says: str) -> None:
    properties = Properties()
    setattr(properties, field, value)
    with pytest.raises(UsageError, match=says):
        encode_properties(properties)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, 0),
        (0.0001, 1),
        (0.001, 1),
        (0.0015, 2),
        (1.0, 1000),
        (0.1 + 0.2, 300),
        (86400.0, 86_400_000),
    ],
)
def test_seconds_become_milliseconds_and_never_shorter(seconds: float, expected: int) -> None:
    assert milliseconds(seconds) == expected
