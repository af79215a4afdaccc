"""The properties of a message as AMQP bytes, both ways.

A delivery keeps the property list exactly as the broker sent it; `AmqpPropertyReader` reads it
when somebody asks, and finds content type, encoding and compression without decoding the headers.
Writing is the reverse, once per publication.

What AMQP carries coarser than `Properties`: ``timestamp`` is whole seconds, ``expiration`` whole
milliseconds (rounded up, so that a ttl is never shorter than asked). ``delivery_mode`` is always
sent; a message without it is transient (1), as for every other client.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

from queue_core.errors import DecodeError, UsageError
from queue_core.message import Headers, Properties
from queue_core.transports.amqp.direct_reply import harmful
from queue_core.transports.amqp.frames import short_string
from queue_core.transports.amqp.tables import (
    DAMAGED,
    decode_table,
    encode_table,
    find_text,
    find_values,
)

_CONTENT_TYPE: Final = 1 << 15
_CONTENT_ENCODING: Final = 1 << 14
_HEADERS: Final = 1 << 13
_DELIVERY_MODE: Final = 1 << 12
_PRIORITY: Final = 1 << 11
_CORRELATION_ID: Final = 1 << 10
_REPLY_TO: Final = 1 << 9
_EXPIRATION: Final = 1 << 8
_MESSAGE_ID: Final = 1 << 7
_TIMESTAMP: Final = 1 << 6
_TYPE: Final = 1 << 5
_USER_ID: Final = 1 << 4
_APP_ID: Final = 1 << 3
_CLUSTER_ID: Final = 1 << 2

_ROUTES: Final = ("CC", "BCC")
"""Headers that RabbitMQ routes by."""

_FLAGS: Final = Struct(">H")
_U64: Final = Struct(">Q")


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, rounded up but for what is less than a microsecond."""
    return max(0, math.ceil(round(seconds * 1000, 3)))


def encode_properties(properties: Properties) -> bytes:
    """Return the property list (flags and values) for a content header.

    Raises:
        UsageError: something does not fit: a text over 255 bytes, a header type that AMQP does not
            have.
    """
    flags, content = _encode_content(properties.content_type, properties.content_encoding)
    parts: list[bytes] = [b"", content]
    if properties.headers:
        flags |= _HEADERS
        _check_routes(properties.headers)
        parts.append(encode_table(properties.headers))
    parts.append(_octet("delivery_mode", properties.delivery_mode))
    if properties.priority:
        flags |= _PRIORITY
        parts.append(_octet("priority", properties.priority))
    if properties.correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(_short("correlation_id", properties.correlation_id))
    if properties.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(_short("reply_to", properties.reply_to))
    if properties.expiration is not None:
        flags |= _EXPIRATION
        parts.append(short_string(str(milliseconds(properties.expiration))))
    if properties.message_id is not None:
        flags |= _MESSAGE_ID
        parts.append(_short("message_id", properties.message_id))
    if properties.timestamp is not None:
        flags |= _TIMESTAMP
        if not 0 <= properties.timestamp < 2**63:
            raise UsageError(f"the message's timestamp {properties.timestamp!r} is not a Unix time")
        parts.append(_U64.pack(int(properties.timestamp)))
    if properties.type is not None:
        flags |= _TYPE
        parts.append(_short("type", properties.type))
    if properties.user_id is not None:
        flags |= _USER_ID
        parts.append(_short("user_id", properties.user_id))
    if properties.app_id is not None:
        flags |= _APP_ID
        parts.append(_short("app_id", properties.app_id))
    parts[0] = _FLAGS.pack(flags)
    return b"".join(parts)


@functools.lru_cache(maxsize=256)
def _encode_content(content_type: str, content_encoding: str) -> tuple[int, bytes]:
    """Return the flags so far and the first two values; a program uses few of these pairs."""
    flags, parts = _DELIVERY_MODE, b""
    if content_type:
        flags |= _CONTENT_TYPE
        parts += _short("content_type", content_type)
    if content_encoding:
        flags |= _CONTENT_ENCODING
        parts += _short("content_encoding", content_encoding)
    return flags, parts


