"""One command and the collection of its answers.

Whom to wait for is known from the names in the address, from the directory, or from the first
answer. Collecting ends with the last of them, with the limit, or at the deadline. While nothing
comes, those that are missing are looked for, so that nobody waits for a node that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

from queue_core import Deadline, QueueCoreError
from queue_core.mailbox.answers import Answers
from queue_core.mailbox.directory import Directory, Labels
from queue_core.mailbox.replies import Replies, Ticket
from queue_core.mailbox.sending import FEW, Sender
from queue_core.mailbox.wire import Address, Command, Reply

logger = logging.getLogger(__name__)

_PATIENCE: Final = 0.1
"""Seconds without an answer after which those that are missing are looked for; a quarter of it when
they are few, since looking costs a message for each."""


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
        self._expected: dict[str, Labels] | None = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Send, and yield until the last answer or the deadline."""
        replies, answers = self._replies, self.answers
        ticket = replies.expect(self._command.ticket)
        answers.count_late(ticket)
        try:
            answers.unknown |= self._sender.send(self._command, timeout=self._deadline.remaining())
            self._expect()
            yield from self._collect(ticket)
        finally:
            replies.forget(ticket)
            answers.missing = self._pending()
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

    def _expect(self) -> None:
        """Find out whom to wait for."""
        address = self._command.address
        if address.names is not None:
            self._expected = {name: {} for name in address.names}
        elif not self._mixed:
            known = self._directory.names()
            if known is not None:
                self._expected = {
                    name: labels for name, labels in known.items() if address.includes(name, labels)
                }

    def _pending(self) -> set[str]:
        return set(self._expected or ()) - self.answers.heard - self.answers.unknown

    def _complete(self, pending: set[str]) -> bool:
        if self._limit is not None and len(self.answers.heard) >= self._limit:
            return True
        return self._expected is not None and not pending

    def _collect(self, ticket: Ticket[Reply]) -> Iterator[tuple[str, Any]]:
        in_vain = 0  # times that nothing came, up to six
        while not self._complete(pending := self._pending()) and not self._deadline.expired:
            patience = _PATIENCE / 4 if len(pending) <= FEW else _PATIENCE
            bound = self._deadline.bound(min(1.0, patience * 2**in_vain))
            reply = self._replies.next(ticket, Deadline.after(bound, self._deadline.clock))
            if reply is not None:
                in_vain = 0
                if reply.peers is not None and self._command.peers and not self._mixed:
                    self._expected = {name: {} for name in reply.peers} | (self._expected or {})
                yield from self.answers.take(reply)
            else:
                in_vain = min(6, in_vain + 1)
                self._look_for(pending)

    def _look_for(self, names: set[str]) -> None:
        """Wait no longer for nodes that are gone."""
        if not names:
            return
        gone = self._sender.gone(sorted(names), self._deadline)
        if not gone:
            return
        if self._command.address.names is not None:
            self.answers.unknown |= gone
        else:
            assert self._expected is not None, "they were pending"
            for name in gone:
                del self._expected[name]
            self._directory.leave(*gone)
