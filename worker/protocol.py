"""Celery's task message, protocol 2, as plain values; protocol 1 is read too.

Pure: nothing here sends, waits or looks at a clock. A task message is a table of headers, a body
``[args, kwargs, embed]`` and the two properties ``correlation_id`` and ``reply_to``. Celery's own
programs write and read it, so that theirs and ours can share a queue. The wire cannot be changed
later: names and order of fields here are a contract.

``embed`` says what follows the task: callbacks and errbacks (its links and error links), the rest
of its chain in reverse order, and the body of the chord that it is a part of, all of them
signatures as objects. One key of it is ours: ``failed`` tells an error link what has failed; others
do not look at it. What cannot be read is an error, never ignored: dropping a link would lose work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from queue_core import DecodeError
from queue_core.worker.failure import short_repr

Headers = dict[str, Any]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]
Wire = dict[str, Any]
"""A signature as it travels; `queue_core.worker.signature` makes objects of it."""

_STANDARD = (
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id "
    "argsrepr kwargsrepr origin ignore_result replaced_task_nesting stamped_headers stamps"
)
STANDARD_HEADERS = frozenset([*_STANDARD.split(), "compression"])
"""What the protocol itself writes; every other header is the sender's own."""


class Embed(msgspec.Struct, frozen=True):
    """What follows a task.

    Attributes:
        callbacks, errbacks: sent when the task has succeeded or failed.
        chain: what comes next, the very next at the end.
        chord: the body of the chord whose header the task is in.
        failed: of an error link of ours: the failed run, see `queue_core.worker.request.FailedRun`.
    """

    callbacks: list[Wire] | None = None
    errbacks: list[Wire] | None = None
    chain: list[Wire] | None = None
    chord: Wire | None = None
    failed: dict[str, Any] | None = None

    def as_wire(self) -> dict[str, Any]:
        """Return it as it travels."""
        embed: dict[str, Any] = {
            "callbacks": self.callbacks,
            "errbacks": self.errbacks,
            "chain": self.chain,
            "chord": self.chord,
        }
        if self.failed is not None:
            embed["failed"] = self.failed
        return embed


NOTHING_FOLLOWS = Embed()


class Call(msgspec.Struct):
    """One request to run a task, as read from a message or about to become one.

    Attributes:
        name: of the task.
        id: of this run; the same when it is redelivered or retried.
        args, kwargs: the arguments.
        embed: what follows.
        retries: how often the task was retried before.
        root_id, parent_id: the run that began it all, and the one that sent this.
        group, group_index: the group that it belongs to, and which of its members this is.
        ignore_result: nobody wants the result.
        eta, expires: ISO 8601, the time before and the time after which it must not start.
        hard_limit, soft_limit: seconds for which it may run; None: as the worker says.
        shadow: another name for logs.
        replaced_task_nesting: how often the task has replaced itself.
        stamped_headers, stamps: carried along.
        reply_to: the queue to which the result shall be sent.
    """

    name: str
    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    embed: Embed = NOTHING_FOLLOWS
    retries: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    ignore_result: bool = False
    eta: str | None = None
    expires: str | None = None
    hard_limit: float | None = None
    soft_limit: float | None = None
    shadow: str | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = {}
    reply_to: str | None = None


# --- writing -------------------------------------------------------------------------------------


def task_headers(call: Call, *, origin: str) -> Headers:
    """Return the headers of a task message; ``task`` is what marks it as protocol 2.

    What is None, or has not happened yet, is left out: readers take that for granted, and a broker
    pays for each header (docs/design/worker.md).
    """
    headers: Headers = {
        "lang": "py",
        "task": call.name,
        "id": call.id,
        "shadow": call.shadow,
        "eta": call.eta,
        "expires": call.expires,
        "group": call.group,
        "group_index": call.group_index,
        "retries": call.retries or None,
        "timelimit": [call.hard_limit, call.soft_limit],
        "root_id": call.root_id or call.id,
        "parent_id": call.parent_id,
        "argsrepr": short_repr(tuple(call.args)),
        "kwargsrepr": short_repr(call.kwargs),
        "origin": origin,
        "ignore_result": call.ignore_result,
        "replaced_task_nesting": call.replaced_task_nesting or None,
        "stamped_headers": call.stamped_headers,
        "stamps": call.stamps,
    }
    return {name: value for name, value in headers.items() if value is not None}


