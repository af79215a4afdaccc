"""Waking consumers of a PostgreSQL database: NOTIFY as the hint, a look as the safety net.

Each queue has a channel. A handle that waits listens to those of its queues on its own connection,
and stays so when it is busy, since LISTEN is a statement like any other. A hint carries no data.

Commits that notify go one after the other through the whole database, and each holds the others up
until it is on the disk. So a process lets a put send a hint only if it has sent none to that queue
for 10 milliseconds (`Throttle`). Within them, what is put into an empty queue gets its hint by a
statement of its own, which waits for no disk, and what is put behind other messages gets none,
unless the put took so long that it ended more than 20 ms after the last hint. Whoever was woken
looks once more after these 20 ms, and so does whoever has just begun to listen (`Listener`). So no
timer is needed on the side that sends, and a consumer that has listened quietly for 20 ms knows
that nothing has come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import psycopg

from queue_core.interrupt import Interrupt
from queue_core.transports.sql.dialects import Cursor
from queue_core.transports.sql.postgresql_server import Link

INTERVAL: Final = 0.010
"""Seconds between two hints by puts for one queue and process."""

LATEST: Final = 0.020
"""Seconds after a hint within which a put without one must have ended."""

_LATER: Final = LATEST + 0.002
_DEAF_POLL: Final = 0.1
_CHANNELS: Final = 10_000


def channel_of(queue: str, place: str) -> str:
    """Return the name of a queue's channel; ``place`` tells these tables from others."""
    digest = blake2b(f"{place} {queue}".encode("utf-8", "surrogatepass"), digest_size=12)
    return f"queue_core_{digest.hexdigest()}"


class Throttle:
    """When this process has last sent a hint to each channel. Thread-safe."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        """Nothing was sent."""
        self._sent: dict[str, float] = {}

    def due(self, channel: str, seconds: float = INTERVAL) -> bool:
        """Return whether it got no hint in the last ``seconds``."""
        return time.monotonic() - self._sent.get(channel, -math.inf) >= seconds

    def sent(self, channels: Iterable[str], at: float) -> None:
        """Note hints that are certain: their statement began at ``at`` and has succeeded."""
        if len(self._sent) > _CHANNELS:
            self._sent.clear()
        for channel in channels:
            self._sent[channel] = at


class Listener:
    """What one connection listens to. One thread at a time.

    Attributes:
        deaf: a pooler is between: no hint comes.
    """

    __slots__ = ("_channels", "_heard_at", "_hinted", "_link", "_looked_at", "_poll", "deaf")

    def __init__(self, link: Link, poll: float | None) -> None:
        """Listen to nothing yet; ``poll`` is in seconds, None for what suits the connection."""
        self._link = link
        self.deaf = link.prepare_threshold is None  # a pooler: LISTEN would reach nobody
        self._poll = poll or (_DEAF_POLL if self.deaf else math.inf)  # each claim looks, too
        self._channels: frozenset[str] = frozenset()
        self._hinted = False
        self._heard_at = self._looked_at = 0.0
        link.add_notify_handler(self._hear)

    def _hear(self, _: psycopg.Notify) -> None:
        self._hinted = True

    def listens_to(self, channels: Sequence[str]) -> bool:
        """Return whether it listens to these and to nothing else."""
        return self._channels == frozenset(channels)

    def listen(self, cursor: Cursor, channels: Sequence[str]) -> None:
        """Listen to these from now on, and note that a look follows."""
        wanted = frozenset(channels)
        if wanted != self._channels and not self.deaf:
            for channel in self._channels - wanted:
                cursor.execute(f"UNLISTEN {channel}")
            for channel in wanted - self._channels:
                cursor.execute(f"LISTEN {channel}")
            self._heard_at = time.monotonic()
        self._channels = wanted
        self._note_hint()
        self._hinted = False
        self._looked_at = time.monotonic()

    def wait(self, seconds: float, interrupt: Interrupt) -> bool:
        """Block until a look is worth it or it is interrupted, at most ``seconds``.

        Returns whether a look is worth it.
        """
        now = time.monotonic()
        end, look_at = now + seconds, now + self._poll
        if self._looked_at < self._heard_at + _LATER:
            look_at = min(look_at, self._heard_at + _LATER)
        while not interrupt.requested:
            self._consume()
            if self._hinted:
                self._note_hint()
                return True
            left = min(end, look_at) - time.monotonic()
            if left <= 0:
                return look_at <= end
            interrupt.wait(left, self._link.pgconn.socket)
        return False

    def _note_hint(self) -> None:
        if self._hinted:
            self._heard_at = time.monotonic()

    def _consume(self) -> None:
        pgconn = self._link.pgconn
        pgconn.consume_input()
        while pgconn.notifies() is not None:
            self._hinted = True
