"""What results need of a backend, on both sides.

There are two backends. ``rpc`` sends each result to a queue of the process that waits, and works on
every broker. ``key_value`` keeps results under their task's id, so that any process can read them,
on brokers with `queue_core.KeyValue` or at a second URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from queue_core import Message, Publication
from queue_core.worker.results.wire import Result

RESULT_TYPE = "application/json"
RESULT_ENCODING = "utf-8"


class Results(Protocol):
    """The side that waits. Thread-safe."""

    def reply_to(self) -> str | None:
        """Return the message's ``reply_to``; the first call may declare a queue."""

    def expect(self, task_id: str) -> object:
        """Get ready for the result, before the task is sent.

        The answer is kept by whoever waits: when it is dropped, so may be the result.
        """

    def poll(self, task_id: str, kept: object) -> Result | None:
        """Return the result, or None if it is not there (yet). May ask the backend once."""

    def wait(self, task_id: str, kept: object, timeout: float | None) -> Result | None:
        """Return the result, waiting up to ``timeout`` seconds (None: for ever), or None."""

    def recall(self, task_id: str) -> object:
        """Like `expect` for a task that was sent before, perhaps by another process.

        Raises Unsupported where that cannot work.
        """

    def close(self) -> None:
        """Give everything back; may be called twice."""


class Deliverer(Protocol):
    """The side that ran the task. Thread-safe."""

    def deliver(self, message: Message, task_id: str, reply: bytes) -> Sequence[Publication]:
        """Store the encoded result, or return what to send together with the ack.

        Raises:
            QueueCoreError: it could not be stored; the message must not be acked.
        """
