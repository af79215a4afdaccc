"""pika's connection with a faster way in and out for the frames that come per message.

In: deliveries, returns and confirms go to a `ContentReader` before pika decodes them. Out: whole
frames are collected while something runs, and sent at once, from any thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika import frame as pika_frame

from queue_core.transports.amqp.frames import FRAME_END, FRAME_HEAD, ContentReader

_READ_SIZE = 65_536


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

    def burst(self, work: Callable[[], None]) -> None:
        """Do this, collect everything that it writes, and send that as one piece."""
        if self._burst is not None:
            work()
            return
        self._burst = []
        try:
            work()
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
        try:
            while self._unsent:
                sent = sock.send(self._unsent[0])
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    return
                self._unsent.popleft()
        except OSError:
            return

    def _on_data_available(self, data_in: bytes) -> None:
        if not self.readers or self._frame_buffer[:4] == b"AMQP":
            super()._on_data_available(data_in)
        else:
            self.burst(partial(self._read_frames, data_in))

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
        if self.after_read is not None:
            self.after_read()
