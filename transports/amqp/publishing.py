"""Publishing with confirms: every publication gets a fate, and nobody waits without a deadline.

A connection of its own, since an alarm of the broker stops publishing connections as a whole, and
two channels in confirm mode. The broker closes a channel on which a missing exchange is named, and
then nobody knows what became of everything that is outstanding on it. So exchanges that never
answered use the second channel, where they harm only one another.

All publications of a call leave in one burst; the broker's answers are matched by sequence number
(acks may come out of order, and several in one). A return always precedes the ack of its message,
which then carries the final word.

A return has no sequence number. It is matched with the oldest mandatory publication not yet
returned that has the same exchange, key, properties and body, byte for byte: where two are equal
in all of these, it does not matter which. If none is (the broker takes a BCC header out), exchange
and key decide, since returns come in the order of publishing. So no message id is needed, and the
user's message stays as he made it.

The connection is made at the first publish and again by the first publish after its loss, never on
a schedule.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from queue_core.errors import ConnectionLost, QueueCoreError, UsageError
from queue_core.message import Publication
from queue_core.transport import Outcome
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.channel import Channel
from queue_core.transports.amqp.errors import missing_exchange, translate
from queue_core.transports.amqp.io import Link
from queue_core.transports.amqp.properties import encode_properties

_TURN = 500
_CONFIRMED = Outcome("confirmed")

Prepared = tuple[str, str, bytes, bytes, bool]
"""Exchange, routing key, properties, body, mandatory."""


class Batch:
    """The publications of one call and what is known of each."""

    __slots__ = ("_done", "_left", "error", "items", "outcomes", "position")

    def __init__(self, items: Sequence[Prepared]) -> None:
        self.items = items
        self.outcomes: list[Outcome | None] = [None] * len(items)
        self.position = 0
        self.error: BaseException | None = None
        self._left = len(items)
        self._done = threading.Event()

    def settle(self, index: int, outcome: Outcome) -> None:
        """Record a fate; the last one wakes the caller."""
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self._left -= 1
            if not self._left:
                self._done.set()

    def fail(self, error: BaseException) -> None:
        """Wake the caller: nothing more will come."""
        self.error = self.error or error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Return whether everything that will come has come."""
        return self._done.wait(seconds)


class Pending:
    """One publication on its way."""

    __slots__ = ("batch", "index", "returned")

    def __init__(self, batch: Batch, index: int) -> None:
        self.batch = batch
        self.index = index
        self.returned: str | None = None


