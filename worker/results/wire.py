"""Celery's result message: one JSON object, as a plain value.

Pure but for the time of day. Celery's clients read what is written here, and ours what celery's
workers write. The last six fields, which tell what was run, are those of its ``result_extended``;
ours are always there, so that whoever holds an id can ask what failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from queue_core import DecodeError, MessageError, TooLarge, UsageError, encode
from queue_core.worker.envelopes import opened
from queue_core.worker.failure import Failure, read_failure
from queue_core.worker.protocol import Call
from queue_core.worker.signature import plain
from queue_core.worker.timestamps import utcnow

State = str
"""``UNKNOWN PENDING RECEIVED STARTED RETRY SUCCESS FAILURE REVOKED``, or what a program made up."""

ENDED: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
"""The states that are the last."""
_FAILED: Final = frozenset({"FAILURE", "REVOKED", "RETRY"})
_OURS: Final = ENDED | {"UNKNOWN", "PENDING", "RECEIVED", "RETRY"}


class Result(msgspec.Struct):
    """What became of a run so far, as read from a result message.

    Attributes:
        task_id: of the run.
        status: how it ended, or where it is.
        value: what it returned; while it is ``STARTED``, by which process of whom it is run.
        failure: what went wrong: if it is ``FAILURE`` or ``REVOKED``, and before a ``RETRY``.
        name, args, kwargs: what was run; None if the message does not say.
        worker, queue: where, and where it was taken from.
        retries: how often it was tried again.
        parent_id, group_id: the run that sent it, and its group.
        children: the ids of the runs that it sent itself.
        date_done: ISO 8601.
    """

    task_id: str
    status: State
    value: Any = None
    failure: Failure | None = None
    name: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    worker: str | None = None
    queue: str | None = None
    retries: int = 0
    parent_id: str | None = None
    group_id: str | None = None
    children: list[str] = []
    date_done: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ENDED


class RunInfo(msgspec.Struct):
    """What a result message says of its run; ``arguments``: whether it says the call's, too."""

    worker: str = ""
    queue: str = ""
    children: Sequence[str] = ()
    arguments: bool = True


def success(
    call: Call, value: Any, *, date_done: str, ran: RunInfo | None = None
) -> dict[str, Any]:
    """Return the result message of a run that returned ``value``."""
    return _message(call, "SUCCESS", value, None, date_done, ran)


def failure(
    call: Call,
    failed: Failure,
    *,
    date_done: str,
    ran: RunInfo | None = None,
    status: str = "FAILURE",
) -> dict[str, Any]:
    """Return the result message of a run that failed, or with ``RETRY`` of one that is tried again.

    ``REVOKED`` is for one that was not run at all.
    """
    return _message(call, status, failed.as_wire(), failed.trace, date_done, ran)


def _message(
    call: Call, status: str, value: Any, trace: str | None, date_done: str, ran: RunInfo | None
) -> dict[str, Any]:
    ran = ran or RunInfo()
    message = {
        "status": status,
        "result": _plain(value),
        "traceback": trace,
        "children": [[[child, None], None] for child in ran.children],
        "date_done": date_done,
        "task_id": call.id,
        "name": call.name,
        "args": (call.args and _plain(call.args)) if ran.arguments else None,
        "kwargs": (call.kwargs and _plain(call.kwargs)) if ran.arguments else None,
        "worker": ran.worker or None,
        "retries": call.retries,
        "queue": ran.queue or None,
    }
    if call.parent_id:
        message["parent_id"] = call.parent_id
    if call.group:
        message["group_id"] = call.group
    return message


def _plain(value: Any) -> Any:
    try:
        return plain(value)
    except RecursionError:  # the encoder says what is wrong with it
        return value


def encode_result(message: dict[str, Any]) -> bytes:
    """Encode a result message.

    Raises:
        MessageError: what the task returned has no form in JSON. Arguments that have none, which
            another serializer brought, are left out.
    """
    try:
        return encode(message, "json").body
    except MessageError:
        return encode({**message, "args": None, "kwargs": None}, "json").body


