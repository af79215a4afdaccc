"""AMQP field tables as bytes, both ways (specification 4.2.5, with RabbitMQ's type letters).

pika has such a codec too, but it refuses floats when writing and cuts them to whole numbers when
reading. The rules here: nothing is rounded or cut in silence; what AMQP cannot carry raises
`UsageError` naming the key; text that was read from bytes that are no UTF-8 becomes these bytes
again, since whoever sends a copy must send what he got; bytes that are damaged, or nested deeper
than `MAX_DEPTH`, raise `DecodeError` and nothing else.
"""

from __future__ import annotations

import calendar
import datetime
import decimal
import functools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, Final

from queue_core.errors import DecodeError, UsageError

MAX_DEPTH: Final = 32
_MOST_HEADINGS: Final = 1024

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_SCALED: Final = Struct(">Bi")
_INT32: Final = Struct(">ci")
_INT64: Final = Struct(">cq")
_DOUBLE: Final = Struct(">cd")
_LONG: Final = Struct(">cI")
_STAMP: Final = Struct(">cQ")
_DECIMAL: Final = Struct(">cBi")

_NUMBERS: Final[Mapping[int, Struct]] = {
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("U"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): Struct(">i"),
    ord("i"): Struct(">I"),
    ord("l"): Struct(">q"),
    ord("L"): Struct(">q"),
    ord("f"): Struct(">f"),
    ord("d"): Struct(">d"),
}
_SIZES: Final[Mapping[int, int]] = {
    **{kind: number.size for kind, number in _NUMBERS.items()},
    ord("t"): 1,
    ord("V"): 0,
    ord("T"): 8,
    ord("D"): 5,
}
_TEXT, _VOID, _TABLE, _LIST, _BOOL, _TIME = b"SVFAtT"
_LONG_KINDS: Final = frozenset(b"SxAF")
DAMAGED: Final = (struct.error, IndexError, ValueError, OverflowError, RecursionError)
"""What reading damaged bytes can raise; callers turn it into `DecodeError`."""


def encode_table(table: Mapping[str, Any]) -> bytes:
    """Return ``table`` as a field table with its length in front.

    Raises:
        UsageError: a key or value cannot be carried; the message names the key.
    """
    data = _encode_items(table, MAX_DEPTH)
    return _U32.pack(len(data)) + data


def _encode_items(table: Mapping[str, Any], depth: int) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    for key, value in table.items():
        add(_encode_name(key))
        # Most headers of a task are texts or nothing: these two are written without a call.
        if value is None:
            add(b"V")
        elif type(value) is str:
            try:
                data = value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise _no_unicode(key) from None
            add(_LONG.pack(b"S", len(data)))
            add(data)
        else:
            add(_encode_value(key, value, depth))
    return b"".join(parts)


@functools.lru_cache(maxsize=1024)
def _encode_name(key: str) -> bytes:
    """A program uses few names, and those often."""
    if not isinstance(key, str):
        raise UsageError(f"AMQP header names are strings, not {key!r}")
    try:
        name = key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _no_unicode(key) from None
    if len(name) > 255:
        raise UsageError(
            f"AMQP header name {key[:40]!r}... has {len(name)} bytes; 255 is the limit"
        )
    return bytes((len(name),)) + name


def _encode_value(key: str, value: Any, depth: int) -> bytes:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        for kind, candidate in _ENCODERS.items():
            if isinstance(value, kind):
                encoder = candidate
                break
        else:
            raise UsageError(
                f"AMQP header {key!r}: a {type(value).__name__} cannot be carried in a header"
            )
    return encoder(key, value, depth)


def _no_unicode(key: str) -> UsageError:
    return UsageError(f"AMQP header {key!r} holds text that is not valid Unicode")


def _encode_mapping(key: str, value: Mapping[str, Any], depth: int) -> bytes:
    data = _encode_items(value, _deeper(key, depth))
    return _LONG.pack(b"F", len(data)) + data


def _encode_list(key: str, value: Sequence[Any], depth: int) -> bytes:
    inner = _deeper(key, depth)
    data = b"".join([_encode_value(key, item, inner) for item in value])
    return _LONG.pack(b"A", len(data)) + data


