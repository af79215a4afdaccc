"""Whether the I/O thread had its turns, so that the broker cannot have given the process up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from queue_core.transport import SessionOptions
from queue_core.transports.amqp import io
from queue_core.transports.amqp.options import read_settings
from queue_core.url import parse

HEARTBEAT = 2


class Loop:
    """Remembers what is to be called later, and calls it when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        self.later.append((self.now + seconds, work))

    def go_on(self, until: float) -> None:
        """Pass the time, with a turn whenever something is due."""
        while self.later and self.later[0][0] <= until:
            due, work = self.later.pop(0)
            self.now = max(self.now, due)
            work()
        self.now = until


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(io, "monotonic", lambda: loop.now)
    return loop


@pytest.fixture
def link(loop: Loop) -> io.Link:
    """Connected, as far as the watch can see; the broker says something whenever it looks."""
    link = io.Link(read_settings(parse("amqp://localhost"), SessionOptions()), "consuming")
    heard = iter(range(10**6))
    connection = type(
        "Connection",
        (),
        {
            "ioloop": loop,
            "params": SimpleNamespace(heartbeat=HEARTBEAT),
            "bytes_received": property(lambda self: next(heard)),
        },
    )
    link._on_open(connection())
    return link


def test_a_link_whose_thread_has_its_turns_is_awake(link: io.Link, loop: Loop) -> None:
    for second in range(1, 100):
        loop.go_on(second)
        assert link.awake


def test_after_standing_still_it_reads_what_came_before_it_is_awake_again(
    link: io.Link, loop: Loop
) -> None:
    loop.go_on(10.0)
    loop.now = 10.0 + 2 * HEARTBEAT  # nobody had a turn
    assert not link.awake
    loop.go_on(loop.now)
    assert not link.awake
    loop.go_on(loop.now + 0.1)
    assert link.awake
