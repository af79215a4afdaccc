"""What is written leaves in the order of the calls, however little the socket takes."""

from __future__ import annotations

import threading
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from queue_core.transports.amqp.burst import BurstConnection


class Socket:
    """Takes as many bytes as it has room for."""

    def __init__(self) -> None:
        self.room = 0
        self.received = b""

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.received += taken
        return len(taken)


class Transport:
    """pika's transport: keeps what it is given until it is told that the socket has room."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self._kept = b""

    def get_write_buffer_size(self) -> int:
        return len(self._kept)

    def write(self, data: bytes) -> None:
        self._kept += data

    def send_kept(self) -> None:
        if self._kept and self._sock.room:
            self._kept = self._kept[self._sock.send(self._kept) :]


def connection(transport: Transport) -> BurstConnection:
    """A connection that is open, without its constructor, which would connect."""
    made = BurstConnection.__new__(BurstConnection)
    made._burst = None
    made._writing = threading.Lock()
    made._unsent = deque()
    made._transport = transport
    return made


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "emit", "flush", "room", "loop"]), st.integers(1, 9)),
    max_size=40,
)


@given(STEPS)
def test_nothing_overtakes_and_nothing_is_lost(steps: list[tuple[str, int]]) -> None:
    sock = Socket()
    transport = Transport(sock)
    made = connection(transport)
    expected = b""
    left = False
    for number, (what, size) in enumerate(steps):
        data = bytes([number % 256]) * size
        if what == "write":
            left = made.write(data)
            expected += data
        elif what == "emit":
            made.emit(data)
            expected += data
            left = False
        elif what == "flush":
            made.flush()
            left = False
        elif what == "room":
            sock.room += size
        else:
            transport.send_kept()
    if left:
        made.flush()
    while len(sock.received) < len(expected):
        sock.room += 100
        transport.send_kept()
    assert sock.received == expected


def test_a_connection_that_has_ended_takes_nothing_and_raises_nothing() -> None:
    made = connection(Transport(Socket()))
    made._transport = None
    assert made.write(b"x")
    made.flush()
    assert not made._unsent