class ConfirmChannel:
    """A channel in confirm mode and what is outstanding on it.

    All but ``open``, ``send`` and ``usable`` runs in the I/O thread.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Channel
        self._sequence = 0
        self._outstanding: dict[int, Pending] = {}
        self._last_returned = 0
        self._closed: BaseException | None = None

    @classmethod
    def open(cls, link: Link, deadline: float) -> ConfirmChannel:
        """Open it on ``link``."""
        self = cls(link)
        reader = frames.ContentReader(on_return=self._on_return, on_confirm=self._on_confirm)
        doing = "open a channel for publishing"
        self._channel = Channel.open(
            link, deadline, doing, reader=reader, on_closed=self._on_closed
        )
        try:
            self._channel.rpc("confirm_delivery", deadline, doing, ack_nack_callback=_ignore)
        except BaseException:
            self._channel.close()
            raise
        return self

    @property
    def usable(self) -> bool:
        """Neither channel nor connection has ended."""
        return self._closed is None and not self._link.ended

    def send(self, batch: Batch) -> None:
        """Hand a batch to the I/O thread."""
        self._link.submit(partial(self._send, batch))

    def _on_closed(self, error: BaseException) -> None:
        """Channel or connection ended: nothing that is outstanding will be answered."""
        self._closed = error
        outstanding, self._outstanding = self._outstanding, {}
        for batch in {
            id(pending.batch): pending.batch for pending in outstanding.values()
        }.values():
            batch.fail(error)

    def _send(self, batch: Batch) -> None:
        if self._closed is not None:
            batch.fail(self._closed)
            return
        connection = self._link.connection
        number, frame_max = self._channel.number, connection.params.frame_max
        end = min(len(batch.items), batch.position + _TURN)
        for index in range(batch.position, end):
            exchange, key, properties, body, mandatory = batch.items[index]
            data = frames.publish(
                number,
                frames.short_string(exchange),
                frames.short_string(key),
                mandatory=mandatory,
                properties=properties,
                body=body,
                frame_max=frame_max,
            )
            self._sequence += 1
            self._outstanding[self._sequence] = Pending(batch, index)
            connection.emit(data)
        batch.position = end
        if end < len(batch.items):
            try:
                self._link.submit(partial(self._send, batch))
            except QueueCoreError as error:
                batch.fail(self._closed or error)

    def _on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        outstanding = self._outstanding
        if not multiple:
            pending = outstanding.pop(tag, None)
            if pending is not None:
                self._answered(pending, accepted)
            return
        while outstanding:
            first = next(iter(outstanding))
            if first > tag:
                return
            self._answered(outstanding.pop(first), accepted)

    def _answered(self, pending: Pending, accepted: bool) -> None:
        batch, index = pending.batch, pending.index
        if not accepted:
            batch.settle(
                index,
                Outcome("refused", "the broker refused it: a queue is full, or cannot store it"),
            )
        elif pending.returned is not None:
            batch.settle(index, Outcome("unroutable", pending.returned))
        else:
            batch.settle(index, _CONFIRMED)

    def _on_return(
        self, code: int, text: str, exchange: str, key: str, raw: bytes, body: bytes
    ) -> None:
        pending = self._returned(exchange, key, raw, body)
        if pending is not None:
            pending.returned = f"no queue took it: {code} {text}"

    def _returned(self, exchange: str, key: str, raw: bytes, body: bytes) -> Pending | None:
        """Find the publication that came back; the search goes on where the last one was found."""
        first = next(iter(self._outstanding), 0)
        start = max(first, self._last_returned + 1)
        alike: int | None = None
        for sequence in itertools.chain(range(start, self._sequence + 1), range(first, start)):
            pending = self._outstanding.get(sequence)
            if pending is None or pending.returned is not None:
                continue
            item = pending.batch.items[pending.index]
            if item[4] and item[0] == exchange and item[1] == key:
                if item[2] == raw and item[3] == body:
                    self._last_returned = sequence
                    return pending
                alike = sequence if alike is None else alike
        return self._outstanding[alike] if alike is not None else None


class Publisher:
    """What a session publishes with. Thread-safe."""

    def __init__(self, make_link: Callable[[], Link]) -> None:
        """``make_link()`` makes an unopened link; it is opened at the first publish."""
        self._make_link = make_link
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._channels: dict[bool, ConfirmChannel] = {}
        self._known = {""}
        self._closed = False

    def publish(self, publications: Sequence[Publication], timeout: float) -> list[Outcome]:
        """Send all and return each one's outcome; see `Session.publish`."""
        if not publications:
            return []
        deadline = monotonic() + timeout
        batch = Batch([_prepared(publication) for publication in publications])
        exchanges = {item[0] for item in batch.items}
        channel, link = self._ready(exchanges <= self._known, deadline)
        link.wait_unblocked(deadline)
        channel.send(batch)
        answered = batch.wait(max(0.0, deadline - monotonic()))
        if batch.error is not None:
            if missing := missing_exchange(batch.error):
                self._known.discard(missing)
            return _after_end(batch, batch.error)
        if answered:
            self._known |= exchanges
        detail = f"no confirmation from the broker at {link.where} within {timeout:g} seconds"
        if not answered and link.blocked:
            detail += "; it takes no messages now (memory or disk alarm)"
        unknown = Outcome("unknown", detail)
        return [unknown if outcome is None else outcome for outcome in batch.outcomes]

    def close(self, timeout: float) -> None:
        """End the connection, if there is one; what is outstanding is unknown."""
        self._closed = True
        link = self._link
        if link is not None:
            link.close(timeout)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        self._closed = True
        if self._link is not None:
            self._link.abandon()

    def cut(self) -> None:
        """Drop the connection without a word; for tests."""
        if self._link is not None:
            self._link.cut()

    def _ready(self, known: bool, deadline: float) -> tuple[ConfirmChannel, Link]:
        if not self._lock.acquire(timeout=max(0.0, deadline - monotonic())):
            raise ConnectionLost("publish: the connection to the broker is still being made")
        try:
            link = self._link
            if link is None or link.ended:
                self._check_open()
                link = self._make_link()
                link.open(max(0.0, deadline - monotonic()))
                self._link = link
                self._channels.clear()
            if self._closed:
                link.close(1.0)
            self._check_open()
            channel = self._channels.get(known)
            if channel is None or not channel.usable:
                channel = self._channels[known] = ConfirmChannel.open(link, deadline)
            return channel, link
        finally:
            self._lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost("publish: the session is closed")


def _prepared(publication: Publication) -> Prepared:
    for what, text in (
        ("exchange name", publication.exchange),
        ("routing key", publication.routing_key),
    ):
        try:
            frames.short_string(text)
        except ValueError as error:
            raise UsageError(f"the {what} {text[:40]!r} cannot be sent: {error}") from error
    return (
        publication.exchange,
        publication.routing_key,
        encode_properties(publication.properties),
        publication.body,
        publication.mandatory,
    )


def _after_end(batch: Batch, error: BaseException) -> list[Outcome]:
    """Say what is known after channel or connection ended under a batch."""
    missing = missing_exchange(error)
    named = missing is None or any(item[0] == missing for item in batch.items)
    reason: QueueCoreError = translate(error, "publish")
    if not isinstance(reason, ConnectionLost) and named:
        raise reason from error
    if not any(batch.outcomes):
        raise ConnectionLost(f"{reason}; whether the messages were stored is unknown") from error
    unknown = Outcome("unknown", str(reason))
    return [unknown if outcome is None else outcome for outcome in batch.outcomes]


def _ignore(frame: Any) -> None:
    """Stand where pika wants a confirm callback; the reader takes confirms before it."""
