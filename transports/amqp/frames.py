"""The AMQP 0-9-1 frames of the hot path: publish and settle out, deliveries and confirms in.

pika speaks the rest of the protocol (handshake, heartbeats, every request with an answer). It
spends most of its time per message in general-purpose callbacks and in decoding the header table,
which a consumer rarely looks at. So these frames are written and read here: property tables stay
raw bytes in both directions.

The rules: pure, no I/O, no pika; all integers are big-endian (specification section 4.2); a reader
takes whole frames only and says whether a frame was its own, so that pika still gets everything
else.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from queue_core.errors import TooLarge, UsageError

METHOD_FRAME: Final = 1
HEADER_FRAME: Final = 2
BODY_FRAME: Final = 3
FRAME_END: Final = 0xCE
FRAME_OVERHEAD: Final = 8

FRAME_HEAD: Final = Struct(">BHI")
_PUBLISH_HEAD: Final = Struct(">BHIHHH")
_CONTENT_HEAD: Final = Struct(">BHIHHQ")
_END_AND_BODY: Final = Struct(">BBHI")
_SETTLE: Final = Struct(">BHIHHQBB")
_METHOD_ID: Final = Struct(">I")
_TAG_AND_FLAG: Final = Struct(">QB")
_BODY_SIZE: Final = Struct(">Q")

_BASIC: Final = 60
_DELIVER: Final = 60 << 16 | 60
_RETURN: Final = 60 << 16 | 50
_ACK: Final = 60 << 16 | 80
_NACK: Final = 60 << 16 | 120
_END: Final = b"\xce"

_FIXED: Final = 12
"""Bytes of a content header's payload before the properties."""
_MOST_HEADS: Final = 1024
"""Pairs of exchange and routing key of which the first frame is kept; programs use few."""


def short_string(text: str) -> bytes:
    """Return ``text`` as a short string: a length byte and up to 255 bytes; else ValueError.

    What was read from bytes that are no UTF-8 becomes these bytes again.
    """
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError(f"{len(data)} bytes where AMQP allows 255")
    return bytes((len(data),)) + data


def _name(what: str, text: str) -> bytes:
    try:
        return short_string(text)
    except ValueError as error:
        raise UsageError(f"the {what} {text[:40]!r} cannot be sent: {error}") from error


