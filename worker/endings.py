"""How a task can end other than by returning or failing: what it raises to say so.

::

    Exception
    +-- Retry                  run it again, later; made by Task.retry
    +-- Reject                 give the message up, or back to its queue
    +-- Ignore                 it is done, and there is no result
    |   +-- Replaced           another task takes its place; made by Task.replace
    +-- MaxRetriesExceeded     it was retried often enough
"""

from __future__ import annotations

from typing import Any

from queue_core.worker.failure import describe_exception, readable
from queue_core.worker.signature import Signature


class Retry(Exception):
    """The task shall run again.

    Attributes:
        again: how it is sent.
        delay: seconds until then.
        error: why; None if the task did not say.
    """

    def __init__(
        self, again: Signature[Any], delay: float, error: BaseException | None = None
    ) -> None:
        """Made by `Task.retry`."""
        self.again = again
        self.delay = delay
        self.error = error
        why = f": {describe_exception(error)}" if error is not None else ""
        super().__init__(f"retry in {delay:g} s{why}")


class Reject(Exception):
    """The message goes to the dead letters, or back to its queue.

    Attributes:
        reason: for the dead letter and the log.
        requeue: back to its queue.
    """

    def __init__(self, reason: object = "rejected by the task", requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - celery's
        """``raise Reject("no such customer", requeue=False)``."""
        self.reason = readable(str(reason))
        self.requeue = requeue
        super().__init__(self.reason)


class Ignore(Exception):
    """The task is done; no result is kept or sent, and nothing that was linked to it follows."""


class Replaced(Ignore):
    """Another task takes its place.

    Attributes:
        by: the other one, with the id of this.
    """

    def __init__(self, by: Signature[Any]) -> None:
        """Made by `Task.replace`."""
        self.by = by
        super().__init__(f"replaced by {by!r}")


class MaxRetriesExceeded(Exception):
    """The task asked for another try, but has had as many as it may."""
