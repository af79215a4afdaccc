"""What a pool gets and what it gives back: a job, and the outcome of its run, as values.

A pool never settles a message. It says what happened, and the worker's settler turns that into ack,
dead letter or requeue in one place. Jobs and outcomes cross the socket between the worker and its
children, so they hold nothing but plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from queue_core import Queue


class Job(msgspec.Struct, tag="job", array_like=True):
    """One message to run.

    Attributes:
        ticket: names the job between worker and pool; never used twice.
        name: of the task, empty if the message does not say.
        queue, attempts, redelivered: of the delivery.
        content_type, content_encoding, headers, correlation_id: of the message; ``body`` is still
            encoded.
    """

    ticket: int
    name: str
    queue: str
    attempts: int
    redelivered: bool
    content_type: str
    content_encoding: str
    headers: Mapping[str, Any]
    correlation_id: str | None
    body: bytes


class Done(msgspec.Struct, tag="done", array_like=True):
    """The task returned. ``reply`` is the encoded result message, ``seconds`` how long it ran."""

    reply: bytes
    seconds: float


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """The task raised. ``reply`` is the encoded result message, ``error`` one line for the log."""

    reply: bytes
    error: str
    seconds: float
    trace: str = ""


class Rejected(msgspec.Struct, tag="rejected", array_like=True):
    """The message cannot be run and never will be: unknown task, unreadable body.

    ``reply`` is a failure for who waits, if the message was readable enough to have an id.
    """

    reason: str
    reply: bytes | None = None


class Returned(msgspec.Struct, tag="returned", array_like=True):
    """It was not started; somebody else may have it, and it must not count as an attempt."""


class Abandoned(msgspec.Struct, tag="abandoned", array_like=True):
    """It was running when the worker had to end, and did not finish."""


class Crashed(msgspec.Struct, tag="crashed", array_like=True):
    """The process that ran it died; ``how`` says by what."""

    how: str


Outcome = Done | Failed | Rejected | Returned | Abandoned | Crashed

Report = Callable[[int, Outcome], None]
"""How a pool reports the outcome of a ticket, exactly once for each.

Called on the pool's threads; does not block.
"""


class AppInfo(msgspec.Struct, tag="app", array_like=True):
    """What the worker must know of an app that it does not import itself."""

    name: str
    broker: str | None
    backend: str | None
    default_queue: str
    tasks: list[str]
    queues: list[Queue]
    accept: list[str]
    result_ttl: float