class PublishWriter:
    """Writes one channel's publications as frames: method, content header, and the body.

    What messages have in common is encoded once. Thread-safe.
    """

    __slots__ = ("_channel", "_heads", "_size")

    def __init__(self, channel: int, frame_max: int) -> None:
        """Bodies go in frames of ``frame_max`` bytes."""
        self._channel = channel
        self._size = frame_max - FRAME_OVERHEAD
        self._heads: dict[tuple[str, str, bool], bytes] = {}

    def frames(
        self, exchange: str, routing_key: str, properties: bytes, body: bytes, mandatory: bool
    ) -> bytes:
        """Return one publication; ``properties`` is the encoded property list.

        Raises:
            UsageError: AMQP cannot carry the exchange's name or the key.
            TooLarge: the properties do not go into one frame; the broker would end the connection.
        """
        head = self._heads.get((exchange, routing_key, mandatory))
        if head is None:
            head = self._head(exchange, routing_key, mandatory)
        channel, length, room = self._channel, len(body), self._size - _FIXED
        if len(properties) > room:
            raise TooLarge(
                f"the message's headers and properties take {len(properties)} bytes; the broker "
                f"takes {room} (frame_max); put large data into the body"
            )
        head_size = _FIXED + len(properties)
        content = _CONTENT_HEAD.pack(HEADER_FRAME, channel, head_size, _BASIC, 0, length)
        if length <= self._size:
            if not body:
                return b"".join((head, content, properties, _END))
            size = _END_AND_BODY.pack(FRAME_END, BODY_FRAME, channel, length)
            return b"".join((head, content, properties, size, body, _END))
        parts = [head, content, properties, _END]
        for start in range(0, length, self._size):
            piece = body[start : start + self._size]
            parts += (FRAME_HEAD.pack(BODY_FRAME, channel, len(piece)), piece, _END)
        return b"".join(parts)

    def _head(self, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        names = _name("exchange name", exchange) + _name("routing key", routing_key)
        size = 7 + len(names)
        head = _PUBLISH_HEAD.pack(METHOD_FRAME, self._channel, size, _BASIC, 40, 0)
        head += names + (b"\x01\xce" if mandatory else b"\x00\xce")
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[exchange, routing_key, mandatory] = head
        return head


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Return a basic.ack; ``multiple`` acks every unsettled delivery up to ``tag``."""
    return _SETTLE.pack(METHOD_FRAME, channel, 13, _BASIC, 80, tag, multiple, FRAME_END)


def reject(channel: int, tag: int, *, requeue: bool) -> bytes:
    """Return a basic.reject."""
    return _SETTLE.pack(METHOD_FRAME, channel, 13, _BASIC, 90, tag, requeue, FRAME_END)


def nack(channel: int, tag: int, *, requeue: bool) -> bytes:
    """Return a basic.nack of one delivery."""
    return _SETTLE.pack(METHOD_FRAME, channel, 13, _BASIC, 120, tag, requeue << 1, FRAME_END)


OnDeliver = Callable[[int, bool, str, str, bytes, bytes], None]
"""Called with delivery tag, redelivered, exchange, routing key, raw properties, body."""

OnReturn = Callable[[int, str, str, str, bytes, bytes], None]
"""Called with reply code, reply text, exchange, routing key, raw properties, body."""

OnConfirm = Callable[[int, bool, bool], None]
"""Called with delivery tag, multiple, and whether it is an ack (else a nack)."""


class ContentReader:
    """Reads one channel's deliveries, returns and confirms out of whole frames.

    Handlers run inside ``feed``, on the thread that reads the socket.
    """

    __slots__ = (
        "_deliver",
        "_on_confirm",
        "_on_deliver",
        "_on_return",
        "_pieces",
        "_raw",
        "_room",
        "_size",
        "_start",
    )

    def __init__(
        self,
        *,
        on_deliver: OnDeliver | None = None,
        on_return: OnReturn | None = None,
        on_confirm: OnConfirm | None = None,
    ) -> None:
        self._on_deliver = on_deliver
        self._on_return = on_return
        self._on_confirm = on_confirm
        self._start: tuple[int, int | str, str, str] | None = None
        self._deliver = False
        self._raw = b""
        self._size = 0
        self._room = 0
        self._pieces: list[bytes] = []

    def feed(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Take the frame with the payload ``data[start:end]``; return False if it is not ours."""
        if kind == METHOD_FRAME:
            return self._method(data, start, end)
        if self._start is None:
            return False
        if kind == HEADER_FRAME:
            (self._size,) = _BODY_SIZE.unpack_from(data, start + 4)
            self._raw = data[start + 12 : end]
            self._room = self._size
            if self._size == 0:
                self._finished(b"")
            return True
        if kind == BODY_FRAME:
            piece = data[start:end]
            self._room -= len(piece)
            if self._room < 0:
                raise ValueError("the broker sent a longer body than it had announced")
            if self._room:
                self._pieces.append(piece)
            elif self._pieces:
                self._pieces.append(piece)
                body = b"".join(self._pieces)
                self._pieces = []
                self._finished(body)
            else:
                self._finished(piece)
            return True
        return False

    def _method(self, data: bytes, start: int, end: int) -> bool:
        (method,) = _METHOD_ID.unpack_from(data, start)
        if method == _DELIVER and self._on_deliver is not None:
            at = start + 5 + data[start + 4]
            tag, redelivered = _TAG_AND_FLAG.unpack_from(data, at)
            exchange, at = _text(data, at + 9)
            key, _ = _text(data, at)
            self._start = (tag, redelivered, exchange, key)
            self._deliver = True
            return True
        if method in (_ACK, _NACK) and self._on_confirm is not None:
            tag, flags = _TAG_AND_FLAG.unpack_from(data, start + 4)
            self._on_confirm(tag, bool(flags & 1), method == _ACK)
            return True
        if method == _RETURN and self._on_return is not None:
            text, at = _text(data, start + 6)
            exchange, at = _text(data, at)
            key, _ = _text(data, at)
            code = int.from_bytes(data[start + 4 : start + 6], "big")
            self._start = (code, text, exchange, key)
            self._deliver = False
            return True
        return False

    def _finished(self, body: bytes) -> None:
        begun, self._start = self._start, None
        assert begun is not None
        number, second, exchange, key = begun
        if self._deliver:
            assert self._on_deliver is not None
            self._on_deliver(number, bool(second), exchange, key, self._raw, body)
        else:
            assert self._on_return is not None
            self._on_return(number, str(second), exchange, key, self._raw, body)


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Read a short string; what is not UTF-8 is kept as surrogates, so that nothing is lost."""
    begin = at + 1
    end = begin + data[at]
    return data[begin:end].decode("utf-8", "surrogateescape"), end
