"""Running a signature and all that follows it here and now, with no broker: `Task.apply`.

The same rules as in a worker - hooks, retries, links, chains, chords - one task after the other.
Retries do not wait, and arguments are not encoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from queue_core import UsageError
from queue_core.worker.failure import Errors, Failure
from queue_core.worker.following import after_failure, after_success, children, chord_part, lost
from queue_core.worker.message_template import call_of
from queue_core.worker.outcome import ChordPart
from queue_core.worker.protocol import Call
from queue_core.worker.request import Request, current_request
from queue_core.worker.results.groups import GroupResult
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.results.wire import Result
from queue_core.worker.running import drive, run
from queue_core.worker.signature import Signature, as_signature
from queue_core.worker.unfolding import DEADLINE, Handle, freeze, unfold

if TYPE_CHECKING:
    from queue_core.worker.app import App


def run_eagerly(app: App, signature: Signature[Any]) -> AsyncResult[Any]:
    """Run ``signature`` and what follows it; return its result, which is there already.

    Raises:
        UsageError: the app does not know one of the tasks.
    """
    frozen, handle = freeze(signature)
    runs = _Runs(app)
    parent = current_request()
    runs.waiting.extend(children(unfold(frozen), None if parent is None else parent.call))
    while runs.waiting:
        runs.step(runs.waiting.popleft())
    return _result(handle, runs.results, app.errors)


class _Runs:
    """What is to be run, and what became of the rest."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.waiting: deque[Signature[Any]] = deque()
        self.results: dict[str, Result] = {}
        self._chords: dict[str, dict[int, Any]] = {}

    def step(self, signature: Signature[Any]) -> None:
        if signature.task == DEADLINE:
            return  # nothing is late here
        task = self._app.find_task(signature.task)
        if task is None:
            raise UsageError(f"the app has no task {signature.task!r}, it can only send it")
        call = call_of(signature, {**task.send_options(), **signature.options})
        request = Request(call, headers=signature.options.get("headers"), is_eager=True)
        ending = drive(run(task, request, lambda value: value))
        if ending.retry is not None:
            self.waiting.appendleft(ending.retry.again)
        elif ending.replaced is not None:
            self.waiting.extendleft(reversed(children(unfold(ending.replaced), call)))
        elif ending.failure is not None:
            self._failed(call, ending.failure)
        elif ending.reject is not None:
            self._failed(call, Failure("Reject", "", [ending.reject.reason]))
        elif not ending.ignored:
            self._done(call, ending.value)

    def _done(self, call: Call, value: Any) -> None:
        self.results[call.id] = Result(
            call.id, "SUCCESS", value, name=call.name, args=call.args, kwargs=call.kwargs
        )
        self.waiting.extend(after_success(call, value))
        part = chord_part(call)
        if part is not None and not call.embed.chain:
            done = self._chords.setdefault(part.group, {})
            done[part.index] = value
            if len(done) == part.size:
                values = [done[index] for index in sorted(done)]
                body = freeze(as_signature(part.body))[0]
                self.waiting.extend(children(unfold(body, [values]), call))

    def _failed(self, call: Call, failure: Failure) -> None:
        ids, part = lost(call)
        for task_id in (call.id, *ids):
            self.results[task_id] = Result(task_id, "FAILURE", failure=failure)
        self.results[call.id].name = call.name
        self.results[call.id].args, self.results[call.id].kwargs = call.args, call.kwargs
        for errback in call.embed.errbacks or ():
            self.waiting.extend(after_failure(call, errback, failure))
        if part is not None:
            self._chord_failed(part, failure)

    def _chord_failed(self, part: ChordPart, failure: Failure) -> None:
        body = as_signature(part.body)
        if body.id is not None and body.id not in self.results:
            self._failed(call_of(body, {**body.options, "task_id": body.id}), failure)


def _result(handle: Handle, results: Mapping[str, Result], errors: Errors) -> AsyncResult[Any]:
    parent = None if handle.parent is None else _result(handle.parent, results, errors)
    if handle.members is not None:
        found = [_result(one, results, errors) for one in handle.members]
        return GroupResult(handle.id, found, parent)
    result = results.get(handle.id) or Result(handle.id, "PENDING")
    return AsyncResult(handle.id, result=result, parent=parent, errors=errors)
