"""Celery's task message, protocol 2, and its result message, as plain values.

Pure: nothing here sends, waits or looks at a clock. A task message is a table of headers, a body
``[args, kwargs, embed]`` and the two properties ``correlation_id`` and ``reply_to``; a result is
one JSON object. Both are what celery's own programs write and read, so that theirs and ours can
share a queue. The wire cannot be changed later: names and order of fields here are a contract.

What this version of the worker cannot honour (callbacks, chains, chords) is refused when a message
is read, never ignored.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from queue_core import DecodeError, Unsupported

State = Literal["PENDING", "SUCCESS", "FAILURE"]
Headers = dict[str, Any]

MAX_REPR = 1024
_CANVAS = ("callbacks", "errbacks", "chain", "chord")

_reprs = reprlib.Repr()
_reprs.maxlevel = 4
_reprs.maxlist = _reprs.maxtuple = _reprs.maxset = _reprs.maxdict = 20
_reprs.maxstring = _reprs.maxother = 200


class Call(msgspec.Struct):
    """One request to run a task, as read from a message.

    Attributes:
        name: of the task.
        id: of this run; the same when it is redelivered.
        args, kwargs: the arguments.
        retries: how often the task was retried before.
        root_id, parent_id: the run that began it all, and the one that sent this.
        group: the group that it belongs to.
        ignore_result: nobody wants the result.
        eta: ISO 8601, the time before which it must not start.
    """

    name: str
    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    retries: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    ignore_result: bool = False
    eta: str | None = None


class Failure(msgspec.Struct):
    """A failure as data: an exception object never travels.

    Attributes:
        type_name, module: of the exception's class.
        arguments: its arguments, each a JSON value or its repr.
        trace: the formatted traceback.
    """

    type_name: str
    module: str
    arguments: list[Any]
    trace: str = ""

    @property
    def text(self) -> str:
        """The arguments for people."""
        return ", ".join(str(argument) for argument in self.arguments)

    def __str__(self) -> str:
        """``ValueError: text``."""
        return f"{self.type_name}: {self.text}" if self.arguments else self.type_name


class Result(msgspec.Struct):
    """What became of a run, as read from a result message.

    ``failure`` is set if and only if ``status`` is ``FAILURE``.
    """

    task_id: str
    status: State
    value: Any = None
    failure: Failure | None = None


# --- task messages -------------------------------------------------------------------------------


def task_headers(
    name: str,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    origin: str,
    retries: int = 0,
    root_id: str | None = None,
    parent_id: str | None = None,
    expires: str | None = None,
    ignore_result: bool = False,
) -> Headers:
    """Return the headers of a task message; ``task`` is what marks it as protocol 2."""
    return {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": expires,
        "group": None,
        "group_index": None,
        "retries": retries,
        "timelimit": [None, None],
        "root_id": root_id or task_id,
        "parent_id": parent_id,
        "argsrepr": short_repr(tuple(args)),
        "kwargsrepr": short_repr(dict(kwargs)),
        "origin": origin,
        "ignore_result": ignore_result,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def task_body(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the body of a task message, to be encoded by a serializer."""
    return [list(args), dict(kwargs), dict.fromkeys(_CANVAS)]


def short_repr(value: object) -> str:
    """Return a repr of at most 1,024 characters, for people. Long values are cut; never raises."""
    text = _reprs.repr(value)
    return text if len(text) <= MAX_REPR else f"{text[: MAX_REPR - 3]}..."


def read_call(headers: Mapping[str, Any], payload: Any, correlation_id: str | None = None) -> Call:
    """Read a task message of protocol 2, or of protocol 1 (no headers; the body is an object).

    Raises:
        DecodeError: it is not a task message; says what is missing.
        Unsupported: it asks for callbacks, a chain or a chord.
    """
    if "task" in headers:
        return _read_two(headers, payload, correlation_id)
    if isinstance(payload, dict) and "task" in payload:
        return _read_one(payload)
    raise DecodeError("not a task message: it has no header 'task' and no body with a 'task'")


