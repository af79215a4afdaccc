"""Running one job: from an encoded message to an outcome. Knows nothing of brokers, pools or acks.

Whatever the message holds and whatever the task does, `run_job` returns an outcome and never
raises: a worker must survive every message.
"""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from queue_core import MessageError, UsageError, decode, encode
from queue_core.worker.app import App
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


def run_job(app: App, job: Job) -> tuple[Ran, bool]:
    """Run a job in this thread; return its outcome, and whether the process should be replaced.

    The latter is so after a task that tried to end the process or ran out of memory.
    """
    try:
        payload = decode(
            job.body,
            job.content_type,
            job.content_encoding,
            _text(job.headers.get("compression")),
            accept=app.accept,
        )
        call = read_call(job.headers, payload, job.correlation_id)
    except (MessageError, UsageError) as error:
        return _rejected(
            f"{type(error).__name__}: {error}", type(error).__name__, _nameless(job)
        ), False
    task = app.tasks.get(call.name)
    if task is None:
        return _rejected(_unknown(call.name, app.tasks), "NotRegistered", call), False
    return _run(app, task, call, job)


def _run(app: App, task: Task[..., Any], call: Call, job: Job) -> tuple[Ran, bool]:
    request = Request(
        call.id,
        call.name,
        job.queue,
        job.attempts,
        job.redelivered,
        call.retries,
        call.root_id,
        call.parent_id,
        job.headers,
    )
    started = time.perf_counter()
    try:
        with app.running(request):
            value = task.function(*call.args, **call.kwargs)
        reply = encode(success(call, value, date_done=_now()), "json").body
    except MessageError as error:
        what = Failure("EncodeError", __name__, [f"the result cannot be sent: {error}"])
        return _failed(call, what, time.perf_counter() - started), False
    except (
        BaseException
    ) as error:  # SystemExit and the like, too, are failures of the task, not of the worker
        what = describe_exception(error, skip_frames=_OUR_FRAMES - 1)
        fatal = isinstance(error, MemoryError) or not isinstance(error, Exception)
        return _failed(call, what, time.perf_counter() - started), fatal
    return Done(reply, time.perf_counter() - started), False


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


def _nameless(job: Job) -> Call | None:
    """As much of a call as the headers of an unreadable message give."""
    task_id = _text(job.headers.get("id")) or job.correlation_id
    return Call(job.name, task_id, [], {}) if task_id else None


def _unknown(name: str, tasks: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(tasks), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no task {name!r}{hint}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _now() -> str:
    return datetime.now(UTC).isoformat()
