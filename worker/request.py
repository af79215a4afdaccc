"""What a running task can know of the message that it runs for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Request(msgspec.Struct, frozen=True):
    """The current run, as `queue_core.worker.task.Task.request` gives it inside a task.

    Attributes:
        id, name: of the run and its task.
        queue: where the message was taken from.
        attempts: which delivery this is, 1 for the first; 0 where the broker cannot count.
        redelivered: it was delivered before, perhaps to a worker that died in the middle.
        retries: how often the task was retried before.
        root_id, parent_id: the run that began it all, and the one that sent this.
        headers: all headers of the message.
    """

    id: str
    name: str
    queue: str
    attempts: int
    redelivered: bool
    retries: int
    root_id: str | None
    parent_id: str | None
    headers: Mapping[str, Any]
