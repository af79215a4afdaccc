"""What a handler yields: sent item by item, for as long as somebody listens.

A caller has left when the time of its call is over, when it says so (``qc.left``, with the ticket
of its command), or when its queue is gone. Then the handler is closed at its next ``yield``: it
finds a `GeneratorExit` there, as everywhere in Python. So it does when the node stops.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any

from queue_core.mailbox.answering import Answering
from queue_core.mailbox.wire import Command


class Streams:
    """The handlers of one node that are yielding. Thread-safe."""

    def __init__(self, answers: Answering) -> None:
        """Send nothing yet."""
        self._answers = answers
        self._left: dict[str, threading.Event] = {}
        self._stopped = False

    def send(
        self,
        command: Command,
        items: Generator[object, Any, object],
        over: float,
        *,
        trusting: bool,
    ) -> bool:
        """Send what a handler yields and that there is no more; return False if its caller left.

        Args:
            command: what it was asked.
            items: the handler; it is closed.
            over: when the time of the call is over, on the monotonic clock.
            trusting: believe whoever says that the caller has left.

        Blocks for as long as the handler, and a round trip for each item.
        """
        left = threading.Event()
        if trusting and command.ticket:
            self._left[command.ticket] = left
        try:
            with contextlib.closing(items):
                count = 0
                for item in items:
                    if self._stopped:
                        text = "the node stopped before the end"
                        self._answers.reply(command, text, kind="error", error="Stopped")
                        return False
                    if left.is_set() or time.monotonic() > over:
                        return False
                    if not self._answers.reply(command, item, kind="item", index=count):
                        return False
                    count += 1
        finally:
            self._left.pop(command.ticket, None)
        self._answers.reply(command, kind="end", index=count)
        return True

    def stop(self) -> None:
        """The node stops: end all of them, and tell their callers. Does not block."""
        self._stopped = True

    def leave(self, ticket: str) -> None:
        """The caller of this command does not listen any more; for what `send` trusts."""
        if (left := self._left.get(ticket)) is not None:
            left.set()
