"""Ending a wait at the server from another thread.

A connection that is blocked in BLPOP takes no other command. So the thread that waits for its
answer listens to a socket pair too, into which any thread may write; then it has a second
connection append to the list that the first one waits for. That connection is made when it is
needed first.

A server looks ten times a second which waits are over. A short wait is ended in the same way, so
that a caller's deadline is kept; a consumer with nothing to do waits for longer, and its time does
not matter.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Callable
from typing import Any


class Interrupt:
    """What ends the waits of one handle: `request` is for every thread, the rest for its own.

    Attributes:
        requested: whether somebody asked for it since `clear`.
    """

    def __init__(self, end_wait: Callable[[], None]) -> None:
        """``end_wait`` ends the wait at the server; called by the thread that listens."""
        self.requested = False
        self._end_wait = end_wait
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._poll: select.poll | None = None
        self._answers: socket.socket | None = None
        self._number = -1

    def request(self) -> None:
        """End the wait, or the next one. Does not block."""
        self.requested = True
        if (pair := self._pair) is not None:
            with contextlib.suppress(OSError):  # full: it is on its way; closed: nobody waits
                pair[1].send(b"x")

    def wait(self, connection: Any, seconds: float) -> None:
        """Block until there is an answer to read from the connection, or it is silent for long.

        After ``seconds`` it ends the wait as if that had been requested.
        """
        answers: socket.socket = connection._sock  # noqa: SLF001 - redis-py tells it nobody
        if self._pair is None or self._poll is None:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self._poll = select.poll()
            self._poll.register(self._pair[0], select.POLLIN)
        if answers is not self._answers:
            if self._answers is not None:
                self._poll.unregister(self._number)
            self._answers, self._number = answers, answers.fileno()
            self._poll.register(self._number, select.POLLIN)
        silence = answers.gettimeout() or math.inf
        until = time.monotonic() + min(seconds, silence)
        while not self.requested and (left := until - time.monotonic()) > 0:
            ready = self._poll.poll(math.ceil(left * 1000))
            if any(number == self._number for number, _ in ready):
                return
            with contextlib.suppress(BlockingIOError):
                while self._pair[0].recv(64):
                    pass
        if seconds < silence or self.requested:
            self._end_wait()  # else reading tells what silence means

    def clear(self) -> None:
        """Forget the requests so far: the wait that they were for has ended."""
        self.requested = False

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        pair, self._pair = self._pair, None
        self._poll = self._answers = None
        for end in pair or ():
            end.close()
