"""The frames of the hot path, against pika's own encoder and decoder."""

from __future__ import annotations

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame as pika_frame
from pika import spec

from queue_core.errors import TooLarge
from queue_core.message import Properties
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.frames import ContentReader
from queue_core.transports.amqp.properties import encode_properties

PLAIN = encode_properties(Properties())


def decoded(data: bytes) -> list[object]:
    """Return every frame of ``data`` as pika reads it."""
    found: list[object] = []
    while data:
        used, frame = pika_frame.decode_frame(data)
        assert used, "a frame is cut off"
        found.append(frame)
        data = data[used:]
    return found


def published(body: bytes, frame_max: int = 4096, *, mandatory: bool = True) -> list[object]:
    writer = frames.PublishWriter(7, frame_max)
    first = writer.frames("exchange", "kéy", PLAIN, body, mandatory)
    assert writer.frames("exchange", "kéy", PLAIN, body, mandatory) == first
    return decoded(first)


@pytest.mark.parametrize("mandatory", [True, False])
def test_a_publish_reads_as_pika_would_write_it(mandatory: bool) -> None:
    method, header, body = published(b"body", mandatory=mandatory)
    assert method.channel_number == header.channel_number == body.channel_number == 7
    assert isinstance(method.method, spec.Basic.Publish)
    assert (method.method.exchange, method.method.routing_key) == ("exchange", "kéy")
    assert method.method.mandatory is mandatory
    assert method.method.immediate is False
    assert header.body_size == 4
    assert header.properties.delivery_mode == 2
    assert body.fragment == b"body"


def test_names_that_are_no_unicode_are_written_as_they_were_read() -> None:
    writer = frames.PublishWriter(7, 4096)
    assert b"\x01\xe9" in writer.frames(
        "", b"\xe9".decode(errors="surrogateescape"), PLAIN, b"", True
    )


def test_an_empty_body_has_no_body_frame() -> None:
    assert [type(frame) for frame in published(b"")] == [pika_frame.Method, pika_frame.Header]


def test_properties_beyond_a_frame_are_refused_since_they_cannot_be_cut() -> None:
    writer, head = frames.PublishWriter(7, 4096), 12 + 8
    header = decoded(writer.frames("", "q", PLAIN.ljust(4096 - head), b"", True))[1]
    assert isinstance(header, pika_frame.Header)
    with pytest.raises(TooLarge, match="4077 bytes; the broker takes 4076"):
        writer.frames("", "q", PLAIN.ljust(4096 - head + 1), b"", True)


@given(size=st.integers(0, 3 * 4088 + 1))
def test_a_body_is_cut_to_the_frame_size_and_nothing_is_lost(size: int) -> None:
    body = bytes(range(256)) * 50
    pieces = [frame.fragment for frame in published(body[:size])[2:]]
    assert b"".join(pieces) == body[:size]
    assert all(0 < len(piece) <= 4096 - 8 for piece in pieces)
    assert len(pieces) == -(-size // 4088)


@pytest.mark.parametrize("multiple", [True, False])
def test_an_ack_reads_as_pika_would_write_it(multiple: bool) -> None:
    data = frames.ack(3, 2**40, multiple=multiple)
    assert data == pika_frame.Method(3, spec.Basic.Ack(2**40, multiple)).marshal()


@pytest.mark.parametrize("requeue", [True, False])
def test_a_reject_and_a_nack_read_as_pika_would_write_them(requeue: bool) -> None:
    assert (
        frames.reject(3, 9, requeue=requeue)
        == pika_frame.Method(3, spec.Basic.Reject(9, requeue)).marshal()
    )
    assert (
        frames.nack(3, 9, requeue=requeue)
        == pika_frame.Method(3, spec.Basic.Nack(9, False, requeue)).marshal()
    )


def test_a_short_string_has_a_limit_in_bytes() -> None:
    assert frames.short_string("é" * 127) == bytes([254]) + "é".encode() * 127
    with pytest.raises(ValueError, match="256 bytes"):
        frames.short_string("é" * 128)


class Heard:
    """Collects what a reader hands out."""

    def __init__(self) -> None:
        self.delivered: list[tuple[object, ...]] = []
        self.returned: list[tuple[object, ...]] = []
        self.confirmed: list[tuple[object, ...]] = []
        self.reader = ContentReader(
            on_deliver=lambda *found: self.delivered.append(found),
            on_return=lambda *found: self.returned.append(found),
            on_confirm=lambda *found: self.confirmed.append(found),
        )

    def feed(self, *found: pika_frame.Frame) -> list[bool]:
        answers = []
        for item in found:
            data = item.marshal()
            answers.append(self.reader.feed(data[0], data, 7, len(data) - 1))
        return answers


def header(size: int) -> pika_frame.Header:
    return pika_frame.Header(1, size, pika.BasicProperties(delivery_mode=2))


def test_a_delivery_is_put_together() -> None:
    heard = Heard()
    method = spec.Basic.Deliver("tag", 77, True, "exchange", "key")
    taken = heard.feed(
        pika_frame.Method(1, method),
        header(6),
        pika_frame.Body(1, b"abc"),
        pika_frame.Body(1, b"def"),
    )
    assert taken == [True] * 4
    assert heard.delivered == [(77, True, "exchange", "key", PLAIN, b"abcdef")]


def test_an_empty_delivery_ends_with_its_header() -> None:
    heard = Heard()
    heard.feed(pika_frame.Method(1, spec.Basic.Deliver("t", 1, False, "", "q")), header(0))
    assert heard.delivered == [(1, False, "", "q", PLAIN, b"")]


def test_deliveries_follow_one_another() -> None:
    heard = Heard()
    for number in range(3):
        heard.feed(
            pika_frame.Method(1, spec.Basic.Deliver("t", number, False, "", "q")),
            header(1),
            pika_frame.Body(1, b"%d" % number),
        )
    assert [found[5] for found in heard.delivered] == [b"0", b"1", b"2"]


def test_a_return_carries_reason_and_content() -> None:
    heard = Heard()
    heard.feed(
        pika_frame.Method(1, spec.Basic.Return(312, "NO_ROUTE", "exchange", "key")),
        header(4),
        pika_frame.Body(1, b"back"),
    )
    assert heard.returned == [(312, "NO_ROUTE", "exchange", "key", PLAIN, b"back")]


@pytest.mark.parametrize("multiple", [True, False])
def test_confirms_are_read(multiple: bool) -> None:
    heard = Heard()
    heard.feed(
        pika_frame.Method(1, spec.Basic.Ack(5, multiple)),
        pika_frame.Method(1, spec.Basic.Nack(6, multiple)),
    )
    assert heard.confirmed == [(5, multiple, True), (6, multiple, False)]


def test_other_frames_are_left_to_pika() -> None:
    heard = Heard()
    assert (
        heard.feed(
            pika_frame.Method(1, spec.Basic.QosOk()),
            pika_frame.Method(1, spec.Basic.Cancel("tag")),
            header(0),
            pika_frame.Body(1, b"x"),
        )
        == [False] * 4
    )


def test_a_body_longer_than_announced_is_an_error() -> None:
    heard = Heard()
    heard.feed(pika_frame.Method(1, spec.Basic.Deliver("t", 1, False, "", "q")), header(1))
    with pytest.raises(ValueError, match="longer body"):
        heard.feed(pika_frame.Body(1, b"xx"))
