"""What a connection keeps to, whichever parser redis-py uses."""

from __future__ import annotations

import socket

from queue_core.interrupt import Interrupt
from queue_core.transports.redis.scripts import Script
from queue_core.transports.redis.server import Server


class PythonWire:
    """As redis-py without hiredis: a look for an answer sets the timeout that connecting had."""

    socket_timeout = 5.0
    socket_connect_timeout = 0.25

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def connect(self) -> None:
        self._timeout = self.socket_timeout
        self._sock.settimeout(self._timeout)

    def disconnect(self) -> None:
        self._sock.close()

    def can_read(self, timeout: float) -> bool:
        self._sock.settimeout(timeout)
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        finally:
            self._sock.settimeout(self._timeout)

    def read_response(self) -> bytes:
        return self._sock.recv(1)


def test_a_look_for_an_answer_does_not_shorten_the_silence_that_a_server_may_keep() -> None:
    near, far = socket.socketpair()
    scripts = {"claim": Script("claim", b"return 1", b"digest")}
    server = Server(PythonWire(near), "Redis", b"{qc}:", scripts, lambda server: None)
    with far:
        server.connect()
        assert near.gettimeout() == 5.0
        far.sendall(b"123")
        answers = server.wait(["b:q"], 1.0, Interrupt(), lambda: None, "claim", b"then", b"before")
        assert answers == (b"1", b"3")
        assert near.gettimeout() == 5.0
        server.close()
