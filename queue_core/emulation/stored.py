"""How a message's properties are kept in a store: one msgpack array, readable from the front.

A store sees opaque bytes. They begin with what the hot path needs, exchange and routing key,
followed by the compression and the properties, so that a delivery is made without decoding the
headers: `head` reads two strings and skips the rest, and `StoredReader.content` three more. New
fields go to the end of an array; older readers ignore them and newer readers have defaults.

The rules: what was encoded here is decoded here and nowhere else, and damaged bytes are a
`DecodeError`, never a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from queue_core.errors import ConfigError, DecodeError
from queue_core.message import Headers, Properties

__all__ = ["READER", "Head", "StoredReader", "encode", "head", "load"]


class Head(msgspec.Struct, array_like=True):
    """The first two fields: where a message was published to."""

    exchange: str
    routing_key: str


class _Content(msgspec.Struct, array_like=True):
    """The first two of the properties."""

    content_type: str = ""
    content_encoding: str = ""


class _Body(msgspec.Struct, array_like=True):
    """What is needed to decode a body."""

    exchange: str
    routing_key: str
    compression: str | None
    content: _Content


class Stored(msgspec.Struct, array_like=True):
    """Everything."""

    exchange: str
    routing_key: str
    compression: str | None
    properties: Properties


# msgspec lets through what its parts raise for text that is not UTF-8 and the like.
_BAD: Final = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_head = msgspec.msgpack.Decoder(Head)
_body = msgspec.msgpack.Decoder(_Body)
_stored = msgspec.msgpack.Decoder(Stored)


def encode(exchange: str, routing_key: str, properties: Properties) -> bytes:
    """Return the bytes to keep for a message.

    Raises:
        ConfigError: a header holds something that cannot be stored.
    """
    compression = properties.headers.get("compression")
    if compression is not None and not isinstance(compression, str):
        compression = None
    try:
        return _encoder.encode(Stored(exchange, routing_key, compression, properties))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"the headers of a message to exchange {exchange!r} with routing key {routing_key!r}"
            f" cannot be stored: {error}; use strings, numbers, bytes, lists and dicts"
        ) from error


def head(raw: bytes) -> Head:
    """Return exchange and routing key. Raises DecodeError for damaged bytes."""
    try:
        return _head.decode(raw)
    except _BAD as error:
        raise _damaged(error) from error


def load(raw: bytes) -> Stored:
    """Return everything. Raises DecodeError for damaged bytes."""
    try:
        return _stored.decode(raw)
    except _BAD as error:
        raise _damaged(error) from error


class StoredReader:
    """The `PropertyReader` of every store."""

    __slots__ = ()
    home: str = f"{__name__}:READER"

    def content(self, raw: bytes) -> tuple[str, str, str | None]:
        """Return content type, content encoding and compression; headers stay undecoded."""
        try:
            found = _body.decode(raw)
        except _BAD as error:
            raise _damaged(error) from error
        return found.content.content_type, found.content.content_encoding, found.compression

    def find(self, raw: bytes, names: Sequence[str]) -> Headers:
        """Return those of the headers that are there; decoding all is cheaper than looking."""
        headers = load(raw).properties.headers
        return {name: headers[name] for name in names if name in headers}

    def properties(self, raw: bytes) -> Properties:
        """Decode everything. Raises DecodeError for damaged bytes."""
        return load(raw).properties


READER = StoredReader()


def _damaged(error: Exception) -> DecodeError:
    return DecodeError(f"the stored properties of a message are damaged: {error}")
