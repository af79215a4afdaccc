"""A function that can run elsewhere: called, it is the function; with ``delay``, a message."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast

from queue_core import Queue, UsageError
from queue_core.worker.outcome import TaskInfo
from queue_core.worker.request import Request
from queue_core.worker.results.result import AsyncResult

P = ParamSpec("P")
R = TypeVar("R")


class SendOptions(TypedDict, total=False):
    """How a task is sent; each of them replaces the task's own.

    Keys:
        queue: the queue, by name or as a value; it is declared if needed.
        countdown: seconds before the task may start. The broker holds it back, not a worker.
        priority: 0 to 9, higher first, in queues with ``max_priority``.
        expires: seconds after which it is not worth starting any more.
        task_id: a unique id; generated if not given.
        headers: more headers for the message.
        ignore_result: nobody will ask for the result.
        serializer: for the arguments: ``json``, ``msgpack``, ...
    """

    queue: Queue | str | None
    countdown: float | None
    priority: int | None
    expires: float | None
    task_id: str | None
    headers: Mapping[str, Any] | None
    ignore_result: bool | None
    serializer: str | None


class Sender(Protocol):
    """What a task needs of its app."""

    def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[Any]:
        """Send a task by name; see `App.send_task`."""

    def send_many(
        self, name: str, calls: Iterable[Sequence[Any]], **options: Unpack[SendOptions]
    ) -> list[AsyncResult[Any]]:
        """Send a task many times; see `App.send_many`."""

    @property
    def request(self) -> Request | None:
        """The run that the current thread is in the middle of."""


class Task(Generic[P, R]):
    """Made by ``@app.task``. Immutable; safe to use from any thread.

    Attributes:
        name: what it is called on the wire.
        function: the function itself.
        options: how it is sent unless the call says otherwise.
    """

    def __init__(
        self, sender: Sender, function: Callable[P, R], name: str, options: SendOptions
    ) -> None:
        """Wrap ``function``; nothing is sent or connected."""
        self.name = name
        self.function = function
        self.options = options
        self._sender = sender
        self._signature = inspect.signature(function)
        functools.update_wrapper(cast(Callable[..., Any], self), function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments; blocks and raises as `apply_async` does."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """Send the task; blocks until the broker has it, at most its timeout.

        Args:
            args, kwargs: the arguments; they must fit the function.
            options: see `SendOptions`.

        Raises:
            TypeError: the arguments do not fit the function.
            Unsupported: the broker cannot do what an option asks for, such as a countdown.
            QueueCoreError: see `queue_core.Producer.publish`.
        """
        named = {} if kwargs is None else kwargs
        try:
            self._signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(
                f"task {self.name}: {error}; its signature is {self.name}{self._signature}"
            ) from None
        merged = self.options.copy()
        merged.update(options)
        return self._sender.send_task(self.name, args, named, **merged)

    def send_many(
        self, calls: Iterable[Sequence[Any]], **options: Unpack[SendOptions]
    ) -> list[AsyncResult[R]]:
        """Send the task once for each sequence of positional arguments, pipelined.

        Blocks until the broker has every one; much faster than one `delay` after the other. Raises
        as `App.send_many` does; the arguments are not checked against the function.
        """
        merged = self.options.copy()
        merged.update(options)
        return self._sender.send_many(self.name, calls, **merged)

    @property
    def request(self) -> Request:
        """The message that the current run of a task is about.

        Raises UsageError outside of a run by a worker.
        """
        request = self._sender.request
        if request is None:
            raise UsageError(
                f"task {self.name} has no request: it is not being run by a worker in this thread"
            )
        return request

    def info(self) -> TaskInfo:
        """Say what a worker must know of this task."""
        doc = (inspect.getdoc(self.function) or "").partition("\n")[0]
        return TaskInfo(
            self.name,
            str(self._signature),
            doc,
            ignore_result=bool(self.options.get("ignore_result")),
        )

    def __repr__(self) -> str:
        """Name the task."""
        return f"<Task {self.name}{self._signature}>"