def task_body(call: Call) -> list[Any]:
    """Return the body of a task message, to be encoded by a serializer."""
    return [call.args, call.kwargs, call.embed.as_wire()]


# --- reading -------------------------------------------------------------------------------------


def read_call(
    headers: Mapping[str, Any],
    payload: Any,
    correlation_id: str | None = None,
    reply_to: str | None = None,
) -> Call:
    """Read a task message of protocol 2, or of protocol 1 (no headers; the body is an object).

    Raises:
        DecodeError: it is not a task message; says what is missing.
    """
    if "task" in headers:
        if isinstance(payload, dict) and "args" in payload:  # between the protocols
            payload = [payload.get("args"), payload.get("kwargs"), payload]
        if not isinstance(payload, list | tuple) or len(payload) != 3:
            raise DecodeError("the body of a task message is [args, kwargs, embed]; this is not")
        args, kwargs, embed = payload
        return _call(headers, args, kwargs, embed, headers.get("id") or correlation_id, reply_to)
    if isinstance(payload, dict) and "task" in payload:
        one = {**payload, "group": payload.get("taskset") or payload.get("group")}
        return _call(one, one.get("args"), one.get("kwargs"), one, one.get("id"), reply_to)
    raise DecodeError("not a task message: it has no header 'task' and no body with a 'task'")


def _call(
    fields: Mapping[str, Any],
    args: Any,
    kwargs: Any,
    embed: Any,
    task_id: Any,
    reply_to: str | None,
) -> Call:
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
    try:
        known = msgspec.convert(fields, _Fields)
    except msgspec.ValidationError:  # what is odd in a header that does not matter is left out
        known = msgspec.convert(_sound(fields), _Fields)
    hard, soft = known.timelimit or (None, None)
    return Call(
        known.task,
        task_id,
        list(args),
        kwargs,
        read_embed(embed),
        known.retries or 0,
        known.root_id,
        known.parent_id,
        known.group,
        known.group_index,
        bool(known.ignore_result),
        known.eta,
        known.expires,
        hard or None,
        soft or None,
        known.shadow,
        known.replaced_task_nesting or 0,
        known.stamped_headers,
        known.stamps or {},
        reply_to,
    )


class _Fields(msgspec.Struct):
    """The headers that matter, or their like in a message of protocol 1."""

    task: str
    retries: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    ignore_result: bool | int | None = None
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[_Seconds | None, _Seconds | None] | None = None
    shadow: str | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None


def _sound(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``fields`` that are what they should be."""
    found = {}
    for field in msgspec.structs.fields(_Fields):
        try:
            found[field.name] = msgspec.convert(fields.get(field.name), field.type)
        except msgspec.ValidationError:
            continue
    return found


def read_embed(embed: Any) -> Embed:
    """Read the third part of a body.

    Raises:
        DecodeError: something in it is no signature.
    """
    if not embed or not isinstance(embed, Mapping) or not any(embed.values()):
        return NOTHING_FOLLOWS
    callbacks = _signatures(embed, "callbacks")
    errbacks = _signatures(embed, "errbacks")
    chain = _signatures(embed, "chain")
    chord, failed = embed.get("chord"), embed.get("failed")
    if not (callbacks or errbacks or chain or chord or failed):
        return NOTHING_FOLLOWS
    return Embed(
        callbacks,
        errbacks,
        chain,
        _signature(chord, "chord") if chord else None,
        failed if isinstance(failed, dict) else None,
    )


def _signatures(embed: Mapping[str, Any], part: str) -> list[Wire] | None:
    found = embed.get(part)
    if not found:
        return None
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list | tuple):
        raise DecodeError(f"the {part} of a task are a list, not {type(found).__name__}")
    return [_signature(item, part) for item in found]


def _signature(item: Any, part: str) -> Wire:
    if not isinstance(item, dict) or not isinstance(item.get("task"), str):
        raise DecodeError(f"what is in the {part} of a task is no signature: it names no 'task'")
    return item
