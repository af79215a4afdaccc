"""One command and the collection of its answers.

Whom to wait for is known from the names in the address, from the directory, or from the first
answer. Collecting ends with the last of them, with the limit, or at the deadline. While nothing
comes, those that are missing are looked for, so that nobody waits for a node that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from queue_core import Deadline, QueueCoreError
from queue_core.mailbox.answers import Answers
from queue_core.mailbox.directory import Directory, put_away
from queue_core.mailbox.replies import Replies, Ticket
from queue_core.mailbox.sending import FEW, Sender
from queue_core.mailbox.wire import Address, Command, Reply

logger = logging.getLogger(__name__)

_PATIENCE: Final = 0.1
"""Seconds without an answer after which those that are missing are looked for; a quarter of it when
they are few, since looking costs a message for each."""
_LAST_WORDS: Final = 0.25
"""Seconds in which the answer comes of a node that answered and left before it was looked for."""


class Asking:
    """Iterating over it sends the command and yields node and value as they come. One thread."""

    def __init__(
        self,
        command: Command,
        deadline: Deadline,
        sender: Sender,
        replies: Replies[Reply],
        directory: Directory,
        *,
        limit: int | None = None,
        mixed: bool = False,
    ) -> None:
        """Send nothing yet.

        Args:
            command: with the address of ``replies``.
            deadline: when the collection ends.
            sender, replies, directory: the mailbox's.
            limit: so many nodes are enough.
            mixed: there may be nodes that nobody knows of.
        """
        self.answers = Answers()
        self._command = command
        self._deadline = deadline
        self._sender = sender
        self._replies = replies
        self._directory = directory
        self._limit = limit
        self._mixed = mixed
        self._awaited: set[str] | None = None  # None: nobody knows who there is
        self._left: set[str] = set()  # those of them that were gone when last looked for

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Send, and yield until the last answer or the deadline."""
        replies, answers = self._replies, self.answers
        ticket = replies.expect(self._command.ticket)
        answers.count_late(ticket)
        try:
            self._awaited = self._expected()  # before some of them hear it, and may leave
            answers.unknown |= self._sender.send(self._command, timeout=self._deadline.remaining())
            if self._awaited is not None:
                self._awaited -= answers.unknown
            yield from self._collect(ticket)
        finally:
            replies.forget(ticket)
            answers.missing = self._awaited or set()
            self._say_left(set(answers.partial) - answers.heard)

    def _say_left(self, names: set[str]) -> None:
        """Tell nodes that nobody listens any more to what they yield; at the deadline they know."""
        if not names or self._deadline.expired:
            return
        told = {"ticket": self._command.ticket}
        ttl = self._deadline.remaining()
        try:
            command = self._sender.command("qc.left", told, Address(tuple(names)), ttl)
            self._sender.send(command, timeout=min(_PATIENCE, ttl))
        except QueueCoreError as error:
            logger.debug("%s goes on until its deadline: %s", self._command.method, error)

    def _expected(self) -> set[str] | None:
        """Return whom to wait for, as far as it is known before anybody answers."""
        address = self._command.address
        if address.names is not None:
            return set(address.names)
        known = None if self._mixed else self._directory.names(self._deadline.remaining())
        if known is None:
            return None
        return {name for name, labels in known.items() if address.includes(name, labels)}

    @property
    def _complete(self) -> bool:
        if self._limit is not None and len(self.answers.heard) >= self._limit:
            return True
        return self._awaited is not None and not self._awaited

    def _collect(self, ticket: Ticket[Reply]) -> Iterator[tuple[str, Any]]:
        in_vain = 0  # times that nothing came, up to six
        while not self._complete and not self._deadline.expired:
            patience = _PATIENCE / 4 if len(self._awaited or ()) <= FEW else _PATIENCE
            seconds = max(min(1.0, patience * 2**in_vain), _LAST_WORDS if self._left else 0.0)
            moment = Deadline.after(self._deadline.bound(seconds), self._deadline.clock)
            reply = self._replies.next(ticket, moment, self._deadline)
            if reply is not None:
                in_vain = 0
                if reply.peers is not None and self._command.peers and not self._mixed:
                    self._awaited = (self._awaited or set()).union(reply.peers) - self.answers.heard
                yield from self._take(reply)
            else:
                in_vain = min(6, in_vain + 1)
                self._look_for_them()

    def _take(self, reply: Reply) -> Iterable[tuple[str, Any]]:
        seen = self.answers.take(reply)
        if self._awaited is not None and reply.node in self.answers.heard:
            self._awaited.discard(reply.node)
        return seen

    def _look_for_them(self) -> None:
        """Wait no longer for nodes that are gone, and of which nothing has come since."""
        if not self._awaited:
            return
        left, self._left = self._left, self._sender.gone(sorted(self._awaited), self._deadline)
        gone = left & self._left
        if not gone:
            return
        self._awaited -= gone
        if self._command.address.names is not None:
            self.answers.unknown |= gone
        else:
            put_away(self._directory, gone, lambda names: self._sender.gone(names, self._deadline))
