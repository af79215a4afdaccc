"""Field tables: both ways, against pika's codec, and damaged ones."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import data as pika_data

from queue_core.errors import DecodeError, UsageError
from queue_core.transports.amqp.tables import (
    DAMAGED,
    MAX_DEPTH,
    decode_table,
    encode_table,
    find_text,
)

names = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
    | st.binary(max_size=40)
    | st.datetimes(
        datetime.datetime(1970, 1, 1),
        datetime.datetime(2100, 1, 1),
        timezones=st.just(datetime.UTC),
    ).map(lambda moment: moment.replace(microsecond=0))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=15,
)
tables = st.dictionaries(names, values, max_size=6)


@given(tables)
def test_a_table_comes_back_as_it_was(table: dict[str, Any]) -> None:
    data = encode_table(table)
    found, end = decode_table(data)
    assert found == table
    assert end == len(data)
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in table.items()
    }


def test_pika_reads_what_is_written_and_the_other_way_round() -> None:
    table = {
        "text": "ü",
        "yes": True,
        "small": -5,
        "long": 2**40,
        "none": None,
        "list": [1, "two", {"three": [None]}],
        "stamp": datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        "price": decimal.Decimal("12.34"),
        "raw": b"\xff\x00",
    }
    assert pika_data.decode_table(encode_table(table), 0)[0] == table
    pieces: list[bytes] = []
    pika_data.encode_table(pieces, table)
    assert decode_table(b"".join(pieces))[0] == table


@pytest.mark.parametrize(
    ("letter", "data", "value"),
    [
        (b"b", struct.pack(">b", -3), -3),
        (b"B", struct.pack(">B", 250), 250),
        (b"s", struct.pack(">h", -300), -300),
        (b"u", struct.pack(">H", 60_000), 60_000),
        (b"I", struct.pack(">i", -(2**31)), -(2**31)),
        (b"i", struct.pack(">I", 2**32 - 1), 2**32 - 1),
        (b"l", struct.pack(">q", -(2**63)), -(2**63)),
        (b"f", struct.pack(">f", 0.5), 0.5),
        (b"d", struct.pack(">d", 1e300), 1e300),
        (b"D", struct.pack(">Bi", 2, -1234), decimal.Decimal("-12.34")),
        (b"T", struct.pack(">Q", 2**63), 2**63),
        (b"S", b"\x00\x00\x00\x01\xff", b"\xff"),
    ],
)
def test_every_type_letter_of_rabbitmq_is_read(letter: bytes, data: bytes, value: object) -> None:
    entry = b"\x01k" + letter + data
    assert decode_table(struct.pack(">I", len(entry)) + entry)[0] == {"k": value}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2**63, "64 bits"),
        (float("inf"), "cannot read inf"),
        (float("nan"), "cannot read nan"),
        (object(), "object cannot be carried"),
        ({1, 2}, "set cannot be carried"),
        ("\ud800", "not valid Unicode"),
        (decimal.Decimal("1e40"), "does not fit"),
        (decimal.Decimal("NaN"), "does not fit"),
        (datetime.datetime(1960, 1, 1), "before 1970"),
        ({"x" * 256: 1}, "255 is the limit"),
        ({1: 2}, "are strings"),
    ],
)
def test_what_amqp_cannot_carry_is_refused_by_name(value: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        encode_table({"the-key": value})


def test_nesting_has_a_limit_both_ways() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert decode_table(encode_table({"k": deep}))[0] == {"k": deep}
    with pytest.raises(UsageError, match="nested deeper"):
        encode_table({"k": [deep]})
    data = b"V"
    for _ in range(5000):
        data = b"A" + struct.pack(">I", len(data)) + data
    entry = b"\x01k" + data
    with pytest.raises(DecodeError, match="nested deeper"):
        decode_table(struct.pack(">I", len(entry)) + entry)


@given(tables, st.data())
def test_damaged_tables_raise_decode_errors_and_nothing_else(
    table: dict[str, Any], data: st.DataObject
) -> None:
    good = bytearray(encode_table(table))
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        decoded, end = decode_table(cut)
    except DecodeError:
        return
    assert isinstance(decoded, dict)
    assert end <= len(cut)


@given(tables, st.text(max_size=20))
def test_a_text_is_found_without_decoding_the_rest(table: dict[str, Any], wanted: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        wanted.encode()
        table["compression"] = wanted
        assert find_text(encode_table(table), 0, b"compression") == wanted


def test_a_missing_text_or_one_of_another_type_is_none() -> None:
    assert find_text(encode_table({"a": 1, "b": ["x"], "c": True}), 0, b"compression") is None
    assert find_text(encode_table({"compression": 5, "z": 1}), 0, b"compression") is None


def test_looking_for_a_text_in_a_damaged_table_raises_what_callers_expect() -> None:
    with pytest.raises(DAMAGED):
        find_text(b"\x00\x00\x00\x09\x01", 0, b"compression")


def test_names_and_texts_that_are_no_unicode_are_written_as_bytes() -> None:
    """A routing key that was read from such bytes stands in a history of deaths."""
    text = b"\xe9\xff".decode(errors="surrogateescape")
    assert decode_table(encode_table({text: text, "in": [text]}))[0] == {
        text: b"\xe9\xff",
        "in": [b"\xe9\xff"],
    }
