"""Functions that hear what an app does, and functions around each run of a task.

A hook hears: ``@app.hooks.failure`` before a function ``(task, request, error, trace)``. One that
raises is logged and changes nothing. Middleware takes part: ``@app.middleware`` before a function
``(task, request, call)`` that returns ``call()``, or something else, or raises.

All of them run where the task is sent or runs. What happens in the worker's own process, which has
no user code, is for steps (`queue_core.worker.blueprint`) and strategies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from queue_core.worker.outcome import Letter
from queue_core.worker.request import Request
from queue_core.worker.signature import Signature

if TYPE_CHECKING:
    from queue_core.worker.task import Task

logger = logging.getLogger(__name__)

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])

Middleware = Callable[["Task[..., Any]", Request, Callable[[], Any]], Any]


class Hook(Generic[P]):
    """One event, and who hears of it: in the order in which they were added."""

    def __init__(self, name: str) -> None:
        """Nobody does yet."""
        self.name = name
        self._functions: list[Callable[P, object]] = []

    def __call__(self, function: Callable[P, object]) -> Callable[P, object]:
        """Let ``function`` hear of it; return it, so that this is a decorator too."""
        self._functions.append(function)
        return function

    def remove(self, function: Callable[P, object]) -> None:
        """Let it hear no more. Raises ValueError if it never did."""
        self._functions.remove(function)

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all of them; never raises."""
        for function in self._functions:
            try:
                function(*args, **kwargs)
            except Exception:
                logger.exception("a function that hears of %s failed", self.name)

    def __bool__(self) -> bool:
        """Whether anybody hears of it."""
        return bool(self._functions)


class Hooks:
    """The events of one app.

    Attributes:
        before_publish: ``(signature)``: it is about to be encoded; its options may be changed. Of a
            chain or the like: each task that is sent now. Also of what follows a task.
        after_publish: ``(letter)``: the broker has what this process sent itself.
        prerun: ``(task, request)``: it is about to run.
        postrun: ``(task, request, status)``: it has ended, after the next ones: ``SUCCESS``,
            ``FAILURE``, ``RETRY``, ``REJECTED`` or ``IGNORED``.
        success: ``(task, request, value)``.
        failure: ``(task, request, error, trace)``: for good.
        retry: ``(task, request, error)``: it will run again.
        process_init: ``()``: a process that runs tasks has imported the app.
        process_shutdown: ``()``: it is about to end by itself.
    """

    def __init__(self) -> None:
        """Nobody hears anything yet."""
        self.before_publish: Hook[[Signature[Any]]] = Hook("before_publish")
        self.after_publish: Hook[[Letter]] = Hook("after_publish")
        self.prerun: Hook[[Task[..., Any], Request]] = Hook("prerun")
        self.postrun: Hook[[Task[..., Any], Request, str]] = Hook("postrun")
        self.success: Hook[[Task[..., Any], Request, Any]] = Hook("success")
        self.failure: Hook[[Task[..., Any], Request, BaseException, str]] = Hook("failure")
        self.retry: Hook[[Task[..., Any], Request, BaseException]] = Hook("retry")
        self.process_init: Hook[[]] = Hook("process_init")
        self.process_shutdown: Hook[[]] = Hook("process_shutdown")
        self.around: list[Middleware] = []

    @property
    def of_runs(self) -> bool:
        """Whether anybody hears of how runs end."""
        return bool(self.postrun or self.success or self.failure or self.retry)

    def wrapped(
        self, task: Task[..., Any], request: Request, call: Callable[[], Any]
    ) -> Callable[[], Any]:
        """Return ``call`` with all middleware around it, the first one outermost."""
        for middleware in reversed(self.around):
            call = _wrapped(middleware, task, request, call)
        return call


def _wrapped(
    middleware: Middleware, task: Task[..., Any], request: Request, call: Callable[[], Any]
) -> Callable[[], Any]:
    return lambda: middleware(task, request, call)
