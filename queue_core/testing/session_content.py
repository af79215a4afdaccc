"""`SessionSuite`, part 4: what a message carries comes back as it was sent."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

from typing import Any

import pytest

from queue_core.message import Settlement, find_reader
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.testing.session_tap import properties_of

HEADERS: dict[str, Any] = {
    "text": "plain",
    "unicode": "ünïcödé 日本 🐇",
    "empty": "",
    "zero": 0,
    "negative": -1,
    "int 32": 2**31 - 1,
    "beyond 32": 2**31,
    "int 64": 2**63 - 1,
    "least": -(2**63),
    "half": 0.5,
    "tiny": 1e-300,
    "true": True,
    "false": False,
    "nothing": None,
    "bytes": b"\x00\xff\x80",
    "list": [1, "two", None, [3.5, [True]], {"four": 4}],
    "dict": {"nested": {"deep": [{"x": 1}]}, "": "empty key"},
    "empty list": [],
    "empty dict": {},
    "key with spaces and ünïcödé": 1,
}


class ContentTests(SessionTests):
    """Bodies, headers, properties."""

    @pytest.mark.parametrize(
        "body",
        [b"", bytes(range(256)) * 3, b"\x00", "日本".encode(), b"x" * 2**20],
        ids=["empty", "all bytes", "nul", "utf-8", "1 MiB"],
    )
    def test_a_body_comes_back_unchanged(self, bench: Bench, body: bytes) -> None:
        queue = bench.queue()
        bench.send(queue, body)
        assert bench.tap(queue).one().body == body

    def test_many_large_bodies(self, bench: Bench) -> None:
        queue = bench.queue()
        bodies = [bytes([65 + number]) * 300_000 for number in range(8)]
        bench.send(queue, *bodies)
        bench.expect(queue, bodies)

    def test_headers_keep_their_types(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"", headers=HEADERS)
        got = properties_of(bench.tap(queue).one()).headers
        assert got == HEADERS
        wrong = {name: got[name] for name in HEADERS if type(got[name]) is not type(HEADERS[name])}
        assert not wrong

    def test_properties_come_back_unchanged(self, bench: Bench) -> None:
        queue = bench.queue()
        fields: dict[str, Any] = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "priority": 5,
            "correlation_id": "correlation ü",
            "reply_to": "reply.queue",
            "message_id": "message 1",
            "timestamp": 1_700_000_000.0,
            "type": "order.created",
            "app_id": "suite",
            "delivery_mode": 1,
        }
        bench.send(queue, b"", **fields)
        got = properties_of(bench.tap(queue).one())
        assert {name: getattr(got, name) for name in fields} == fields

    def test_content_is_told_without_decoding_everything(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(
            queue,
            b"",
            content_type="application/json",
            content_encoding="utf-8",
            headers={"compression": "application/x-gzip"},
        )
        bench.send(queue, b"")
        first, second = bench.tap(queue).take(2)
        assert first.reader.content(first.raw) == (
            "application/json",
            "utf-8",
            "application/x-gzip",
        )
        assert second.reader.content(second.raw) == ("", "", None)

    def test_headers_are_found_without_decoding_everything(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"", headers={"a": "x", "b": None, "c": [1, {"d": 2}], "e": 5})
        bench.send(queue, b"")
        first, second = bench.tap(queue).take(2)
        reader = find_reader(first.reader.home)
        assert reader.find(first.raw, ("e", "b", "none")) == {"b": None, "e": 5}
        assert reader.find(first.raw, ("c",)) == {"c": [1, {"d": 2}]}
        assert reader.find(first.raw, ()) == {}
        assert reader.find(second.raw, ("a",)) == {}
        assert reader.properties(first.raw) == first.reader.properties(first.raw)

    def test_properties_that_were_not_set_are_absent(self, bench: Bench) -> None:
        queue = bench.queue()
        publication = bench.publication(queue, b"")
        bench.publish(publication)
        got = properties_of(bench.tap(queue).one())
        assert got.headers == {}
        absent = (got.correlation_id, got.reply_to, got.type, got.user_id, got.expiration)
        assert absent == (None,) * 5
        # A transport may need one of its own to tell what was returned.
        assert got.message_id in (None, publication.id)

    def test_arguments_stay_as_the_caller_made_them(self, bench: Bench) -> None:
        queue = bench.queue()
        headers = {"a": [1, {"b": 2}]}
        publication = bench.publication(queue, b"x", headers=headers, priority=1)
        bench.publish(publication)
        assert publication.properties.headers is headers
        assert headers == {"a": [1, {"b": 2}]}
        delivery = bench.tap(queue).one()
        settlements = [Settlement(delivery)]
        bench.session.settle(settlements)
        assert len(settlements) == 1
