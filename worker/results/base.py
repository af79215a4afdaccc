"""What results need of a backend, on both sides.

There are two backends. ``rpc`` sends each result to a queue of the process that waits, and works on
every broker. ``key_value`` keeps results under their task's id, so that any process can read them,
on brokers with `queue_core.KeyValue` or at a second URL.

Whoever waits is woken by a message in the reply queue of its process, with both of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from queue_core import Deadline, Message, Publication
from queue_core.worker.results.wire import Result

RESULT_TYPE = "application/json"
RESULT_ENCODING = "utf-8"

Wake = Callable[[], None]


class Results(Protocol):
    """The side that waits. Thread-safe."""

    def reply_to(self) -> str | None:
        """Return the message's ``reply_to``; the first call may declare a queue."""

    def expect(self, task_id: str) -> object:
        """Get ready for the result, before the task is sent.

        The answer is kept by whoever waits: when it is dropped, so may be the result.
        """

    def announce(self, task_ids: Sequence[str]) -> None:
        """Note that these are about to be sent, if the app wants that; one round trip then."""

    def recall(self, task_id: str) -> tuple[object, bool]:
        """Like `expect` for a task that was sent before, perhaps by another process.

        Returns the same, and whether this process knows that it was sent.

        Raises Unsupported where that cannot work.
        """

    def poll(self, task_id: str, kept: object) -> Result | None:
        """Return what is known of the run, None if nothing. May ask the backend once."""

    def wait(self, task_id: str, kept: object, deadline: Deadline) -> Result | None:
        """Return the result of a run that has ended, or None at the deadline."""

    def attend(self, task_id: str, kept: object, wake: Wake) -> Result | None:
        """Call ``wake`` once when the run has ended; if it has, return its result instead.

        May block for round trips. ``wake`` is called on some other thread, and perhaps not at all
        if a message is lost: who waits asks again from time to time, at most every `PATIENCE`
        seconds.
        """

    def forget(self, task_id: str) -> None:
        """Drop the result, wherever it is kept. May block for a round trip."""

    def close(self) -> None:
        """Give everything back; may be called twice."""


PATIENCE = 5.0
"""Seconds after which who waits for a result looks whether it missed the message that wakes it."""
AGAIN = 0.1
"""Seconds after which it asks again if the backend is away."""


class Reply(NamedTuple):
    """An encoded result, of the task of this message or of one that will never run because of it.

    Attributes:
        message: says where the result is wanted.
        task_id: whose result it is; empty if the message does not say.
        body: encoded.
    """

    message: Message
    task_id: str
    body: bytes


class Deliverer(Protocol):
    """The side that ran the task. Thread-safe."""

    def deliver(self, replies: Sequence[Reply]) -> list[Publication]:
        """Store results, and return what to send before or together with the acks.

        May be done again for the same ones without harm.

        Raises:
            QueueCoreError: one could not be stored; no message must be acked.
        """

    def note(self, state: Reply) -> list[Publication]:
        """Store the encoded state of a run that has not ended, or return what to send.

        Nothing happens if it has ended by now. Raises as `deliver` does.
        """
