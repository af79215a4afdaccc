"""Publishing with confirms: every publication gets a fate, and nobody waits without a deadline.

A connection of its own, since an alarm of the broker stops publishing connections as a whole, and
two channels in confirm mode. The broker answers a wrong publication, such as one that names a
missing exchange, by closing its channel. Who published it is told why; what became of everything
else that is outstanding there nobody knows. So exchanges that never answered use the second
channel, where they harm only one another, and what is known to be wrong is not sent at all.

Publications are encoded and sent by the calling thread, a piece at a time, so that the broker works
on the first while the next is encoded: a piece in which something cannot be carried is not sent,
and those before it are. The broker's answers are matched by sequence number (acks may come out of
order, and several in one) in the I/O thread. A return always precedes the ack of its message, which
then carries the final word.

A return has no sequence number. It is matched with the oldest mandatory publication not yet
returned that has the same exchange, key, properties and body, byte for byte: where two are equal
in all of these, it does not matter which. If none is (the broker takes a BCC header out), exchange
and key decide, since returns come in the order of publishing. So no message id is needed, and the
user's message stays as he made it.

The connection is made at the first publish and again by the first publish after its loss, never on
a schedule.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

from queue_core.errors import ConnectionLost, QueueCoreError, UsageError
from queue_core.message import Publication
from queue_core.transport import Outcome
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.channel import Channel
from queue_core.transports.amqp.direct_reply import PSEUDO_QUEUE, harmful
from queue_core.transports.amqp.errors import blames, translate, wrong_exchange
from queue_core.transports.amqp.io import Link
from queue_core.transports.amqp.properties import encode_properties

PIECE = 100
"""Publications that are encoded, and sent or refused, as one."""
LONGEST_EXPIRATION = (2**32 - 1) / 1000
"""Seconds; RabbitMQ closes the channel for more, some 49 days."""
_CONFIRMED = Outcome("confirmed")
_REFUSED = Outcome("refused", "the broker refused it: a queue is full, or cannot store it")

Prepared = tuple[str, str, bytes, bytes, bool]
"""Exchange, routing key, properties, body, mandatory."""


class Batch:
    """The publications of one call and what is known of each.

    Made by the caller's thread, which adds to ``items`` what it is about to send, and read by it
    once `wait` has returned; all else belongs to the I/O thread in between.
    """

    __slots__ = ("_done", "_left", "error", "items", "outcomes", "publications", "returned")

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        self.items: list[Prepared] = []
        self.outcomes: list[Outcome | None] = [None] * len(publications)
        self.returned: dict[int, str] = {}
        self.error: BaseException | None = None
        self._left = len(publications)
        self._done = threading.Lock()
        self._done.acquire()

    def settle(self, begin: int, end: int, *, accepted: bool) -> int:
        """Record the fates of ``items[begin:end]``; return how many had none yet.

        The last one wakes the caller.
        """
        outcomes = self.outcomes
        if accepted and not self.returned and outcomes[begin:end].count(None) == end - begin:
            outcomes[begin:end] = [_CONFIRMED] * (end - begin)
            new = end - begin
        else:
            new = 0
            for index in range(begin, end):
                if outcomes[index] is None:
                    outcomes[index] = self._fate(index, accepted)
                    new += 1
        self._left -= new
        if new and not self._left:
            self._wake()
        return new

    def _fate(self, index: int, accepted: bool) -> Outcome:
        if not accepted:
            return _REFUSED
        returned = self.returned.get(index)
        return _CONFIRMED if returned is None else Outcome("unroutable", returned)

    def fail(self, error: BaseException) -> None:
        """Wake the caller, if there is a fate that will not come any more."""
        if self._left:
            self.error = self.error or error
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake
            self._done.release()

    def wait(self, seconds: float) -> bool:
        """Return whether everything that will come has come."""
        return self._done.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Run:
    """Publications of one batch that were sent one after another, and which are not answered.

    ``items[begin + n]`` of the batch has the sequence number ``first + n``.
    """

    __slots__ = ("batch", "begin", "first", "last", "left")

    def __init__(self, batch: Batch, begin: int, first: int, count: int) -> None:
        self.batch = batch
        self.begin = begin
        self.first = first
        self.last = first + count - 1
        self.left = count

    def settle(self, low: int, high: int, *, accepted: bool) -> None:
        """Record the fate of the sequence numbers from ``low`` to ``high``."""
        offset = self.begin - self.first
        self.left -= self.batch.settle(low + offset, high + offset + 1, accepted=accepted)


class ConfirmChannel:
    """A channel in confirm mode and what is outstanding on it.

    All but ``open``, ``send`` and ``usable`` runs in the I/O thread.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Channel
        self._writer: frames.PublishWriter
        self._sending = threading.Lock()
        self._sequence = 0
        self._runs: deque[Run] = deque()
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
        self._writer = frames.PublishWriter(self._channel.number, link.connection.params.frame_max)
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
        """Send a batch in pieces. Those of other threads may come between them.

        Raises:
            ConnectionLost: the connection is over.
            UsageError: something in the next piece cannot be carried.
        """
        writer = self._writer
        for begin in range(0, len(batch.publications), PIECE):
            piece = [_prepared(one) for one in batch.publications[begin : begin + PIECE]]
            data = b"".join([writer.frames(*item) for item in piece])
            batch.items += piece
            # Once the end of the channel is noted, nothing may be written to it any more.
            with self._sending:
                if self._closed is not None:
                    batch.fail(self._closed)
                    return
                try:
                    self._runs.append(Run(batch, begin, self._sequence + 1, len(piece)))
                    self._sequence += len(piece)
                    self._link.write(data)
                except BaseException:
                    # Ctrl-C, say: nobody knows whether it was sent, and so how to count on.
                    self._link.cut()
                    raise

    def _on_closed(self, error: BaseException) -> None:
        """Channel or connection ended: nothing that is outstanding will be answered."""
        with self._sending:
            self._closed = error
        for run in self._runs:
            run.batch.fail(error)
        self._runs.clear()

    def _on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        runs = self._runs
        if multiple:
            for run in self._outstanding():
                if run.first > tag:
                    break
                run.settle(run.first, min(tag, run.last), accepted=accepted)
        else:
            found = next((run for run in self._outstanding() if tag <= run.last), None)
            if found is not None and found.first <= tag:
                found.settle(tag, tag, accepted=accepted)
        while runs and not runs[0].left:
            runs.popleft()

    def _outstanding(self) -> Iterator[Run]:
        """Yield the runs, oldest first, while other threads may add some."""
        return (self._runs[number] for number in range(len(self._runs)))

    def _on_return(
        self, code: int, text: str, exchange: str, key: str, raw: bytes, body: bytes
    ) -> None:
        found = self._returned(exchange, key, raw, body)
        if found is not None:
            batch, index = found
            batch.returned[index] = f"no queue took it: {code} {text}"

    def _returned(
        self, exchange: str, key: str, raw: bytes, body: bytes
    ) -> tuple[Batch, int] | None:
        """Find the publication that came back; the search goes on where the last one was found."""
        start = self._last_returned + 1
        alike: tuple[Batch, int] | None = None
        for sequence, batch, index in itertools.chain(
            self._unanswered(start, self._sequence), self._unanswered(0, start - 1)
        ):
            item = batch.items[index]
            if item[4] and item[0] == exchange and item[1] == key:
                if item[2] == raw and item[3] == body:
                    self._last_returned = sequence
                    return batch, index
                alike = alike or (batch, index)
        return alike

    def _unanswered(self, low: int, high: int) -> Iterator[tuple[int, Batch, int]]:
        """Yield number, batch and index of what has neither come back nor been answered."""
        for run in self._outstanding():
            batch, offset = run.batch, run.begin - run.first
            for sequence in range(max(low, run.first), min(high, run.last) + 1):
                index = sequence + offset
                if batch.outcomes[index] is None and index not in batch.returned:
                    yield sequence, batch, index


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
        batch = Batch(publications)
        exchanges = {publication.exchange for publication in publications}
        channel, link = self._ready(exchanges <= self._known, deadline)
        link.wait_unblocked(deadline)
        channel.send(batch)
        answered = batch.wait(max(0.0, deadline - monotonic()))
        if batch.error is not None:
            if wrong := wrong_exchange(batch.error):
                self._known.discard(wrong)
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
    """Return what to send; raises UsageError for what AMQP cannot carry, or RabbitMQ not take."""
    key, properties = publication.routing_key, publication.properties
    if key.startswith(PSEUDO_QUEUE) and harmful(key):
        key = PSEUDO_QUEUE  # nobody is there
    if properties.reply_to == PSEUDO_QUEUE:
        raise UsageError(
            f"reply_to={PSEUDO_QUEUE!r}: the channel that publishes would have to consume the "
            "answers; name a queue"
        )
    if properties.expiration is not None and properties.expiration > LONGEST_EXPIRATION:
        raise UsageError(
            f"the message's ttl of {properties.expiration:g} seconds is too long for RabbitMQ; use "
            f"at most {LONGEST_EXPIRATION:g}, or none"
        )
    return (
        publication.exchange,
        key,
        encode_properties(properties),
        publication.body,
        publication.mandatory,
    )


def _after_end(batch: Batch, error: BaseException) -> list[Outcome]:
    """Say what is known after channel or connection ended under a batch."""
    reason: QueueCoreError = translate(error, "publish", "basic_publish")
    if isinstance(reason, ConnectionLost):
        if not any(batch.outcomes):
            raise ConnectionLost(
                f"{reason}: whether the messages were stored is unknown"
            ) from error
    elif any(blames(error, publication) for publication in batch.publications):
        raise reason from error
    unknown = Outcome("unknown", str(reason))
    return [unknown if outcome is None else outcome for outcome in batch.outcomes]


def _ignore(frame: Any) -> None:
    """Stand where pika wants a confirm callback; the reader takes confirms before it."""
