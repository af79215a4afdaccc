"""One run of a task: hooks, the function, retries. What comes out is a value, an `Ending`.

Whatever the task does, `run` ends with an `Ending` and raises nothing: a worker must survive every
task. Nothing is encoded or sent here; the same is done for a message by a worker
(`queue_core.worker.trace`) and for a plain call by `Task.apply` (`queue_core.worker.eager`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import msgspec

from queue_core.worker.endings import Ignore, Reject, Replaced, Retry
from queue_core.worker.failure import Failure, describe_exception
from queue_core.worker.limits import TaskTerminated
from queue_core.worker.request import AsCurrent, Request
from queue_core.worker.signature import Signature
from queue_core.worker.task import Task

logger = logging.getLogger(__name__)

R = TypeVar("R")

Guard = Callable[[float | None, float | None], AbstractContextManager[None]]
"""What a pool puts around the task's own code, and nothing else: there, and only there, it may
raise `queue_core.worker.limits.SoftTimeLimitExceeded` or `TaskTerminated`.

It is given the soft and the hard limit of the run, in seconds or None.
"""

Awaiting = Generator[Awaitable[Any], Any, "Ending"]
Finish = Callable[[Any], "object | Failure"]
"""Makes what the caller needs of a returned value, or says why that cannot be."""

_FATAL: Final = (MemoryError, SystemExit, KeyboardInterrupt, TaskTerminated)
_OURS: Final = frozenset({__file__, inspect.getfile(Task)})
_unguarded = contextlib.nullcontext()


def unguarded(_soft: float | None, _hard: float | None) -> AbstractContextManager[None]:
    """For pools that cannot interrupt a task."""
    return _unguarded


class Ending(msgspec.Struct):
    """How a run ended; the first of these that is set counts.

    Attributes:
        failure: it failed, for good.
        retry: it wants to run again.
        reject: it does not want its message.
        replaced: another one takes its place.
        ignored: it has no result, and nothing follows.
        value: it returned this.
        finished: what `Finish` made of the value.
        expected: the failure is no surprise.
        fatal: the process should be replaced: the task tried to end it, or ran out of memory.
        seconds: how long it ran.
    """

    failure: Failure | None = None
    retry: Retry | None = None
    reject: Reject | None = None
    replaced: Signature[Any] | None = None
    ignored: bool = False
    value: Any = None
    finished: Any = None
    expected: bool = False
    fatal: bool = False
    seconds: float = 0.0


def run(
    task: Task[..., Any],
    request: Request,
    finish: Finish,
    guard: Guard = unguarded,
    soft: float | None = None,
    hard: float | None = None,
) -> Awaiting:
    """Run the task; where it gives something to await, yield that and be sent its value.

    ``finish`` is called with what it returned. If it returns a `Failure` instead of what the caller
    needs, the run failed.
    """
    call = request.call
    hooks = task.app.hooks
    with AsCurrent(request):
        started = time.perf_counter()
        ending = Ending()
        error: BaseException | None = None
        try:
            if "before_start" in task.hooks:
                task.before_start(call.id, call.args, call.kwargs)
            if hooks.prerun:
                hooks.prerun.tell(task, request)
            with guard(soft, hard):
                args = _arguments(task, request)
                if hooks.around:
                    whole = functools.partial(task, *args, **call.kwargs)
                    value = hooks.wrapped(task, request, whole)()
                else:
                    value = task(*args, **call.kwargs)
                if inspect.isawaitable(value):
                    value = yield value
            ending.value = value
            ending.finished = finish(value)
            if isinstance(ending.finished, Failure):
                ending.failure = ending.finished
                error = task.app.errors.rebuild(ending.failure)
        except Exception as raised:
            error = raised
            _end(ending, task, raised)
        except BaseException as raised:  # a failure of the task, not of the worker
            error = raised
            ending.failure = describe_exception(raised, hide=_OURS)
        ending.fatal = isinstance(error, _FATAL)
        ending.seconds = time.perf_counter() - started
        if task.hooks or hooks.of_runs:
            _tell(task, request, ending, error)
        return ending


def _end(ending: Ending, task: Task[..., Any], error: Exception) -> None:
    if isinstance(error, Retry):
        ending.retry = error
    elif isinstance(error, Replaced):
        ending.replaced = error.by
    elif isinstance(error, Ignore):
        ending.ignored = True
    elif isinstance(error, Reject):
        ending.reject = error
    elif task.autoretry_for and (retry := task.retry_after(error)) is not None:
        ending.retry = retry
    else:
        ending.failure = describe_exception(error, hide=_OURS)
        ending.expected = isinstance(error, tuple(task.throws))


def drive(steps: Generator[Awaitable[Any], Any, R]) -> R:
    """Go through ``steps``, return what they return; this thread waits for what they yield.

    That runs on the event loop of this process (`queue_core.worker.loops`).
    """
    try:
        waiting = next(steps)
        # asyncio takes tens of milliseconds to import, and most processes never need it.
        from queue_core.worker import loops  # noqa: PLC0415

        while True:
            try:
                value = loops.run(waiting)
            except BaseException as error:
                waiting = steps.throw(error)
            else:
                waiting = steps.send(value)
    except StopIteration as end:
        result: R = end.value
        return result


def _arguments(task: Task[..., Any], request: Request) -> list[Any]:
    """The arguments; of an error link what it can take of the failed run."""
    args, failed = request.args, request.failed
    if failed is None or not args or args[0] != failed.id:
        return args
    error = task.app.errors.rebuild(failed.failure)
    three = [failed, error, failed.failure.trace, *args[1:]]
    try:
        task.check(three, request.kwargs)
    except TypeError:
        return args
    return three


def _tell(
    task: Task[..., Any], request: Request, ending: Ending, error: BaseException | None
) -> None:
    """Tell the task's own hooks, and the app's; one that raises is logged."""
    hooks = task.app.hooks
    task_id, args, kwargs = request.id, request.args, request.kwargs
    trace = ending.failure.trace if ending.failure is not None else ""
    status: str = "SUCCESS"
    value: Any = ending.value
    try:
        if ending.retry is not None:
            why = ending.retry.error or ending.retry
            status, value = "RETRY", ending.retry
            trace = describe_exception(why, hide=_OURS).trace
            hooks.retry.tell(task, request, why)
            task.on_retry(why, task_id, args, kwargs, trace)
        elif ending.failure is not None:
            assert error is not None
            status, value = "FAILURE", error
            hooks.failure.tell(task, request, error, trace)
            task.on_failure(error, task_id, args, kwargs, trace)
        elif ending.reject is not None or ending.replaced is not None or ending.ignored:
            status, value = ("REJECTED" if ending.reject is not None else "IGNORED"), error
        else:
            hooks.success.tell(task, request, value)
            task.on_success(value, task_id, args, kwargs)
        task.after_return(status, value, task_id, args, kwargs, trace)
    except BaseException:  # SystemExit and the like too: the task has ended
        logger.exception("a hook of task %s failed (%s)", task.name, task_id)
    hooks.postrun.tell(task, request, status)