def _read_two(headers: Mapping[str, Any], payload: Any, correlation_id: str | None) -> Call:
    if isinstance(payload, dict) and "args" in payload:
        payload = [payload.get("args"), payload.get("kwargs"), payload]
    if not isinstance(payload, list | tuple) or len(payload) != 3:
        raise DecodeError("the body of a task message is [args, kwargs, embed]; this one is not")
    args, kwargs, embed = payload
    _refuse_canvas(headers["task"], embed)
    return _call(headers, args, kwargs, headers.get("id") or correlation_id)


def _read_one(body: dict[str, Any]) -> Call:
    _refuse_canvas(body["task"], body)
    return _call(body, body.get("args"), body.get("kwargs"), body.get("id"))


def _call(fields: Mapping[str, Any], args: Any, kwargs: Any, task_id: Any) -> Call:
    args = [] if args is None else args
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(args, list | tuple):
        raise DecodeError(
            f"the positional arguments of a task are a list, not {type(args).__name__}"
        )
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise DecodeError("the keyword arguments of a task are a mapping whose keys are strings")
    if not isinstance(fields["task"], str) or not isinstance(task_id, str):
        raise DecodeError("the name and the id of a task are strings")
    retries = fields.get("retries")
    return Call(
        fields["task"],
        task_id,
        list(args),
        kwargs,
        retries if isinstance(retries, int) else 0,
        _text(fields.get("root_id")),
        _text(fields.get("parent_id")),
        _text(fields.get("group")),
        bool(fields.get("ignore_result")),
        _text(fields.get("eta")),
    )


def _refuse_canvas(name: object, embed: Any) -> None:
    if not isinstance(embed, Mapping):
        return
    for part in _CANVAS:
        if embed.get(part):
            raise Unsupported(
                part,
                "worker",
                f"the message for task {name!r} carries one, and dropping it would lose work",
            )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


# --- results -------------------------------------------------------------------------------------


def success(call: Call, value: Any, *, date_done: str) -> dict[str, Any]:
    """Return the result message of a run that returned ``value``."""
    return _result(call, "SUCCESS", value, None, date_done)


def failure(call: Call, failed: Failure, *, date_done: str) -> dict[str, Any]:
    """Return the result message of a run that failed."""
    what = {
        "exc_type": failed.type_name,
        "exc_message": failed.arguments,
        "exc_module": failed.module,
    }
    return _result(call, "FAILURE", what, failed.trace, date_done)


def _result(
    call: Call, status: State, value: Any, trace: str | None, date_done: str
) -> dict[str, Any]:
    message = {
        "status": status,
        "result": value,
        "traceback": trace,
        "children": [],
        "date_done": date_done,
        "task_id": call.id,
    }
    if call.parent_id:
        message["parent_id"] = call.parent_id
    if call.group:
        message["group_id"] = call.group
    return message


def read_result(payload: Any) -> Result:
    """Read a result message.

    Raises:
        DecodeError: it is none.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("task_id"), str):
        raise DecodeError("not a result message: an object with a 'task_id' was expected")
    status = payload.get("status")
    if status == "SUCCESS":
        return Result(payload["task_id"], "SUCCESS", payload.get("result"))
    if status in ("FAILURE", "REVOKED"):
        return Result(payload["task_id"], "FAILURE", None, _read_failure(payload))
    return Result(payload["task_id"], "PENDING")


def _read_failure(payload: dict[str, Any]) -> Failure:
    trace = payload.get("traceback")
    what = payload.get("result")
    if not isinstance(what, dict):
        return Failure(
            str(payload["status"]).title(), "", [] if what is None else [what], str(trace or "")
        )
    text = what.get("exc_message", [])
    return Failure(
        str(what.get("exc_type", "Exception")),
        str(what.get("exc_module") or ""),
        list(text) if isinstance(text, list | tuple) else [text],
        str(trace or ""),
    )


def describe_exception(error: BaseException, *, skip_frames: int = 0) -> Failure:
    """Turn an exception into data, leaving out ``skip_frames`` of our own frames. Never raises."""
    kind = type(error)
    frames = error.__traceback__
    for _ in range(skip_frames):
        frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
    try:
        trace = "".join(traceback.format_exception(kind, error, frames))
    except Exception as broken:  # a user's __str__ may do anything
        trace = f"the traceback of {kind.__name__} cannot be shown: {type(broken).__name__}\n"
    return Failure(
        kind.__qualname__, kind.__module__, [_plain(argument) for argument in error.args], trace
    )


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return short_repr(value)
