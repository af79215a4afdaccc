"""What is raised inside a task that has run for too long, or that somebody wants to end."""

from __future__ import annotations


class SoftTimeLimitExceeded(Exception):
    """The task has run for its soft time limit, and should clean up and end.

    A task that catches it may go on, until its hard limit kills it.
    """

    def __init__(self, seconds: float) -> None:
        """Keep the limit, in seconds."""
        self.seconds = seconds
        super().__init__(f"the task ran for {seconds:g} s")


class TaskTerminated(BaseException):
    """The task was terminated, or its worker cannot wait for it any longer.

    No `Exception`, so that ``except Exception`` does not swallow it; what a task must put in order
    belongs into ``finally``. If it does not end soon, its process is killed.
    """
