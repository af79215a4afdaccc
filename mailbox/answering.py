"""How a node answers, and what it remembers of its answers: so a command is run at most once.

A command that comes again, because a broker delivered it twice or a caller sent it twice, gets the
answer that it got before. It is known by its ticket together with its signature: who only copies
the ticket of somebody's signed command can neither use it up nor take its place.

What is remembered is bounded, in number and in bytes: a flood only makes a node forget early.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any, Final

import msgspec

from queue_core import MessageError, Publication, QueueCoreError, Unroutable
from queue_core.mailbox.directory import PeerDirectory
from queue_core.mailbox.wire import Command, Reply, ReplyKind
from queue_core.mailbox.wiring import Wiring

logger = logging.getLogger(__name__)

MAX_REMEMBERED: Final = 1000
"""Commands whose answers are kept for the case that they come again."""
MAX_BYTES: Final = 64 * 1024
"""Bytes that are kept of the answers to one command."""

_Key = tuple[str, str]


class _Answer:
    """What was said to one command."""

    __slots__ = ("replies", "size")

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.size = 0


class Answering:
    """The answers of one node. Thread-safe."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Answer as the node ``name``."""
        self._name = name
        self._wiring = wiring
        self._producer = wiring.connection.producer()
        self._lock = threading.Lock()
        self._before: OrderedDict[_Key, _Answer] = OrderedDict()

    def begin(self, command: Command) -> bool:
        """Remember from now on what is said to a command; return False if it came before."""
        if not command.ticket:
            return True
        with self._lock:
            if _key(command) in self._before:
                return False
            self._before[_key(command)] = _Answer()
            while len(self._before) > MAX_REMEMBERED:
                self._before.popitem(last=False)
        return True

    def forget(self, command: Command) -> None:
        """It was not run after all; when it comes again, it is new."""
        with self._lock:
            self._before.pop(_key(command), None)

    def repeat(self, command: Command) -> bool:
        """Answer a command that came before as it was answered then; return whether it did.

        Blocks for a round trip per reply.
        """
        with self._lock:
            answer = self._before.get(_key(command))
            replies = [] if answer is None or command.reply_to is None else list(answer.replies)
        for reply in replies:
            self._send(command, self._encode(command, reply))
        return answer is not None

    def reply(
        self,
        command: Command,
        value: Any = None,
        *,
        kind: ReplyKind = "value",
        error: str = "",
        index: int = 0,
    ) -> bool:
        """Answer a command, if its caller wants to hear; see `Reply` for what the words mean.

        What cannot be sent because of what it is becomes an error that says so. Returns False if
        the caller is known to be gone: of an ``item`` that is found out. Blocks as `Outbox.send`.
        """
        if command.reply_to is None:
            return True
        peers, directory = None, self._wiring.directory
        if command.peers and isinstance(directory, PeerDirectory):
            peers = directory.peers(command.address)
        reply = Reply(self._name, command.ticket, kind, value, error, index, peers=peers)
        try:
            encoded = self._encode(command, reply)
        except MessageError as refused:
            text, error = f"the answer cannot be sent: {refused}", type(refused).__name__
            reply = Reply(self._name, command.ticket, "error", text, error, peers=peers)
            encoded = self._encode(command, reply)
        # Before it is sent: who has heard it may ask again at once.
        self._keep(command, reply, len(encoded.body))
        return self._send(command, encoded)

    def _keep(self, command: Command, reply: Reply, size: int) -> None:
        with self._lock:
            answer = self._before.get(_key(command))
            if answer is None:
                return
            answer.size += size
            if answer.size <= MAX_BYTES:
                answer.replies.append(reply)
            else:
                text = "it was done before, and its answer was too large to be kept"
                answer.replies = [
                    Reply(self._name, command.ticket, "error", text, "Repeated", peers=reply.peers)
                ]

    def _encode(self, command: Command, reply: Reply) -> Publication:
        """Stamp an answer and encode it. Raises MessageError."""
        assert command.reply_to is not None, "the caller wants to hear"
        stamped = msgspec.structs.replace(reply, clock=self._wiring.clock.forward())
        return self._producer.prepare(
            stamped.body(),
            command.reply_to.routing_key,
            exchange=command.reply_to.exchange,
            headers=stamped.headers(),
            serializer="json",
            mandatory=reply.kind == "item",
            durable=False,
        )

    def _send(self, command: Command, encoded: Publication) -> bool:
        """Send an answer; return False if nobody can hear it. The broker may be away."""
        try:
            self._wiring.outbox.send(encoded)
        except Unroutable:
            return False
        except QueueCoreError as error:
            logger.warning("the answer to %s could not be sent: %s", command.method, error)
        return True


def _key(command: Command) -> _Key:
    return (command.ticket, command.signature)