def _check_routes(headers: Headers) -> None:
    """Raise UsageError for what RabbitMQ would close the channel or the connection for."""
    for name in _ROUTES:
        if name not in headers:
            continue
        keys = headers[name]
        if not isinstance(keys, list | tuple):
            raise UsageError(
                f"AMQP header {name!r} is a list of routing keys for RabbitMQ, not "
                f"{keys!r:.60}; give it another name"
            )
        for key in keys:
            if isinstance(key, str) and harmful(key):
                raise UsageError(
                    f"AMQP header {name!r} has the routing key {key!r:.60}, a damaged address for "
                    "RabbitMQ's direct replies; leave it out"
                )


def _short(what: str, text: str) -> bytes:
    try:
        return short_string(text)
    except UnicodeEncodeError:
        raise UsageError(f"the message's {what} is not valid Unicode") from None
    except ValueError as error:
        raise UsageError(f"the message's {what} has {error}") from None


def _octet(what: str, value: int) -> bytes:
    if not 0 <= value <= 255:
        raise UsageError(f"the message's {what} is {value}; AMQP carries 0 to 255")
    return bytes((value,))


def decode_properties(raw: bytes) -> Properties:
    """Read a property list. Raises DecodeError for damaged bytes."""
    try:
        return _decode(raw)
    except DAMAGED as error:
        raise DecodeError(f"damaged AMQP properties: {error}") from error


def _decode(raw: bytes) -> Properties:
    (flags,) = _FLAGS.unpack_from(raw)
    if flags & 3:
        raise ValueError("unknown property flags")
    values: dict[str, Any] = {"delivery_mode": 1}
    at = 2
    if flags & _CONTENT_TYPE:
        values["content_type"], at = _text(raw, at)
    if flags & _CONTENT_ENCODING:
        values["content_encoding"], at = _text(raw, at)
    if flags & _HEADERS:
        values["headers"], at = decode_table(raw, at)
    if flags & _DELIVERY_MODE:
        values["delivery_mode"], at = raw[at], at + 1
    if flags & _PRIORITY:
        values["priority"], at = raw[at], at + 1
    if flags & _CORRELATION_ID:
        values["correlation_id"], at = _text(raw, at)
    if flags & _REPLY_TO:
        values["reply_to"], at = _text(raw, at)
    if flags & _EXPIRATION:
        text, at = _text(raw, at)
        values["expiration"] = int(text) / 1000
    if flags & _MESSAGE_ID:
        values["message_id"], at = _text(raw, at)
    if flags & _TIMESTAMP:
        values["timestamp"], at = float(_U64.unpack_from(raw, at)[0]), at + 8
    if flags & _TYPE:
        values["type"], at = _text(raw, at)
    if flags & _USER_ID:
        values["user_id"], at = _text(raw, at)
    if flags & _APP_ID:
        values["app_id"], at = _text(raw, at)
    if flags & _CLUSTER_ID:
        _, at = _text(raw, at)
    if at != len(raw):
        raise ValueError("it has another length than its flags say")
    return Properties(**values)


def _text(raw: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + raw[at]
    if end > len(raw):
        raise ValueError("it is cut off")
    return raw[at + 1 : end].decode("utf-8", "surrogateescape"), end


class AmqpPropertyReader:
    """Reads the raw property list of a delivery when somebody asks."""

    __slots__ = ()
    home: str = f"{__name__}:READER"

    def content(self, raw: bytes) -> tuple[str, str, str | None]:
        """Return content type, encoding and compression; headers are walked, not decoded."""
        try:
            (flags,) = _FLAGS.unpack_from(raw)
            at = 2
            content_type = content_encoding = ""
            if flags & _CONTENT_TYPE:
                content_type, at = _text(raw, at)
            if flags & _CONTENT_ENCODING:
                content_encoding, at = _text(raw, at)
            compression = find_text(raw, at, b"compression") if flags & _HEADERS else None
        except DAMAGED as error:
            raise DecodeError(f"damaged AMQP properties: {error}") from error
        return content_type, content_encoding, compression

    def find(self, raw: bytes, names: Sequence[str]) -> Headers:
        """Return those of the headers that are there; the table is walked as far as needed."""
        try:
            (flags,) = _FLAGS.unpack_from(raw)
            if not flags & _HEADERS:
                return {}
            at = 2
            for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
                if flags & flag:
                    at += 1 + raw[at]
            return find_values(raw, at, names)
        except DAMAGED as error:
            raise DecodeError(f"damaged AMQP properties: {error}") from error

    def properties(self, raw: bytes) -> Properties:
        """Decode everything."""
        return decode_properties(raw)


READER: Final = AmqpPropertyReader()
