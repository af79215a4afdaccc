"""Stored properties: they come back as they were, in parts or whole, and damage is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_core.emulation import stored
from queue_core.errors import ConfigError, DecodeError
from queue_core.message import Properties

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.text(), st.dictionaries(st.text(), VALUES, max_size=4), st.text())
def test_everything_comes_back(
    exchange: str, key: str, headers: dict[str, Any], content_type: str
) -> None:
    properties = Properties(
        content_type, "utf-8", headers, priority=3, correlation_id="c", expiration=1.5, user_id="u"
    )
    raw = stored.encode(exchange, key, properties)
    assert stored.load(raw) == stored.Stored(
        exchange, key, stored.load(raw).compression, properties
    )
    place = stored.head(raw)
    assert (place.exchange, place.routing_key) == (exchange, key)
    assert stored.READER.properties(raw) == properties
    assert stored.READER.content(raw)[:2] == (content_type, "utf-8")


def test_the_compression_is_read_from_the_headers() -> None:
    raw = stored.encode("", "", Properties("a", "b", {"compression": "application/x-gzip"}))
    assert stored.READER.content(raw) == ("a", "b", "application/x-gzip")
    raw = stored.encode("", "", Properties("a", "b", {"compression": 7}))
    assert stored.READER.content(raw) == ("a", "b", None)


def test_a_time_in_the_headers_stays_a_time() -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    raw = stored.encode("", "", Properties(headers={"at": when}))
    assert stored.load(raw).properties.headers == {"at": when}


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800"])
def test_what_cannot_be_stored_is_refused_with_the_place(value: object) -> None:
    with pytest.raises(ConfigError, match="'ex'.*'key'"):
        stored.encode("ex", "key", Properties(headers={"bad": value}))


@example(b"\x92\xa5\x00\x00\x00\x00\x80")
@example(b"\x94\xa1a\xa1b\xc0\x91\xa3\x00\x00\x80")
@given(st.binary(max_size=40))
def test_damaged_bytes_are_an_error_and_nothing_else(raw: bytes) -> None:
    for read in (stored.head, stored.load, stored.READER.content, stored.READER.properties):
        try:
            read(raw)
        except DecodeError as error:
            assert "damaged" in str(error)


def test_fields_added_by_a_newer_version_are_skipped() -> None:
    raw = stored.encode("e", "k", Properties("t"))
    longer = bytes([raw[0] + 1]) + raw[1:] + b"\xc0"
    assert stored.load(longer) == stored.load(raw)
    assert stored.READER.content(longer)[0] == "t"
