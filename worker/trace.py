"""Running one job: from an encoded message to an outcome. Knows nothing of brokers, pools or acks.

Whatever the message holds and whatever the task does, `run_job` returns an outcome and never
raises: a worker must survive every message.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from queue_core import MessageError, Properties, UsageError, decode, encode
from queue_core.worker.app import App
from queue_core.worker.limits import TaskTerminated
from queue_core.worker.outcome import Done, Failed, Job, Ran, Rejected
from queue_core.worker.protocol import (
    Call,
    Failure,
    describe_exception,
    failure,
    read_call,
    success,
)
from queue_core.worker.request import Request
from queue_core.worker.task import Task

logger = logging.getLogger(__name__)

_OUR_FRAMES = 2
_FATAL = (MemoryError, SystemExit, KeyboardInterrupt, TaskTerminated)

Guard = Callable[[float | None, float | None], AbstractContextManager[None]]
"""What a pool puts around the task's own code, and nothing else: there, and only there, it may
raise `queue_core.worker.limits.SoftTimeLimitExceeded` or `TaskTerminated`.

It is given the soft and the hard limit of the run, in seconds or None.
"""

_unguarded = contextlib.nullcontext()
Steps = Generator[Awaitable[Any], Any, tuple[Ran, bool]]


def unguarded(_soft: float | None, _hard: float | None) -> AbstractContextManager[None]:
    """For pools that cannot interrupt a task."""
    return _unguarded


def run_job(app: App, job: Job, guard: Guard = unguarded) -> tuple[Ran, bool]:
    """Run a job in this thread; return its outcome, and whether the process should be replaced.

    The latter is so after a task that tried to end the process or ran out of memory. What an
    ``async def`` task awaits runs on the event loop of this process while this thread waits.
    """
    steps = job_steps(app, job, guard)
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
        result: tuple[Ran, bool] = end.value
        return result


def job_steps(app: App, job: Job, guard: Guard = unguarded) -> Steps:
    """Run a job; where the task gives something to await, yield it and be sent its value.

    Returns what `run_job` returns. Everything but the awaiting happens in the calling thread.
    """
    try:
        properties = job.properties()
    except MessageError as error:
        return _rejected(f"{type(error).__name__}: {error}", type(error).__name__, None), False
    try:
        payload = decode(
            job.body,
            properties.content_type,
            properties.content_encoding,
            _text(properties.headers.get("compression")),
            accept=app.accept,
        )
        call = read_call(properties.headers, payload, properties.correlation_id)
    except (MessageError, UsageError) as error:
        return _rejected(
            f"{type(error).__name__}: {error}", type(error).__name__, _nameless(job, properties)
        ), False
    task = app.tasks.get(call.name)
    if task is None:
        return _rejected(unknown_task(call.name, app.tasks), "NotRegistered", call), False
    return (yield from _run(app, task, call, job, properties.headers, guard))


def _run(
    app: App,
    task: Task[..., Any],
    call: Call,
    job: Job,
    headers: Mapping[str, Any],
    guard: Guard,
) -> Steps:
    request = Request(
        call.id,
        call.name,
        job.queue,
        job.attempts,
        job.redelivered,
        call.retries,
        call.root_id,
        call.parent_id,
        headers,
    )
    soft, hard = _limits(headers, job)
    started = time.perf_counter()
    try:
        with app.running(request), guard(soft, hard):
            value = task.function(*call.args, **call.kwargs)
            if inspect.isawaitable(value):
                value = yield value
        reply = encode(success(call, value, date_done=_now()), "json").body
    except MessageError as error:
        what = Failure("EncodeError", __name__, [f"the result cannot be sent: {error}"])
        return _failed(call, what, time.perf_counter() - started), False
    except (
        BaseException
    ) as error:  # SystemExit and the like, too, are failures of the task, not of the worker
        what = describe_exception(error, skip_frames=_OUR_FRAMES - 1)
        fatal = isinstance(error, _FATAL)
        return _failed(call, what, time.perf_counter() - started), fatal
    return Done(reply, time.perf_counter() - started), False


def _limits(headers: Mapping[str, Any], job: Job) -> tuple[float | None, float | None]:
    """The soft and the hard limit: the message's own before those of task and worker."""
    said = headers.get("timelimit")
    if not isinstance(said, list | tuple) or len(said) != 2:
        return job.soft_limit, job.hard_limit
    hard, soft = said
    return _seconds(soft, job.soft_limit), _seconds(hard, job.hard_limit)


def _seconds(value: object, other: float | None) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    return other


def failure_reply(task_id: str, name: str, what: Failure) -> bytes:
    """Return the encoded failure of a task that never got as far as to fail by itself."""
    return _encode_failure(Call(name, task_id, [], {}), what)


def _failed(call: Call, what: Failure, seconds: float) -> Failed:
    return Failed(_encode_failure(call, what), str(what)[:500], seconds, what.trace)


def _rejected(reason: str, type_name: str, call: Call | None) -> Rejected:
    if call is None:
        return Rejected(reason)
    return Rejected(reason, _encode_failure(call, Failure(type_name, __name__, [reason])))


def _encode_failure(call: Call, what: Failure) -> bytes:
    try:
        return encode(failure(call, what, date_done=_now()), "json").body
    except MessageError:
        short = Failure(what.type_name, what.module, [repr(what.text[:500])])
        return encode(failure(call, short, date_done=_now()), "json").body


def _nameless(job: Job, properties: Properties) -> Call | None:
    """As much of a call as the headers of an unreadable message give."""
    task_id = _text(properties.headers.get("id")) or properties.correlation_id
    return Call(job.name, task_id, [], {}) if task_id else None


def unknown_task(name: str, tasks: Mapping[str, object]) -> str:
    """Say that there is no such task, and name the nearest."""
    near = difflib.get_close_matches(name, list(tasks), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no task {name!r}{hint}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _now() -> str:
    return datetime.now(UTC).isoformat()
