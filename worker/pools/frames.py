"""Messages over a stream socket between the worker and a child: four bytes of length, then msgpack.

Pure but for the two helpers that the child uses. Several messages travel in one send; `Reader` puts
them together again from whatever pieces arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from queue_core.worker.logs import Format
from queue_core.worker.outcome import AppInfo, Job, News, Ran

T = TypeVar("T")

CHUNK = 64 * 1024
_LENGTH = 4


class Setup(msgspec.Struct, tag="setup", array_like=True):
    """The first message to a child: what to import and how.

    Attributes:
        app: ``module:attribute``.
        path: the parent's ``sys.path``.
        broker: replaces the app's own if not None.
        log_level: of the child's root logger.
        log_format: how it logs, see `queue_core.worker.logs`.
        node: the worker's name, for requests and results; empty: the host's.
    """

    app: str
    path: list[str]
    broker: str | None
    log_level: str
    log_format: Format = "pretty"
    node: str = ""


class NotReady(msgspec.Struct, tag="notready", array_like=True):
    """From the child: the app cannot be imported. ``trace`` is for people who ask for it.

    With ``settings`` it can be imported, but its settings cannot be used.
    """

    error: str
    because: str
    advice: str
    trace: str
    settings: bool = False


class Imported(msgspec.Struct, tag="imported", array_like=True):
    """From a template: the app is imported, and children can be forked unless ``unfit`` says why.

    See `queue_core.worker.pools.launching`.
    """

    unfit: str


class Leaving(msgspec.Struct, tag="leaving", array_like=True):
    """From the child: it starts nothing more; what it was given and did not report is unstarted."""


class Ended(msgspec.Struct, tag="ended", array_like=True):
    """From the child: the outcome of one ticket."""

    ticket: int
    outcome: Ran


class Heard(msgspec.Struct, tag="heard", array_like=True):
    """From the child: news of this ticket, before its outcome."""

    ticket: int
    news: News


class Interrupted(msgspec.Struct, tag="interrupted", array_like=True):
    """From the child: this ticket's run was interrupted, as the parent asked for."""

    ticket: int


class Limited(msgspec.Struct, tag="limited", array_like=True):
    """From the child: the message of this ticket, which begins now, has a time limit of its own.

    ``seconds`` is the hard one, after which the parent kills the child.
    """

    ticket: int
    seconds: float


ToChild = Setup | Job
FromChild = AppInfo | NotReady | Imported | Leaving | Heard | Ended | Interrupted | Limited

_encoder = msgspec.msgpack.Encoder()


def pack(message: ToChild | FromChild) -> bytes:
    """Encode one message with its length in front."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH, "little") + body


class Reader(Generic[T]):
    """Takes bytes as they arrive and yields whole messages of one direction."""

    def __init__(self, kind: Any) -> None:
        """``kind`` is the union of messages to expect: `ToChild` or `FromChild`."""
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()
        self._needed = 0  # how long it must be before it is worth looking at again

    def feed(self, data: bytes) -> Iterator[T]:
        """Add bytes and yield every message that is complete now.

        Raises:
            msgspec.DecodeError: the other side sent something else; the stream is of no use any
            more.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        at, end = 0, _LENGTH
        try:
            while len(data) >= at + _LENGTH:
                end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "little")
                if len(data) < end:
                    break
                message: T = self._decoder.decode(data[at + _LENGTH : end])
                at, end = end, end + _LENGTH
                yield message
        finally:
            if at < len(data):
                self._buffer += data[at:]
                self._needed = end - at

    @property
    def waiting(self) -> int:
        """How many bytes of an incomplete message are held."""
        return len(self._buffer)