def _deeper(key: str, depth: int) -> int:
    if depth <= 0:
        raise UsageError(f"AMQP header {key!r} is nested deeper than {MAX_DEPTH} levels")
    return depth - 1


def _encode_str(key: str, value: str, _depth: int) -> bytes:
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _no_unicode(key) from None
    return _LONG.pack(b"S", len(data)) + data


def _encode_bytes(_key: str, value: bytes, _depth: int) -> bytes:
    return _LONG.pack(b"x", len(value)) + value


def _encode_bool(_key: str, value: bool, _depth: int) -> bytes:
    return b"t\x01" if value else b"t\x00"


def _encode_int(key: str, value: int, _depth: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return _INT32.pack(b"I", value)
    if -(2**63) <= value < 2**63:
        return _INT64.pack(b"l", value)
    raise UsageError(f"AMQP header {key!r}: {value} needs more than 64 bits; send it as a string")


def _encode_float(key: str, value: float, _depth: int) -> bytes:
    if not math.isfinite(value):
        raise UsageError(
            f"AMQP header {key!r}: RabbitMQ cannot read {value}, and ends the connection; send it "
            "as a string"
        )
    return _DOUBLE.pack(b"d", value)


def _encode_none(_key: str, _value: None, _depth: int) -> bytes:
    return b"V"


def _encode_datetime(key: str, value: datetime.datetime, _depth: int) -> bytes:
    seconds = calendar.timegm(value.utctimetuple())
    if seconds < 0:
        raise UsageError(f"AMQP header {key!r}: AMQP has no timestamps before 1970")
    return _STAMP.pack(b"T", seconds)


def _encode_decimal(key: str, value: decimal.Decimal, _depth: int) -> bytes:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int):
        places = max(0, -exponent)
        raw = int(value.scaleb(places)) if value.adjusted() < 10 else 2**31
        if places <= 255 and -(2**31) <= raw < 2**31:
            return _DECIMAL.pack(b"D", places, raw)
    raise UsageError(f"AMQP header {key!r}: decimal {value} does not fit; send it as a string")


_ENCODERS: Final[Mapping[type, Callable[[str, Any, int], bytes]]] = {
    str: _encode_str,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    type(None): _encode_none,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    datetime.datetime: _encode_datetime,
    decimal.Decimal: _encode_decimal,
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_mapping,
    Mapping: _encode_mapping,
}


def decode_table(data: bytes, at: int = 0, depth: int = MAX_DEPTH) -> tuple[dict[str, Any], int]:
    """Read the field table at offset ``at``; return it and the offset behind it.

    Raises:
        DecodeError: it is damaged or nested too deep.
    """
    try:
        return _decode_table(data, at, depth)
    except DAMAGED as error:
        raise DecodeError(f"damaged AMQP header table: {error}") from error


