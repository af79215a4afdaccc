"""Running one job: from an encoded message to an outcome. Knows nothing of brokers, pools or acks.

Whatever the message holds and whatever the task does, `run_job` returns an outcome and never
raises: a worker must survive every message. What follows the run - links, the next of its chain, a
retry - is composed here, by the app's own rules, and sent by the worker together with the ack.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Generator, Iterable, Mapping
from datetime import tzinfo
from typing import Any

import msgspec

from queue_core import MessageError, QueueCoreError, TooLarge, UsageError
from queue_core.worker.app import App
from queue_core.worker.failure import Failure, describe_exception
from queue_core.worker.failure_effects import effects_of_failure
from queue_core.worker.following import after_success, children, chord_part
from queue_core.worker.messages import read_message
from queue_core.worker.outcome import (
    ChordPart,
    Done,
    Failed,
    Job,
    Letter,
    Ran,
    Rejected,
    Retried,
    Skipped,
)
from queue_core.worker.protocol import NOTHING_FOLLOWS
from queue_core.worker.request import Request, Say, unheard
from queue_core.worker.results.wire import RunInfo, encode_failure, encode_success
from queue_core.worker.running import Ending, Guard, drive, run, unguarded
from queue_core.worker.signature import Signature
from queue_core.worker.suggestions import hint
from queue_core.worker.task import Task
from queue_core.worker.timestamps import seconds_until
from queue_core.worker.unfolding import unfold

Steps = Generator[Awaitable[Any], Any, tuple[Ran, bool]]


def run_job(app: App, job: Job, guard: Guard = unguarded, say: Say = unheard) -> tuple[Ran, bool]:
    """Run a job in this thread; return its outcome, and whether the process should be replaced.

    The latter is so after a task that tried to end the process or ran out of memory. What an
    ``async def`` task awaits runs on the event loop of this process while this thread waits.
    """
    return drive(job_steps(app, job, guard, say))


def job_steps(app: App, job: Job, guard: Guard = unguarded, say: Say = unheard) -> Steps:
    """Run a job; where the task gives something to await, yield it and be sent its value.

    ``say`` is called, on any thread of the task's, when that says how far it has come.

    Returns what `run_job` returns. Everything but the awaiting happens in the calling thread.
    """
    try:
        properties = job.properties()
    except MessageError as error:
        return Rejected(f"{type(error).__name__}: {error}"), False
    try:
        call = read_message(properties, job.body, app.settings.accept_content)
    except (MessageError, UsageError) as error:
        return Rejected(f"{type(error).__name__}: {error}", type(error).__name__), False
    task = app.find_task(call.name)
    if task is None:
        return Rejected(unknown_task(call.name, app.tasks), "NotRegistered"), False
    if call.expires is not None and _is_over(call.expires, app.composer.zone):
        return Skipped("expired"), False
    request = Request(
        call,
        headers=properties.headers,
        queue=job.queue,
        attempts=job.attempts,
        redelivered=job.redelivered,
        priority=properties.priority,
        hostname=app.hostname,
        say=say,
    )
    finished = _Finished(app, task, request)
    ending = yield from run(
        task,
        request,
        finished.of,
        guard,
        call.soft_limit or job.soft_limit,
        call.hard_limit or job.hard_limit,
    )
    return finished.outcome(ending), ending.fatal


class _Finished:
    """From the ending of one run to its outcome."""

    def __init__(self, app: App, task: Task[..., Any], request: Request) -> None:
        self._app = app
        self._call = request.call
        self._request = request
        self._ignored = request.call.ignore_result or bool(task.ignore_result)
        self._errors = not self._ignored or task.store_errors_even_if_ignored
        self._ran = RunInfo(request.hostname, request.queue, request.children)

    def of(self, value: Any) -> object | Failure:
        """Encode what was returned and what follows it, or say why that cannot be."""
        call = self._call
        part: ChordPart | None = None
        letters: list[Letter] = []
        if call.embed is not NOTHING_FOLLOWS:
            part = chord_part(call) if not call.embed.chain else None
            try:
                following = after_success(call, value)
                letters = self._letters(following)
            except QueueCoreError as error:
                return _not_sent("what follows the task", error)
            self._request.children += [task.options["task_id"] for task in following]
        try:
            reply = b""
            if not self._ignored or part is not None:
                reply = self._encoded(value)
        except TooLarge as error:
            return Failure(TooLarge.__name__, TooLarge.__module__, [str(error)])
        except MessageError as error:
            return Failure("EncodeError", __name__, [f"the result cannot be sent: {error}"])
        return Done(reply, 0.0, letters, part)

    def _encoded(self, value: Any) -> bytes:
        """Encode a result, without the arguments if it is too large with them."""
        for ran in (self._ran, self._briefly()):
            with contextlib.suppress(TooLarge):  # for a message
                reply = encode_success(self._call, value, ran=ran)
                if not self._too_large(reply):
                    return reply
        raise TooLarge(
            "the result has more bytes than result_max_size, or than a message can have; keep it "
            "elsewhere, and return where"
        )

    def _briefly(self) -> RunInfo:
        return msgspec.structs.replace(self._ran, arguments=False)

    def _too_large(self, reply: bytes) -> bool:
        limit = self._app.settings.result_max_size
        return limit is not None and len(reply) > limit

    def outcome(self, ending: Ending) -> Ran:
        """Return the outcome of a run that has ended."""
        seconds = ending.seconds
        if ending.retry is not None:
            return self._retried(ending)
        if ending.reject is not None:
            return Rejected(ending.reject.reason, "Reject", ending.reject.requeue)
        if ending.failure is not None:
            return self._failed(ending.failure, seconds, expected=ending.expected)
        if ending.replaced is not None:
            return self._replaced(ending.replaced, seconds)
        if ending.ignored:
            return Done(b"", seconds)
        done: Done = ending.finished
        done.seconds = seconds
        return done

    def _retried(self, ending: Ending) -> Ran:
        retry = ending.retry
        assert retry is not None
        why = describe_exception(retry.error or retry)
        try:
            letter = self._app.composer.compose(retry.again)
        except QueueCoreError as error:
            return self._failed(_not_sent("the retry", error), ending.seconds)
        reply = b""
        if not self._ignored:
            reply = encode_failure(self._call, why, ran=self._ran, status="RETRY")
        return Retried(letter, reply, str(why)[:500], retry.delay, ending.seconds)

    def _replaced(self, by: Signature[Any], seconds: float) -> Ran:
        try:
            letters = self._letters(children(unfold(by), self._call))
        except QueueCoreError as error:
            return self._failed(_not_sent("what replaces the task", error), seconds)
        return Done(b"", seconds, letters)

    def _failed(self, failure: Failure, seconds: float, *, expected: bool = False) -> Failed:
        effects = effects_of_failure(
            self._app.composer,
            self._call,
            failure,
            queue=self._request.queue,
        )
        reply = encode_failure(self._call, failure, ran=self._ran) if self._errors else b""
        if self._too_large(reply):
            reply = encode_failure(self._call, failure.shortened(), ran=self._briefly())
        return Failed(
            reply,
            str(failure)[:500],
            seconds,
            failure.trace,
            effects.letters,
            effects.chord,
            effects.replies,
            expected,
        )

    def _letters(self, signatures: Iterable[Signature[Any]]) -> list[Letter]:
        hook = self._app.hooks.before_publish
        letters = []
        for signature in signatures:
            if hook:
                hook.tell(signature)
            letters.append(self._app.composer.compose(signature))
        return letters


def _not_sent(what: str, error: Exception) -> Failure:
    return Failure(type(error).__name__, __name__, [f"{what} cannot be sent: {error}"])


def _is_over(moment: str, zone: tzinfo) -> bool:
    """Whether an ISO 8601 time is over; one that is not understood never is."""
    left = seconds_until(moment, "expires", zone)
    return left is not None and left <= 0


def unknown_task(name: str, tasks: Mapping[str, object]) -> str:
    """Say that there is no such task, and name the nearest."""
    return f"there is no task {name!r}{hint(name, tasks)}"
