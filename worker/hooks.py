"""Functions that hear what an app does, and functions around each run of a task.

A hook hears: ``@app.hooks.failure`` before a function ``(task, request, error, trace)``. One that
raises is logged and changes nothing. Middleware takes part: ``@app.middleware`` before a function
``(task, request, call)`` that returns ``call()``, or something else, or raises.

These run where the task is sent or runs. What happens in the worker's own process, which imports
no app, is heard by functions that it can import, each from the module that it stands in: see
`Hooks.received` and the three after it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

from queue_core import ConfigError
from queue_core.worker.blueprint import importable_path, load
from queue_core.worker.outcome import Letter
from queue_core.worker.request import Request
from queue_core.worker.signature import Signature

if TYPE_CHECKING:
    from queue_core.worker.delivery import ActiveRequest
    from queue_core.worker.runner import Worker
    from queue_core.worker.task import Task

logger = logging.getLogger(__name__)

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])

Middleware = Callable[["Task[..., Any]", Request, Callable[[], Any]], Any]

TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "before_publish": ("signature",),
    "after_publish": ("letter",),
    "prerun": ("task", "request"),
    "postrun": ("task", "request", "status"),
    "success": ("task", "request", "value"),
    "failure": ("task", "request", "error", "trace"),
    "retry": ("task", "request", "error"),
    "process_init": (),
    "process_shutdown": (),
    "received": ("request",),
    "revoked": ("request", "reason"),
    "worker_ready": ("worker",),
    "worker_shutdown": ("worker",),
}
"""What each hook calls its functions with, by place."""


def _check_takes(name: str, function: Callable[..., object]) -> None:
    """Raise ConfigError if the function cannot be called with what the hook tells."""
    try:
        inspect.signature(function).bind(*TOLD[name])
    except ValueError:  # some written in C do not say
        return
    except TypeError as error:
        shown = getattr(function, "__qualname__", repr(function)[:60])
        raise ConfigError(
            f"hooks.{name} calls its functions with ({', '.join(TOLD[name])}), by place; {shown} "
            f"does not take that: {error}"
        ) from None


class Hook(Generic[P]):
    """One event, and who hears of it: in the order in which they were added."""

    def __init__(self, name: str) -> None:
        """Nobody does yet."""
        self.name = name
        self._functions: list[Callable[P, object]] = []

    def __call__(self, function: Callable[P, object]) -> Callable[P, object]:
        """Let ``function`` hear of it; return it, so that this is a decorator too.

        Raises ConfigError if it does not take what it is told.
        """
        _check_takes(self.name, function)
        self._functions.append(function)
        return function

    def remove(self, function: Callable[P, object]) -> None:
        """Let it hear no more. Raises ValueError if it never did."""
        self._functions.remove(function)

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all of them; none can end the process or its thread, which is not its own."""
        for function in self._functions:
            try:
                function(*args, **kwargs)
            except (Exception, SystemExit):
                logger.exception("a function that hears of %s failed", self.name)

    def __bool__(self) -> bool:
        """Whether anybody hears of it."""
        return bool(self._functions)


class HookByPath(Generic[P]):
    """One event of the worker's own process, and the functions that hear of it, by their places."""

    def __init__(self, name: str) -> None:
        """Nobody does yet."""
        self.name = name
        self.paths: list[str] = []

    def __call__(self, function: Callable[P, object]) -> Callable[P, object]:
        """Let ``function`` hear of it; return it, so that this is a decorator too.

        It must stand at the top of a module, which the worker's process imports, and no other of
        the app; one for such functions alone keeps the tasks out of there.

        Raises:
            ConfigError: another process could not find it, or it does not take what it is told.
        """
        _check_takes(self.name, function)
        self.add(importable_path(function))
        return function

    def add(self, path: str) -> None:
        """Let ``module:name`` hear of it."""
        if path not in self.paths:
            self.paths.append(path)

    def remove(self, function: Callable[P, object]) -> None:
        """Let it hear no more. Raises ValueError if it never did."""
        self.paths.remove(importable_path(function))


class WorkerHooks:
    """Those of `Hooks` that are heard in the worker's own process, there."""

    def __init__(self, paths: Mapping[str, list[str]] | None = None) -> None:
        """Import the functions: name of the hook -> ``module:name`` of each.

        Raises:
            ConfigError: one of them cannot be imported.
        """
        self.received: Hook[[ActiveRequest]] = Hook("received")
        self.revoked: Hook[[ActiveRequest, str]] = Hook("revoked")
        self.worker_ready: Hook[[Worker]] = Hook("worker_ready")
        self.worker_shutdown: Hook[[Worker]] = Hook("worker_shutdown")
        for name, known in (paths or {}).items():
            for path in known:
                getattr(self, name)(load(path))


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
        received: ``(request)``, a `queue_core.worker.delivery.ActiveRequest`: the worker has taken
            a message and hands it to its pool. This and the next ones are heard in the worker's own
            process, and must not block it.
        revoked: ``(request, reason)``: it was not run, or not to its end: ``revoked`` or
            ``expired``.
        worker_ready: ``(worker)``: a `queue_core.worker.runner.Worker` takes messages.
        worker_shutdown: ``(worker)``: everything has stopped and is settled.
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
        self.received: HookByPath[[ActiveRequest]] = HookByPath("received")
        self.revoked: HookByPath[[ActiveRequest, str]] = HookByPath("revoked")
        self.worker_ready: HookByPath[[Worker]] = HookByPath("worker_ready")
        self.worker_shutdown: HookByPath[[Worker]] = HookByPath("worker_shutdown")
        self.around: list[Middleware] = []

    @property
    def of_runs(self) -> bool:
        """Whether anybody hears of how runs end."""
        return bool(self.postrun or self.success or self.failure or self.retry)

    @property
    def paths(self) -> dict[str, list[str]]:
        """What the worker's own process has to import: see `WorkerHooks`."""
        hooks = (self.received, self.revoked, self.worker_ready, self.worker_shutdown)
        return {hook.name: list(hook.paths) for hook in hooks if hook.paths}

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
