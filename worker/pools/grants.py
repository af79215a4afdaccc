"""What a child may start: tickets over a socket of their own, which its parent can take back.

Jobs travel to a child ahead of time, so that it need not wait for the next one. But it starts a job
only once it has read that job's ticket here, one ticket at a time. The parent holds both ends: what
it reads back from the child's end, the child has not started and never will. So the parent knows at
any moment, and for certain, which jobs were begun: when one runs too long and others wait behind
it, when the child is to stop, and when it has died. And after taking back it can kill the child
without hitting any other job than the last that was begun.

A word is eight bytes: a ticket, which is positive; `STOP`; or a ticket's negative: end that very
job, if it runs.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from struct import Struct

STOP = 0
_WORD = Struct("<q")
_SIZE = _WORD.size


def adopt(fd: int) -> socket.socket:
    """Own an inherited socket; it waits without a timeout, whatever default the app has set."""
    adopted = socket.socket(fileno=fd)
    adopted.setblocking(True)
    return adopted


class Grants:
    """The parent's side. Does not block."""

    def __init__(self) -> None:
        """Open both ends."""
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(True)  # with a timeout it would wait in spite of MSG_DONTWAIT

    @property
    def child_fd(self) -> int:
        """What the child is to inherit."""
        return self._theirs.fileno()

    def give(self, words: Iterable[int]) -> None:
        """Write tickets, `STOP`, or the negative of a ticket. A dead child does not mind."""
        with contextlib.suppress(OSError):
            self._ours.send(b"".join(map(_WORD.pack, words)))

    def take_back(self) -> list[int]:
        """Return the tickets that the child has not read, and now never will."""
        found: list[int] = []
        with contextlib.suppress(BlockingIOError):
            while data := self._theirs.recv(4096, socket.MSG_DONTWAIT):
                found += (word for (word,) in _WORD.iter_unpack(data) if word > 0)
        return found

    def close(self) -> None:
        """Close both ends; may be called twice."""
        self._ours.close()
        self._theirs.close()


class Granted:
    """The child's side."""

    def __init__(self, fd: int) -> None:
        """Own the inherited end."""
        self._socket = adopt(fd)

    def next(self) -> int:
        """Wait for the next ticket; `STOP` when told to stop or when the parent is gone."""
        while True:
            data = self._socket.recv(_SIZE)
            word: int = _WORD.unpack(data)[0] if data else STOP
            if word >= 0:
                return word

    def close(self) -> None:
        """Take no more tickets in this process."""
        self._socket.close()

    def interrupted(self, ticket: int) -> bool:
        """Whether the parent wants this running job to end; does not wait. Says so once.

        For a signal handler: takes no word from `next` but one for a job that has ended.
        """
        try:
            data = self._socket.recv(_SIZE, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        word: int = _WORD.unpack(data)[0] if data else STOP
        if word >= 0:
            return False
        self._socket.recv(_SIZE)
        return word == -ticket