def encode_success(call: Call, value: Any, *, ran: RunInfo | None = None) -> bytes:
    """Return the encoded result of a run that returned ``value``.

    Raises:
        MessageError: it has no form in JSON.
    """
    return encode_result(success(call, value, date_done=_now(), ran=ran))


def encode_failure(
    call: Call, failed: Failure, *, ran: RunInfo | None = None, status: str = "FAILURE"
) -> bytes:
    """Return the encoded result of a run that failed, or did not take place; never raises."""
    message = failure(call, failed, date_done=_now(), ran=ran, status=status)
    try:
        return encode_result(message)
    except MessageError:
        short = failed.shortened()
        return encode_result({**message, "result": short.as_wire(), "traceback": short.trace})


def state(task_id: str, status: State, info: Any = None) -> bytes:
    """Return the encoded message of a run that has not ended."""
    return encode_result(
        {
            "status": status,
            "result": _plain(info),
            "traceback": None,
            "children": [],
            "date_done": None,
            "task_id": task_id,
        }
    )


def progress(task_id: str, status: State, info: Any, limit: int | None) -> bytes:
    """Return the encoded message of a run that says itself how far it has come.

    Raises:
        UsageError: ``status`` is no word, or one for a run that has ended or was not begun.
        MessageError: ``info`` has no form in JSON.
        TooLarge: it has more than ``limit`` bytes.
    """
    if not isinstance(status, str) or not status:
        raise UsageError(f"a state is a word, such as 'PROGRESS', not {status!r:.60}")
    if status in _OURS:
        raise UsageError(
            f"{status!r} is not for a task to say; to end it, return, or raise an error; "
            "to try again: self.retry()"
        )
    said = state(task_id, status, info)
    if limit is not None and len(said) > limit:
        raise TooLarge(
            f"what task {task_id} says of itself has {len(said)} bytes, more than result_max_size"
        )
    return said


class Head(msgspec.Struct):
    """What of a stored result message concerns those who keep it.

    Attributes:
        status: as in `Result`.
        waiting: the queues of processes that want to be told when the run has ended. Those are
            not celery's.
    """

    status: State = "PENDING"
    waiting: list[str] = []

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in ENDED


_heads = msgspec.json.Decoder(Head)


def read_head(body: bytes) -> Head:
    """Read the head of an encoded result message; one that is damaged has an empty one."""
    try:
        return _heads.decode(body)
    except msgspec.MsgspecError:
        return Head()


def with_waiting(body: bytes, queues: Sequence[str]) -> bytes:
    """Add to an encoded result message, which names none yet, who waits for the end."""
    return body[:-1] + b',"waiting":' + msgspec.json.encode(queues) + b"}" if queues else body


def read_result(payload: Any) -> Result:
    """Read a result message.

    Raises:
        DecodeError: it is none.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("task_id"), str):
        raise DecodeError("not a result message: an object with a 'task_id' was expected")
    payload = opened(payload)
    status = payload.get("status")
    status = status if isinstance(status, str) else "PENDING"
    failed = status in _FAILED
    args, kwargs = payload.get("args"), payload.get("kwargs")
    retries = payload.get("retries")
    return Result(
        payload["task_id"],
        status,
        None if failed else payload.get("result"),
        read_failure(payload.get("result"), payload.get("traceback"), status.title())
        if failed
        else None,
        _text(payload.get("name")),
        args if isinstance(args, list) else None,
        kwargs if isinstance(kwargs, dict) else None,
        _text(payload.get("worker")),
        _text(payload.get("queue")),
        retries if isinstance(retries, int) else 0,
        _text(payload.get("parent_id")),
        _text(payload.get("group_id")),
        _children(payload.get("children")),
        _text(payload.get("date_done")),
    )


def _children(value: object) -> list[str]:
    """Return the ids of ``[[[id, parent], null], ...]``, leaving out what is something else.

    In the place of ``null`` a group has its members.
    """
    found = []
    for child in value if isinstance(value, list) else []:
        match child:
            case [[str(), *_], [_, *_] as members]:
                found += _children(members)
            case [[str(task_id), *_], *_]:
                found.append(task_id)
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _now() -> str:
    return utcnow().isoformat()