def _decode_table(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    end = _end(data, at)
    at += 4
    known = _headings.get
    table: dict[str, Any] = {}
    while at < end:
        begin = at + 2 + data[at]
        heading = data[at:begin]
        key, kind = known(heading) or _learn(heading)
        # Most headers of a task are texts or nothing: these two are read without a call.
        if kind == _TEXT:
            at = begin + 4 + _U32.unpack_from(data, begin)[0]
            value = data[begin + 4 : at]
            try:
                table[key] = value.decode()
            except UnicodeDecodeError:
                table[key] = value
        elif kind == _VOID:
            at = begin
            table[key] = None
        else:
            table[key], at = _DECODERS[kind](data, begin, depth)
    if at != end:
        raise ValueError("an entry reaches beyond the table")
    return table, end


_headings: Final[dict[bytes, tuple[str, int]]] = {}
"""What stands before a value, as bytes: its name, and its type. Programs use few of them."""


def _learn(heading: bytes) -> tuple[str, int]:
    kind = heading[heading[0] + 1]
    if kind not in _DECODERS:
        raise ValueError(f"unknown type {chr(kind)!r}")
    found = heading[1:-1].decode("utf-8", "surrogateescape"), kind
    if len(_headings) < _MOST_HEADINGS:
        _headings[heading] = found
    return found


def _end(data: bytes, at: int) -> int:
    """Return where the item whose length stands at ``at`` ends; ValueError beyond the data."""
    (size,) = _U32.unpack_from(data, at)
    end = at + 4 + int(size)
    if end > len(data):
        raise ValueError("it is cut off")
    return end


def _decode_value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    decoder = _DECODERS.get(data[at])
    if decoder is None:
        raise ValueError(f"unknown type {chr(data[at])!r}")
    return decoder(data, at + 1, depth)


def _decode_text(data: bytes, at: int, _depth: int) -> tuple[str | bytes, int]:
    value, end = _decode_bytes(data, at, 0)
    try:
        return value.decode(), end
    except UnicodeDecodeError:
        return value, end


def _decode_bytes(data: bytes, at: int, _depth: int) -> tuple[bytes, int]:
    end = _end(data, at)
    return data[at + 4 : end], end


def _decode_list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    inner = _inside(depth)
    end = _end(data, at)
    items = []
    at += 4
    while at < end:
        item, at = _decode_value(data, at, inner)
        items.append(item)
    return items, end


def _decode_mapping(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    return _decode_table(data, at, _inside(depth))


def _inside(depth: int) -> int:
    if depth <= 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return depth - 1


def _decode_number(number: Struct) -> _Decoder:
    unpack, size = number.unpack_from, number.size
    return lambda data, at, _depth: (unpack(data, at)[0], at + size)


def _decode_bool(data: bytes, at: int, _depth: int) -> tuple[bool, int]:
    return data[at] != 0, at + 1


def _decode_void(_data: bytes, at: int, _depth: int) -> tuple[None, int]:
    return None, at


def _decode_time(data: bytes, at: int, _depth: int) -> tuple[datetime.datetime | int, int]:
    return _timestamp(_U64.unpack_from(data, at)[0]), at + 8


def _decode_decimal(data: bytes, at: int, _depth: int) -> tuple[decimal.Decimal, int]:
    places, raw = _SCALED.unpack_from(data, at)
    return decimal.Decimal(raw).scaleb(-places), at + 5


_Decoder = Callable[[bytes, int, int], tuple[Any, int]]
"""From the data, where the value begins behind its type, and how deep more may nest, to the value
and where it ends."""

_DECODERS: Final[Mapping[int, _Decoder]] = {
    **{kind: _decode_number(number) for kind, number in _NUMBERS.items()},
    _TEXT: _decode_text,
    ord("x"): _decode_bytes,
    _LIST: _decode_list,
    _TABLE: _decode_mapping,
    _BOOL: _decode_bool,
    _VOID: _decode_void,
    _TIME: _decode_time,
    ord("D"): _decode_decimal,
}


def _timestamp(seconds: int) -> datetime.datetime | int:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return seconds


def find_text(data: bytes, at: int, name: bytes) -> str | None:
    """Return the string under ``name`` in the table at ``at``, decoding nothing else; or None.

    Raises one of `DAMAGED` when the table is damaged before that entry.
    """
    value = find_values(data, at, (name.decode(),)).get(name.decode())
    return value if isinstance(value, str) else None


def find_values(data: bytes, at: int, names: Sequence[str]) -> dict[str, Any]:
    """Return those entries of the table at ``at`` that are called ``names``; decode no others.

    Raises one of `DAMAGED` when the table is damaged before the last of them.
    """
    wanted = _keys(tuple(names))
    found: dict[str, Any] = {}
    end = _end(data, at)
    at += 4
    while at < end and len(found) < len(wanted):
        kind_at = at + 1 + data[at]
        name = wanted.get(data[at + 1 : kind_at])
        kind = data[kind_at]
        if name is not None and name not in found:
            if kind == _VOID:
                found[name], at = None, kind_at + 1
            else:
                found[name], at = _decode_value(data, kind_at, MAX_DEPTH)
        elif kind in _LONG_KINDS:
            at = kind_at + 5 + _U32.unpack_from(data, kind_at + 1)[0]
        elif kind in _SIZES:
            at = kind_at + 1 + _SIZES[kind]
        else:
            raise ValueError(f"unknown type {chr(kind)!r}")
    if at > end:
        raise ValueError("an entry reaches beyond the table")
    return found


@functools.lru_cache(maxsize=64)
def _keys(names: tuple[str, ...]) -> Mapping[bytes, str]:
    return {name.encode(): name for name in names}
