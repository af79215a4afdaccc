"""What is refused before a codec sees it: limits of size and nesting, and bounded decompression.

A short message can ask for a lot: a few kilobytes that inflate to gigabytes, or a text of brackets
that nests until a decoder's stack is full. The functions here find that out at a cost that the
length of the message bounds, with all heavy steps in C: they stand in the path of every message.
"""

from __future__ import annotations

import re
import zlib
from itertools import accumulate
from typing import Any, Final

import msgspec

from queue_core.errors import ConfigError, DecodeError, TooLarge

_INFLATE_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
_RATIO_FLOOR: Final = 1 << 20
_BOXES: Final = frozenset({list, dict, tuple, set, frozenset})

_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARK: Final = bytes(set(range(256)) - set(b'[]{}"'))
_NO_MSGPACK_BOX: Final = bytes(set(range(256)) - set(range(0x80, 0xA0)) - set(range(0xDC, 0xE0)))
_MSGPACK_NOT_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")

_msgpack_encoder: Final = msgspec.msgpack.Encoder()
_msgpack_decoder: Final = msgspec.msgpack.Decoder()


class Limits(msgspec.Struct, frozen=True):
    """What is refused without being decoded, and not sent either.

    Attributes:
        max_bytes: size of a body as it travels.
        max_depth: lists and objects nested in one another, for JSON and MessagePack.
        max_ratio: size after decompression divided by the size before; a body that stays below
            1 MiB passes with any ratio.
        max_decompressed: size in bytes after decompression.

    Raises:
        ConfigError: a limit is not a positive number.
    """

    max_bytes: int = 16 << 20
    max_depth: int = 64
    max_ratio: float = 100
    max_decompressed: int = 64 << 20

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everything, or nothing in a strange way."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            kinds = (int, float) if name == "max_ratio" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                raise ConfigError(f"Limits.{name} must be a positive number, not {value!r}")

    def inflated(self, size: int) -> int:
        """Return how many bytes a compressed body of ``size`` bytes may become."""
        allowed = max(_RATIO_FLOOR, size * self.max_ratio)
        return int(min(allowed, self.max_decompressed))


DEFAULT_LIMITS: Final = Limits()


def inflate(body: bytes, limits: Limits) -> bytes:
    """Decompress zlib or gzip data, once. Memory stays within the limits, whatever it promises.

    Raises:
        TooLarge: the result would exceed the limits.
        DecodeError: the data is damaged, truncated, or followed by something else.
    """
    most = limits.inflated(len(body))
    inflater = zlib.decompressobj(_INFLATE_ZLIB_OR_GZIP)
    try:
        result = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise DecodeError("a compressed body is damaged: it is no zlib data") from error
    if len(result) > most:
        raise TooLarge(
            f"a compressed body of {len(body)} bytes holds more than {most} bytes (max_ratio="
            f"{limits.max_ratio:g}, max_decompressed={limits.max_decompressed}); the sender can "
            f"send it uncompressed"
        )
    if not inflater.eof:
        raise DecodeError("a compressed body is truncated")
    if inflater.unused_data:
        raise DecodeError("a compressed body is followed by other data")
    return result


def json_deeper_than(body: bytes, limit: int) -> bool:
    """Return whether JSON text nests deeper than ``limit``; for malformed text any answer.

    Everything but quotes and brackets is dropped; pairs of quotes with nothing between go, which
    keeps inside and outside apart; what is inside the others goes. Then ``[]`` pairs are taken
    away, a level at a time, until the rest is small. Most bodies need the first line only.
    """
    if len(body) <= 2 * limit or body.count(b"[") + body.count(b"{") <= limit:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(_TO_SQUARE, _NO_MARK).replace(b'""', b"")
    if b'"' in marks:
        marks = b"".join(marks.split(b'"')[::2])
    levels = min(3, limit)
    for level in range(levels):
        if marks.count(b"[") + level <= limit:
            return False
        marks = marks.replace(b"[]", b"")
    depth = levels
    for start in range(0, len(marks), 8192):
        block = list(accumulate(map((92).__sub__, marks[start : start + 8192]), initial=depth))
        if max(block) > limit:
            return True
        depth = block[-1]
    return False


def msgpack_deeper_than(body: bytes, limit: int) -> bool | None:
    """Return False when MessagePack cannot nest deeper than ``limit``, None when it may.

    Lengths and text look like containers there, so the bytes alone give only an upper bound.
    """
    if len(body) <= limit or len(body.translate(None, _NO_MSGPACK_BOX)) <= limit:
        return False
    return None


def payload_deeper_than(payload: Any, limit: int) -> bool:
    """Return whether lists, dicts, tuples and sets nest deeper; looks at ``limit`` levels."""
    boxes: list[Any] = [payload] if payload.__class__ in _BOXES else []
    for _ in range(limit):
        inner: list[Any] = []
        for box in boxes:
            inner += [part for part in box if part.__class__ in _BOXES]
            if box.__class__ is dict:
                inner += [part for part in box.values() if part.__class__ in _BOXES]
        if not inner:
            return False
        boxes = inner
    return bool(boxes)


def has_not_finite(payload: Any) -> bool:
    """Return whether a NaN or an infinity stands anywhere in what msgspec can encode.

    MessagePack keeps them, at ten times the speed of a walk in Python; what merely looks like one,
    in a text or a number, is sorted out by the walk.
    """
    try:
        packed = _msgpack_encoder.encode(payload)
        if _MSGPACK_NOT_FINITE.search(packed) is None:
            return False
        payload = _msgpack_decoder.decode(packed)
    except (OverflowError, TypeError, ValueError, msgspec.MsgspecError):
        pass  # integers beyond 64 bits, for one: JSON takes them
    parts = [payload]
    while parts:
        boxes = [part for part in parts if part.__class__ in _BOXES]
        if any(part.__class__ is float and part - part != 0 for part in parts):
            return True
        parts = [part for box in boxes for part in box]
        parts += [part for box in boxes if box.__class__ is dict for part in box.values()]
    return False
