"""The handles on what was sent: a task, or a group of tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

from queue_core import RemoteError, UsageError
from queue_core.worker.failure import Failure
from queue_core.worker.results.base import Results
from queue_core.worker.results.wire import Result, State

R = TypeVar("R")


class AsyncResult(Generic[R]):
    """One run of a task, sent but perhaps not finished. Safe to use from any thread.

    Attributes:
        id: the task id.
        parent: the result of what runs before it in its chain, or of its chord's header.
    """

    def __init__(
        self,
        task_id: str,
        results: Results | None,
        kept: object = None,
        *,
        result: Result | None = None,
        parent: AsyncResult[Any] | None = None,
    ) -> None:
        """Made by `Task.delay` and its like.

        ``results`` None means that results are ignored, unless ``result`` is known already.
        """
        self.id = task_id
        self.parent = parent
        self._results = results
        self._kept = kept
        self._result = result

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
            raise as_error(result.failure)
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
    def result(self) -> Any:
        """What the task returned, or the error that it failed with; None before it ended."""
        result = self._look()
        if result is None:
            return None
        return result.value if result.failure is None else as_error(result.failure)

    @property
    def info(self) -> Any:
        """As `result`, by celery's word for it."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The remote traceback of a failed task. May ask the backend once."""
        result = self._look()
        return result.failure.trace if result is not None and result.failure is not None else None

    @property
    def args(self) -> list[Any] | None:
        """The arguments of a task that has ended; None if they are not known."""
        result = self._look()
        return None if result is None else result.args

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """The keyword arguments of a task that has ended; None if they are not known."""
        result = self._look()
        return None if result is None else result.kwargs

    @property
    def name(self) -> str | None:
        """The name of a task that has ended; None if it is not known."""
        result = self._look()
        return None if result is None else result.name

    @property
    def children(self) -> list[str]:
        """The ids of the tasks that it sent, once it has ended."""
        result = self._look()
        return [] if result is None else result.children

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


def as_error(failure: Failure) -> RemoteError:
    """Return the error that is raised for a remote failure, with its traceback as a note."""
    error = RemoteError(failure.type_name, failure.text)
    if failure.trace:
        error.add_note(f"remote traceback:\n{failure.trace.rstrip()}")
    return error


class GroupResult(AsyncResult[list[Any]]):
    """The tasks of one group, sent but perhaps not finished. Safe to use from any thread.

    Attributes:
        results: one for each task of the group, in its order.
    """

    def __init__(
        self,
        group_id: str,
        results: Sequence[AsyncResult[Any]],
        parent: AsyncResult[Any] | None = None,
    ) -> None:
        """Made by sending a group."""
        super().__init__(group_id, None, parent=parent)
        self.results = list(results)

    def get(self, timeout: float | None = None) -> list[Any]:
        """Return the results of all tasks in order; wait at most ``timeout`` seconds in all.

        Raises as `AsyncResult.get` does, for the first task in order that did not succeed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return [
            result.get(None if deadline is None else max(0.0, deadline - time.monotonic()))
            for result in self.results
        ]

    def ready(self) -> bool:
        """Whether all of them have ended. May ask the backend once for each."""
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        """Whether all of them have returned. May ask the backend once for each."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Whether one of them has failed. May ask the backend once for each."""
        return any(result.failed() for result in self.results)

    def completed_count(self) -> int:
        """How many of them have returned. May ask the backend once for each."""
        return sum(result.successful() for result in self.results)

    @property
    def state(self) -> State:
        """``FAILURE`` if one has failed, ``SUCCESS`` if all have returned, else ``PENDING``."""
        if self.failed():
            return "FAILURE"
        return "SUCCESS" if self.successful() else "PENDING"

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        """The results of its tasks."""
        return iter(self.results)

    def __len__(self) -> int:
        """How many tasks it has."""
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[Any]:
        """The result of one of its tasks."""
        return self.results[index]

    def __repr__(self) -> str:
        """Name the group's id."""
        return f"<GroupResult {self.id} of {len(self.results)}>"
