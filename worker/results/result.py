"""The handle on a task that was sent."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from queue_core import Deadline, SystemClock, TransportError, UsageError
from queue_core.worker.failure import Errors
from queue_core.worker.results.base import AGAIN, PATIENCE, Results, Wake
from queue_core.worker.results.wire import Result, State

R = TypeVar("R")

ORDINARY: Final = Errors()


class Origin(Protocol):
    """Where handles come from, and what they ask for: the app, in this process."""

    @property
    def errors(self) -> Errors:
        """Which exceptions may be made of failures."""

    def results(self) -> Results:
        """Return the side of the results that waits."""

    def result_of(self, task_id: str, *, must: bool = True) -> AsyncResult[Any]:
        """Return the handle on a task that was sent before.

        Without ``must`` one that has no result where results reach only the sender.
        """

    def revoke(self, ids: Sequence[str], *, terminate: bool, signal: str) -> None:
        """Tell all workers that these tasks shall not run."""

    def save(self, group_id: str, ids: Sequence[str]) -> None:
        """Keep which tasks a group has."""

    def drop(self, group_id: str) -> None:
        """Forget which tasks a group has."""


class AsyncResult(Generic[R]):
    """One run of a task, sent but perhaps not finished. Safe to use from any thread.

    Attributes:
        id: the task id.
        parent: the result of what runs before it in its chain, or of its chord's header.
    """

    def __init__(
        self,
        task_id: str,
        origin: Origin | None = None,
        kept: object = None,
        *,
        sent: bool = True,
        result: Result | None = None,
        parent: AsyncResult[Any] | None = None,
        errors: Errors = ORDINARY,
    ) -> None:
        """Made by `Task.delay` and its like.

        Args:
            task_id: of the run.
            origin: what it asks; None for one that ran here.
            kept: what `Results.expect` returned; None: its result is ignored.
            sent: this process knows that it was sent.
            result: what became of it, if that is known already.
            parent: see above.
            errors: which exceptions may be made of failures, if ``origin`` does not say.
        """
        self.id = task_id
        self.parent = parent
        self._origin = origin
        self._kept = kept
        self._sent = sent
        self._result = result
        self._errors = errors if origin is None else origin.errors

    # --- waiting ---------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: FBT001, FBT002 - celery's
        """Return what the task returned; wait for it at most ``timeout`` seconds (None: for ever).

        For ever also if it never comes: nobody sent the task, or the result has expired (both are
        ``UNKNOWN`` in `state`), or the message was purged. What expires ends when a
        worker takes it.

        With ``propagate=False`` an error is returned, not raised.

        Raises:
            Exception: the task failed over there; the remote traceback is a note of the error. It
                is of the same class as there if that is an ordinary one of Python or queue_core, or
                was allowed by `App.allow_error`. Else it is:
            RemoteError: with the name of the class, and the text.
            TimeoutError: no result within ``timeout``; the task may still be waiting or running. A
                task's own ``TimeoutError`` is a `RemoteError`.
            UsageError: the results of this task are ignored.
        """
        result = self._result
        if result is None or not result.ended:
            deadline = Deadline.after(timeout, SystemClock())
            result = self._backend().wait(self.id, self._kept, deadline)
        if result is None:
            raise TimeoutError(
                f"no result of task {self.id} within {timeout:g} s"
                if timeout is not None
                else f"no result of task {self.id}"
            )
        self._result = result
        if result.failure is None:
            return cast(R, result.value)
        error = self._rebuild(result)
        if propagate:
            raise error
        return cast(R, error)

    def wait(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: FBT001, FBT002 - celery's
        """As `get`, by celery's other word for it."""
        return self.get(timeout, propagate)

    def __await__(self) -> Generator[Any, None, R]:
        """As `get`, in an event loop, which it does not block. As many as you like may wait."""
        return self._arrival().__await__()

    async def _arrival(self) -> R:
        # asyncio takes tens of milliseconds to import, and most processes never need it.
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so have we
                loop.call_soon_threadsafe(arrived.set)

        while (pause := await loop.run_in_executor(None, self.watch, wake)) is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(arrived.wait(), pause)
            arrived.clear()
        return self.get()

    def watch(self, wake: Wake) -> float | None:
        """Have ``wake`` called, on some thread, when the task has ended; None: it has already.

        Returns the seconds after which to ask again, in case that word is lost. May block for round
        trips.
        """
        if self._result is None or not self._result.ended:
            try:
                result = self._backend().attend(self.id, self._kept, wake)
            except TransportError as error:
                if not error.retryable:
                    raise
                return AGAIN
            if result is None or not result.ended:
                return PATIENCE
            self._result = result
        return None

    # --- looking ---------------------------------------------------------------------------------

    @property
    def ignored(self) -> bool:
        """Nobody wants the result, so there is none to wait for."""
        return self._result is None and (self._origin is None or self._kept is None)

    def ready(self) -> bool:
        """Whether the task has ended, well or not. May ask the backend once."""
        result = self._look()
        return result is not None and result.ended

    def successful(self) -> bool:
        """Whether the task has returned. May ask the backend once."""
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        """Whether the task has failed. May ask the backend once."""
        return self.state == "FAILURE"

    @property
    def known(self) -> bool:
        """Whether it was sent, as far as can be told: by this process, or the backend has heard.

        A task that waits in a queue and was sent elsewhere is known only if its sender has the
        setting ``task_track_sent``. May ask the backend once.
        """
        return self.state != "UNKNOWN"

    @property
    def state(self) -> State:
        """What is known of it. May ask the backend once, unless it has ended.

        ``UNKNOWN``
            Nobody has heard of it: it was not sent, its result has expired, or see `known`.
        ``PENDING``
            It was sent and has not begun, or will not say so.
        ``RECEIVED``, ``STARTED``
            A worker has it; it runs. Only of tasks with ``track_started``.
        ``RETRY``
            It failed and will be run again; `info` is the error.
        ``SUCCESS``, ``FAILURE``, ``REVOKED``
            It has ended. The last one was not run, or not to its end: it was revoked or expired.
        Any other
            What the task says itself, by `Task.update_state`; `info` is what it says besides.
        """
        result = self._look()
        status = "UNKNOWN" if result is None else result.status
        return "PENDING" if status == "UNKNOWN" and self._sent else status

    @property
    def status(self) -> State:
        """As `state`, by celery's other word for it."""
        return self.state

    @property
    def result(self) -> Any:
        """What the task returned, or the error that it failed with; None before it ended.

        Of one that is ``STARTED`` what is known of its run, and in a state of the task's own what
        it said with it. May ask the backend once.
        """
        result = self._look()
        if result is None:
            return None
        return result.value if result.failure is None else self._rebuild(result)

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
    def queue(self) -> str | None:
        """Where its message was taken from, once it has ended; None if that is not known."""
        result = self._look()
        return None if result is None else result.queue

    @property
    def worker(self) -> str | None:
        """The name of the worker that ran it, once it has ended; None if that is not known."""
        result = self._look()
        return None if result is None else result.worker

    @property
    def retries(self) -> int:
        """How often it was tried again, once it has ended."""
        result = self._look()
        return 0 if result is None else result.retries

    @property
    def date_done(self) -> str | None:
        """When it ended, in ISO 8601; None before."""
        result = self._look()
        return None if result is None else result.date_done

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """The tasks that it sent, once it has ended; without results where those are by rpc."""
        result = self._look()
        if result is None:
            return []
        if self._origin is None:
            return [AsyncResult(child) for child in result.children]
        return [self._origin.result_of(child, must=False) for child in result.children]

    def collect(self, timeout: float | None = None) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """Yield it, the tasks that it sent, those that they sent ..., each with its value.

        Waits for each of them, at most ``timeout`` seconds in all. Raises as `get` does.
        """
        deadline = Deadline.after(timeout, SystemClock())
        waiting: list[AsyncResult[Any]] = [self]
        for result in waiting:
            yield result, result.get(left_of(deadline))
            waiting += result.children

    # --- doing -----------------------------------------------------------------------------------

    def forget(self) -> None:
        """Drop the result, wherever it is kept; it cannot be had any more. Blocks for a round trip.

        Do this when the task has ended: the result of one that still runs will be kept again.
        """
        self._backend().forget(self.id)
        self._result = None

    def revoke(self, *, terminate: bool = False, signal: str = "SIGTERM") -> None:
        """Tell all workers not to run it, with ``terminate`` also to end it if it runs already.

        Its state is ``REVOKED`` when a worker comes to it. Blocks until the broker has the word.
        """
        if self._origin is None:
            raise UsageError(f"task {self.id} ran here; there is nobody to tell")
        self._origin.revoke(self._ids(), terminate=terminate, signal=signal)

    def _ids(self) -> list[str]:
        return [self.id]

    # --- the rest --------------------------------------------------------------------------------

    def _look(self) -> Result | None:
        result = self._result
        if result is None or not result.ended:
            result = result if self._origin is None else self._poll()
            self._result = result if result is not None and result.ended else self._result
        return result

    def _poll(self) -> Result | None:
        return self._backend().poll(self.id, self._kept)

    def _rebuild(self, result: Result) -> Exception:
        assert result.failure is not None
        return self._errors.rebuild(result.failure)

    def _backend(self) -> Results:
        if self._origin is None or self._kept is None:  # it is ignored
            raise UsageError(
                f"the result of task {self.id} is ignored; send it with ignore_result=False"
            )
        return self._origin.results()

    def __eq__(self, other: object) -> bool:
        """Whether it is about the same run."""
        return isinstance(other, AsyncResult) and self.id == other.id

    def __hash__(self) -> int:
        """By its id."""
        return hash(self.id)

    def __str__(self) -> str:
        """Its id."""
        return self.id

    def __repr__(self) -> str:
        """Name the task's id."""
        return f"<{type(self).__name__} {self.id}>"


def left_of(deadline: Deadline) -> float | None:
    """Return the seconds until a deadline as a timeout: None if there is none."""
    left = deadline.remaining()
    return None if left == float("inf") else left
