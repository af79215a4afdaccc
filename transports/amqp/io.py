"""One TCP connection to the broker, and the one thread that serves it.

pika's `SelectConnection` runs in that thread and nothing else touches it, but for `Link.write`,
which sends whole frames from the calling thread while the socket takes them: a hand-over costs more
than a send. For everything else other threads hand work over through a deque and one wake-up, and
wait with a deadline; what the work writes leaves in one send. Heartbeats are thus served while user
code blocks.

The rules: a link is used once; when its connection or its loop ends, for whatever reason (an
exception in a callback included), everybody who waits gets the reason, later calls raise it, and
the thread ends. Nothing reconnects here. ``close`` is bounded even if the broker does not answer.
A forked child calls ``abandon`` and nothing else: a regular close would send a goodbye in the
parent's name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any

import pika
from pika import frame as pika_frame
from pika.exceptions import (
    AMQPHeartbeatTimeout,
    ConnectionClosedByClient,
    ConnectionWrongStateError,
)

from queue_core.errors import BrokerFull, ConnectionLost, ConnectTimeout, QueueCoreError
from queue_core.transports.amqp.errors import translate, translate_connect
from queue_core.transports.amqp.frames import FRAME_END, FRAME_HEAD, ContentReader
from queue_core.transports.amqp.options import Settings

logger = logging.getLogger(__name__)

_READ_SIZE = 65_536
_TURN = 500
_GRACE = 1.0
_SILENT_INTERVALS = 3

Work = Callable[["Future[Any]"], None]


class BurstConnection(pika.SelectConnection):  # type: ignore[misc]  # pika ships no types
    """pika's connection with a faster way in and out for the frames that come per message.

    The private names of pika 1.4 that are used here, and nowhere else: ``_adapter_emit_data``
    (collect writes while a burst runs, and send them at once), ``_on_data_available`` (let a
    `ContentReader` take its frames before pika decodes them), ``_proto_connection_made``,
    ``_MAX_RECV_BYTES`` and ``_MAX_CONSUME_BYTES`` (read up to 64 KiB, once each time that there is
    something), ``_terminate_stream`` (give up on a peer that does not answer), ``_transport._sock``
    (send; let go of the socket in a forked child or after a crash).
    """

    _frame_buffer: bytes

    def __init__(self, parameters: pika.ConnectionParameters, **callbacks: Any) -> None:
        self.readers: dict[int, ContentReader] = {}
        self.after_read: Callable[[], None] | None = None
        self._burst: list[bytes] | None = None
        self._writing = threading.Lock()
        self._unsent: deque[bytes] = deque()
        super().__init__(parameters, **callbacks)

    def emit(self, data: bytes) -> None:
        """Write whole frames. Only in the I/O thread."""
        if data:
            self._adapter_emit_data(data)

    @contextlib.contextmanager
    def burst(self) -> Iterator[None]:
        """Collect everything written inside and send it as one piece."""
        if self._burst is not None:
            yield
            return
        self._burst = []
        try:
            yield
        finally:
            frames, self._burst = self._burst, None
            if frames and not self.is_closed:
                self._send(frames[0] if len(frames) == 1 else b"".join(frames))

    def give_up(self, reason: Exception) -> None:
        """End the connection without waiting for the peer."""
        if not self.is_closed:
            self._terminate_stream(None if self._error is not None else reason)

    def detach(self) -> None:
        """Close this process's copy of the socket, without a word to the peer or the event loop."""
        transport = self._transport
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                os.close(sock.detach())

    def shutdown(self) -> None:
        """Let both sides find the TCP connection closed. From any thread."""
        sock = getattr(self._transport, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ_SIZE
        transport._MAX_CONSUME_BYTES = 1
        super()._proto_connection_made(transport)

    def _adapter_emit_data(self, data: bytes) -> None:
        if self._burst is None:
            self._send(data)
        else:
            self._burst.append(data)

    def write(self, data: bytes) -> bool:
        """Send whole frames at once if the socket takes them. From any thread, in order.

        Returns whether something is left: then `flush` must be called in the I/O thread.
        """
        with self._writing:
            self._unsent.append(data)
            self._send_unsent()
            return bool(self._unsent)

    def flush(self) -> None:
        """Send what `write` left. Only in the I/O thread."""
        self._send(b"")

    def _send(self, data: bytes) -> None:
        """Send at once what the socket takes; pika sends the rest, in a later turn of its loop.

        pika alone would ask the loop for room first, which costs a turn.
        """
        with self._writing:
            if data:
                self._unsent.append(data)
            self._send_unsent()
            rest = b"".join(self._unsent)
            self._unsent.clear()
            if rest and self._transport is not None:
                super()._adapter_emit_data(rest)

    def _send_unsent(self) -> None:
        """Send from the front of what is unsent, unless pika has something to send before.

        An encrypted socket is left to pika: it serves one thread at a time. So is a broken one:
        pika finds out by itself.
        """
        transport = self._transport
        sock = getattr(transport, "_sock", None)
        if sock is None or isinstance(sock, ssl.SSLSocket) or transport.get_write_buffer_size():
            return
        with contextlib.suppress(OSError):
            while self._unsent:
                sent = sock.send(self._unsent[0])
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    return
                self._unsent.popleft()

    def _on_data_available(self, data_in: bytes) -> None:
        if not self.readers or self._frame_buffer[:4] == b"AMQP":
            super()._on_data_available(data_in)
            return
        with self.burst():
            self._read_frames(data_in)
            if self.after_read is not None:
                self.after_read()

    def _read_frames(self, data_in: bytes) -> None:
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        self.bytes_received += len(data_in)
        at, size = 0, len(data)
        while size - at >= 8:
            kind, channel, length = FRAME_HEAD.unpack_from(data, at)
            end = at + 8 + length
            if end > size:
                break
            if data[end - 1] != FRAME_END:
                raise pika.exceptions.InvalidFrameError("the frame does not end where it says")
            reader = self.readers.get(channel)
            if reader is None or not reader.feed(kind, data, at + 7, end - 1):
                _, value = pika_frame.decode_frame(data[at:end])
                if value is not None:
                    self._process_frame(value)
            at = end
        self._frame_buffer = data[at:]


class Link:
    """A connection and its thread. Its methods are for all other threads, unless they say."""

    def __init__(
        self,
        settings: Settings,
        label: str,
        *,
        on_lost: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Prepare; ``label`` is for people; ``on_lost`` is called in the I/O thread at the end."""
        self.label = label
        self.where = settings.where
        self._settings = settings
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._inbox: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._closing = False
        self._grace = _GRACE
        self._ended: BaseException | None = None
        self._opened: Future[None] = Future()
        self._unblocked = threading.Event()
        self._unblocked.set()
        self._connection: BurstConnection | None = None
        self.on_end: set[Callable[[BaseException], None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"queue-core-{label}", daemon=True)

    # lifecycle

    def open(self, timeout: float) -> None:
        """Start the thread and wait until the broker let us in, at most ``timeout`` seconds.

        Raises:
            AccessRefused, ConnectionLost, ConnectTimeout: the thread has ended or is ending.
        """
        settings = self._settings
        self._thread.start()
        try:
            self._opened.result(min(timeout, settings.connect_timeout))
        except Exception as error:
            self.close(0.5)
            raise translate_connect(error, settings.where, settings.vhost, settings.user) from error

    @property
    def ended(self) -> bool:
        """The connection is over."""
        return self._ended is not None

    @property
    def connection(self) -> BurstConnection:
        """The connection, for use in the I/O thread."""
        assert self._connection is not None
        return self._connection

    def close(self, timeout: float) -> None:
        """Say goodbye and wait for the thread's end, at most ``timeout`` seconds, about.

        A peer that does not answer is cut off. May be called twice.
        """
        if self._thread.ident is None:
            self._ended = self._ended or ConnectionLost("it was never opened")
            return
        self._grace = min(timeout / 2, _GRACE)
        self._closing = True
        if self._ended is None and (connection := self._connection) is not None:
            connection.ioloop.add_callback_threadsafe(self._say_goodbye)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: let go of the inherited socket for good. Takes no lock."""
        self._ended = ConnectionLost(f"the {self.label} connection belongs to the parent process")
        connection = self._connection
        if connection is not None:
            connection.detach()

    def cut(self) -> None:
        """Drop the connection without a word, as the end of the process would; for tests."""
        connection = self._connection
        if connection is not None:
            connection.shutdown()

    # work

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done in the I/O thread soon, in the order of submission; does not wait.

        Raises:
            ConnectionLost: the connection is over, and ``work`` will not be done.
        """
        if self._ended is not None:
            raise self.failure("use")
        self._inbox.append(work)
        if not self._scheduled:
            self._scheduled = True
            self.connection.ioloop.add_callback_threadsafe(self._drain)
        if self.ended:
            # It ended between the check and the append: whoever takes the work out decides.
            with contextlib.suppress(ValueError):
                self._inbox.remove(work)
                raise self.failure("use")

    def write(self, data: bytes) -> None:
        """Send whole frames, from this thread if the socket takes them; in the order of the calls.

        Does not wait. What goes wrong ends the connection.
        """
        if self.connection.write(data):
            self.submit(self.connection.flush)

    def call(self, work: Work, deadline: float, doing: str, method: str = "") -> Any:
        """Have ``work(future)`` done in the I/O thread and return what the future is given.

        ``deadline`` is a point of `time.monotonic`. An exception of ``work`` itself counts as its
        answer. ``doing`` and ``method`` are for `errors.translate`.

        Raises:
            ConnectTimeout: no answer by the deadline. Others as `errors.translate` says.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.add(future)
        try:
            self.submit(partial(_start, work, future))
            return future.result(max(0.0, deadline - monotonic()))
        except TimeoutError as error:
            raise ConnectTimeout(
                f"{doing}: no answer from the broker at {self.where} in time"
            ) from error
        except Exception as error:
            raise translate(error, doing, method) from error
        finally:
            with self._lock:
                self._waiting.discard(future)

    def failure(self, doing: str) -> QueueCoreError:
        """Return the error that tells why the link is over."""
        ended = self._ended or ConnectionLost("it is not open")
        return translate(ended, f"{doing}: {self.label} connection to {self.where}")

    def wait_unblocked(self, deadline: float) -> None:
        """Return when the broker takes messages; raise BrokerFull if not by the deadline."""
        if not self._unblocked.is_set() and not self._unblocked.wait(
            max(0.0, deadline - monotonic())
        ):
            raise BrokerFull(
                f"the broker at {self.where} takes no messages now (memory or disk alarm); "
                "consumers can still drain it"
            )

    @property
    def blocked(self) -> bool:
        """The broker said that it takes no messages now."""
        return not self._unblocked.is_set()

    # the I/O thread

    def _run(self) -> None:
        cause: BaseException = ConnectionClosedByClient(200, "closed")
        try:
            connection = BurstConnection(
                self._settings.parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_end,
                on_close_callback=self._on_end,
            )
            self._connection = connection
            connection.add_on_connection_blocked_callback(self._on_blocked)
            connection.add_on_connection_unblocked_callback(self._on_unblocked)
            if self._closing:
                self._say_goodbye()
            connection.ioloop.start()
        except BaseException as error:
            cause = error
        finally:
            self._finish(cause)

    def _on_open(self, connection: Any) -> None:
        answer(self._opened, None)
        if connection.params.heartbeat:
            self._watch(connection, connection.params.heartbeat / 2, connection.bytes_received, 0)

    def _watch(self, connection: BurstConnection, interval: float, seen: int, silent: int) -> None:
        """Give the broker up when it was silent for two heartbeats; pika alone takes longer.

        It counts intervals, so that a pause of this process is not taken for one of the broker.
        """

        def look() -> None:
            if connection.bytes_received != seen:
                self._watch(connection, interval, connection.bytes_received, 0)
            elif silent < _SILENT_INTERVALS:
                self._watch(connection, interval, seen, silent + 1)
            else:
                connection.give_up(AMQPHeartbeatTimeout("silent for two heartbeats"))

        connection.ioloop.call_later(interval, look)

    def _on_end(self, connection: Any, error: BaseException) -> None:
        self._ended = self._ended or error
        connection.ioloop.stop()

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        self._unblocked.clear()
        logger.warning(
            "the broker at %s takes no messages now (%s); publishing waits, consumers go on",
            self.where,
            frame.method.reason,
        )

    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self._unblocked.set()
        logger.info("the broker at %s takes messages again", self.where)

    def _drain(self) -> None:
        self._scheduled = False
        connection = self.connection
        with connection.burst():
            for _ in range(_TURN):
                if not self._inbox:
                    return
                self._inbox.popleft()()
        if self._inbox and not self._scheduled:
            self._scheduled = True
            connection.ioloop.add_callback_threadsafe(self._drain)

    def _say_goodbye(self) -> None:
        connection = self.connection
        self._drain()
        if connection.is_closed:
            connection.ioloop.stop()
        elif not connection.is_closing:
            connection.close()
            connection.ioloop.call_later(
                self._grace, partial(connection.give_up, ConnectionWrongStateError("no goodbye"))
            )

    def _finish(self, cause: BaseException) -> None:
        """Tell everybody that it is over, and give the thread's resources back."""
        self._ended = ended = self._ended or cause
        connection = self._connection
        with self._lock:
            waiting = [self._opened, *self._waiting]
        for future in waiting:
            fail(future, ended)
        self._unblocked.set()
        for tell in list(self.on_end):
            tell(ended)
        while self._inbox:
            with contextlib.suppress(Exception):
                self._inbox.popleft()()
        if connection is not None:
            connection.detach()
            with contextlib.suppress(Exception):
                connection.ioloop.close()
        if self._on_lost is not None:
            self._on_lost(ended)


def _start(work: Work, future: Future[Any]) -> None:
    try:
        work(future)
    except Exception as error:
        fail(future, error)


def answer(future: Future[Any], value: Any) -> None:
    """Give the future its answer unless it has one."""
    if not future.done():
        future.set_result(value)


def fail(future: Future[Any], error: BaseException) -> None:
    """Give the future an error unless it has its answer."""
    if not future.done():
        future.set_exception(error)
