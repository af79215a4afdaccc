"""Ending the wait of one store handle from another thread: a flag, and a socket pair.

For stores that implement `Store.interrupt`. A wait that looked at a flag now and then would end up
to one look late, and a consumer of two queues is interrupted for each message: there is room for
the next one when this one is acked.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket

__all__ = ["Interrupt"]


class Interrupt:
    """Any thread requests it; the handle's own waits for it, and for one descriptor more.

    Attributes:
        requested: whether somebody asked for it since `clear`.
    """

    __slots__ = ("_pair", "requested")

    def __init__(self) -> None:
        """Open nothing before somebody waits."""
        self.requested = False
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def request(self) -> None:
        """End the wait, or the next one. Does not block; any thread, also after `close`."""
        self.requested = True
        if (pair := self._pair) is not None:
            with contextlib.suppress(OSError):  # full: it is on its way; closed: nobody waits
                pair[1].send(b"x")

    def wait(self, seconds: float, other: int = -1) -> bool:
        """Block until it is requested or the descriptor ``other`` can be read, at most ``seconds``.

        Returns whether ``other`` can be read. It may return early for nothing.
        """
        if self._pair is None:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
        if self.requested:  # looked at when the pair is there: who asks later writes into it
            return False
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self._pair[0], select.POLLIN)
        if other >= 0:
            poll.register(other, select.POLLIN)
        ready = [number for number, _ in poll.poll(math.ceil(max(0.0, seconds) * 1000))]
        if self._pair[0].fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                while self._pair[0].recv(64):
                    pass
        return other in ready

    def clear(self) -> None:
        """Forget the requests so far: the wait that they were for has ended."""
        self.requested = False

    def close(self) -> None:
        """Close the pair. May be called twice."""
        pair, self._pair = self._pair, None
        for end in pair or ():
            end.close()
