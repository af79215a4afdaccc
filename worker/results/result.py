"""The handle on a task that was sent."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from queue_core import RemoteError, UsageError
from queue_core.worker.protocol import Failure, Result, State
from queue_core.worker.results.base import Results

R = TypeVar("R")


class AsyncResult(Generic[R]):
    """One run of a task, sent but perhaps not finished. Safe to use from any thread.

    Attributes:
        id: the task id.
    """

    def __init__(self, task_id: str, results: Results | None, kept: object = None) -> None:
        """Made by `Task.delay` and its like; ``results`` None means that results are ignored."""
        self.id = task_id
        self._results = results
        self._kept = kept
        self._result: Result | None = None

    def get(self, timeout: float | None = None) -> R:
        """Return what the task returned; wait for it at most ``timeout`` seconds (None: for ever).

        Raises:
            RemoteError: the task failed over there; the remote traceback is a note of the error.
            TimeoutError: no result within ``timeout``; the task may still be waiting or running.
            UsageError: the results of this task are ignored.
        """
        result = self._result or self._backend().wait(self.id, self._kept, timeout)
        if result is None:
            raise TimeoutError(
                f"no result of task {self.id} within {timeout:g} s"
                if timeout is not None
                else f"no result of task {self.id}"
            )
        self._result = result
        if result.failure is not None:
            raise _as_error(result.failure)
        return cast(R, result.value)

    def ready(self) -> bool:
        """Whether the task has ended, well or not. May ask the backend once."""
        return self._look() is not None

    def successful(self) -> bool:
        """Whether the task has returned. May ask the backend once."""
        result = self._look()
        return result is not None and result.status == "SUCCESS"

    def failed(self) -> bool:
        """Whether the task has failed. May ask the backend once."""
        result = self._look()
        return result is not None and result.status == "FAILURE"

    @property
    def state(self) -> State:
        """``PENDING``, ``SUCCESS`` or ``FAILURE``. May ask the backend once, as celery's does."""
        result = self._look()
        return "PENDING" if result is None else result.status

    @property
    def traceback(self) -> str | None:
        """The remote traceback of a failed task. May ask the backend once."""
        result = self._look()
        return result.failure.trace if result is not None and result.failure is not None else None

    def _look(self) -> Result | None:
        if self._result is None:
            self._result = self._backend().poll(self.id, self._kept)
        return self._result

    def _backend(self) -> Results:
        if self._results is None:
            raise UsageError(
                f"the result of task {self.id} is ignored; send it with ignore_result=False"
            )
        return self._results

    def __repr__(self) -> str:
        """Name the task's id."""
        return f"<AsyncResult {self.id}>"


def _as_error(failure: Failure) -> RemoteError:
    error = RemoteError(failure.type_name, failure.text)
    if failure.trace:
        error.add_note(f"remote traceback:\n{failure.trace.rstrip()}")
    return error
