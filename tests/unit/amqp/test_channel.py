"""The end of a channel: who hears of it, and in which order."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from queue_core.transports.amqp.channel import Channel


def test_what_the_end_means_is_noted_before_anybody_who_waits_hears_of_it() -> None:
    """Else a flush is answered before it is known that nothing was proved."""
    happened: list[str] = []
    link: Any = SimpleNamespace(on_end=set())
    channel = Channel(link, None, lambda reason: happened.append("noted"))
    channel._raw = SimpleNamespace(basic_qos=lambda callback: None)
    waiting: Future[Any] = Future()
    waiting.add_done_callback(lambda _: happened.append("told"))
    channel.request("basic_qos", {}, waiting)
    channel.end(ConnectionError("gone"))
    assert happened == ["noted", "told"]
    assert isinstance(waiting.exception(), ConnectionError)
