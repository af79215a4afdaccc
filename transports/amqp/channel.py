"""One channel, as threads other than the I/O thread see it.

The broker answers a wrong request by closing the channel. Then ``on_closed`` is called once,
everybody who waits for an answer on it gets the reason, and the channel is not used again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from pika.exceptions import AMQPError

from queue_core.transports.amqp.frames import ContentReader
from queue_core.transports.amqp.io import Link, answer, fail


class Channel:
    """One channel of a link, made by ``open``; for other threads, unless a method says."""

    def __init__(
        self,
        link: Link,
        reader: ContentReader | None,
        on_closed: Callable[[BaseException], None] | None,
    ) -> None:
        self.link = link
        self.closed: BaseException | None = None
        self._reader = reader
        self._on_closed = on_closed
        self._waiting: set[Future[Any]] = set()
        self._raw: Any = None

    @classmethod
    def open(
        cls,
        link: Link,
        deadline: float,
        doing: str,
        *,
        reader: ContentReader | None = None,
        on_closed: Callable[[BaseException], None] | None = None,
    ) -> Channel:
        """Open a channel; ``reader`` gets its content, ``on_closed`` runs in the I/O thread."""
        channel = cls(link, reader, on_closed)
        try:
            link.call(channel._open, deadline, doing)
        except BaseException:
            channel.close()
            raise
        return channel

    @property
    def number(self) -> int:
        """The channel number in frames."""
        return int(self._raw.channel_number)

    @property
    def raw(self) -> Any:
        """Pika's channel, for use in the I/O thread."""
        return self._raw

    def rpc(self, method: str, deadline: float, doing: str, **arguments: Any) -> Any:
        """Call a method of pika's channel and return the broker's answer to it.

        Raises:
            ConnectTimeout: no answer by the deadline.
            QueueCoreError: the broker closed the channel instead; the reason, translated.
        """
        return self.link.call(partial(self.request, method, arguments), deadline, doing, method)

    def request(self, method: str, arguments: dict[str, Any], future: Future[Any]) -> None:
        """In the I/O thread: begin a request whose answer goes to ``future``."""
        if self.closed is not None:
            fail(future, self.closed)
            return
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        getattr(self._raw, method)(callback=partial(_answer_method, future), **arguments)

    def close(self) -> None:
        """Ask for the end of the channel, if it has not ended; does not wait."""
        with contextlib.suppress(Exception):
            self.link.submit(self.close_now)

    def close_now(self) -> None:
        """In the I/O thread: the same."""
        raw = self._raw
        if raw is not None and not (raw.is_closing or raw.is_closed):
            with contextlib.suppress(AMQPError):
                raw.close()

    def _open(self, future: Future[Any]) -> None:
        connection = self.link.connection
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._raw = connection.channel(on_open_callback=partial(answer, future))
        if self._reader is not None:
            connection.readers[self._raw.channel_number] = self._reader
        self._raw.add_on_close_callback(self._on_close)
        self.link.on_end.add(self.end)

    def _on_close(self, raw: Any, reason: BaseException) -> None:
        self.link.connection.readers.pop(raw.channel_number, None)
        self.end(reason)

    def end(self, reason: BaseException) -> None:
        """In the I/O thread: the channel is over; tell everybody, once."""
        if self.closed is not None:
            return
        self.closed = reason
        self.link.on_end.discard(self.end)
        if self._on_closed is not None:
            self._on_closed(reason)  # first: who waits looks at what it notes
        for future in list(self._waiting):
            fail(future, reason)


def _answer_method(future: Future[Any], frame: Any) -> None:
    answer(future, frame.method)
