"""Chains, groups and chords: which tasks to send now, and what each of them must carry.

Pure. `queue_core.worker.canvas` makes signatures. `unfold` turns any signature into the single
tasks that can be sent at once; everything that comes later travels inside them, as celery has it:
the rest of a chain in reverse order, the body of a chord with each part of its header. Whoever runs
a task unfolds what comes next by the same function. Before that, `freeze` gives an id to each task
that has none, so that the sender knows whose results to wait for.

A group or a chord in the middle of a chain has what follows it as its body; so after `freeze` only
the last step of a chain is one. A group that itself is a part of a chord becomes a chord whose body
hands on the list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from queue_core import UsageError, fresh_uuid
from queue_core.worker.canvas import CHUNKS, xstarmap
from queue_core.worker.protocol import Wire
from queue_core.worker.signature import (
    CHAIN,
    CHORD,
    GROUP,
    NO_LINK,
    Signature,
    as_list,
    as_signature,
    header,
    join,
    members,
)

ACCUMULATE = "celery.accumulate"
DEADLINE = "queue_core.chord_deadline"
"""Fails its chord if that is not decided by then: one part more, which never succeeds."""

_OF_THE_FIRST = frozenset({"countdown", "eta"})
_OF_ONE = frozenset({"task_id", "link", "link_error", "group_id", "group_index", "chord", "chain"})

NewId = Callable[[], str]


# --- ids -----------------------------------------------------------------------------------------


class Handle(msgspec.Struct):
    """Whose result to wait for.

    Attributes:
        id: of the task, or of the group.
        members: of a group; None for a task.
        parent: what ran before.
        task: the name of a task that is part of something; empty for others.
        ignored: whether such a task's own call says that nobody wants its result.
    """

    id: str
    members: list[Handle] | None = None
    parent: Handle | None = None
    task: str = ""
    ignored: bool | None = None

    def begins_after(self, other: Handle) -> None:
        """Put ``other`` before the first of what this one waits for."""
        first = self
        while first.parent is not None:
            first = first.parent
        first.parent = other


def freeze(
    signature: Signature[Any], *, reply_to: str | None = None, ids: NewId = fresh_uuid
) -> tuple[Signature[Any], Handle]:
    """Return a copy in which every task has an id and every chain its form for sending.

    Ids that are there already are kept, so freezing twice changes nothing. ``reply_to`` is put
    where none is. Options of a chain, group or chord are those of its tasks, unless they have their
    own; a countdown is that of the tasks that are sent first.
    """
    if signature.task == CHUNKS:
        signature = _chunked(signature)
    if signature.task == CHAIN:
        return _freeze_chain(signature, reply_to, ids)
    if signature.task == GROUP:
        return _freeze_group(signature, reply_to, ids)
    if signature.task == CHORD:
        return _freeze_chord(signature, reply_to, ids)
    frozen = signature.clone()
    options = frozen.options
    options.pop("deadline", None)  # of the chord that it is in
    if not options.get("task_id"):
        options["task_id"] = ids()
    if reply_to is not None and not options.get("reply_to"):
        options["reply_to"] = reply_to
    return frozen, Handle(options["task_id"])


def _freeze_part(
    part: Signature[Any], reply_to: str | None, ids: NewId
) -> tuple[Signature[Any], Handle]:
    """Freeze what is part of something, and keep what its call says of its result."""
    frozen, handle = freeze(part, reply_to=reply_to, ids=ids)
    if frozen.subtask_type is None:
        handle.task, handle.ignored = frozen.task, frozen.options.get("ignore_result")
    return frozen, handle


def _freeze_chain(
    signature: Signature[Any], reply_to: str | None, ids: NewId
) -> tuple[Signature[Any], Handle]:
    steps = _steps(signature)
    frozen: list[Signature[Any]] = []
    handle: Handle | None = None
    for step in steps:
        part, found = _freeze_part(step, reply_to, ids)
        if handle is not None:
            found.begins_after(handle)
        frozen.append(part)
        handle = found
    if handle is None:
        raise UsageError("a chain needs a task")
    return (
        frozen[0] if len(frozen) == 1 else Signature(CHAIN, [], {"tasks": frozen}, {}, "chain"),
        handle,
    )


def _steps(signature: Signature[Any]) -> list[Signature[Any]]:
    """The steps of a chain with what the chain says of them; only the last is no single task."""
    steps: list[Signature[Any]] = []
    for part in members(signature):
        steps += _steps(part) if part.task == CHAIN else [part]
    if not steps:
        return []
    options = signature.options
    later = {name: value for name, value in options.items() if name not in _OF_THE_FIRST}
    steps = [_with(step, options if at == 0 else later) for at, step in enumerate(steps)]
    steps[0] = steps[0].clone(signature.args, signature.kwargs.get("kwargs"))
    steps[-1] = _ending(steps[-1], options)
    for at, step in enumerate(steps[:-1]):
        if step.task == CHUNKS:
            step = _chunked(step)
        if step.task == GROUP:
            body = join(steps[at + 1 :])
            return [*steps[:at], _chord_of(step, body)]
        if step.task == CHORD:
            body = join([_body(step), *steps[at + 1 :]])
            return [*steps[:at], _with_body(step, body)]
    return steps


def _freeze_group(
    signature: Signature[Any], reply_to: str | None, ids: NewId
) -> tuple[Signature[Any], Handle]:
    options = dict(signature.options)
    group_id = options.get("task_id") or ids()
    parts, handles = [], []
    kwargs = signature.kwargs.get("kwargs")
    for member in _flat(signature):
        given = _with(member, options).clone(signature.args, kwargs)
        part, handle = _freeze_part(given, reply_to, ids)
        parts.append(part)
        handles.append(handle)
    frozen: Signature[Any] = Signature(GROUP, [], {"tasks": parts}, {"task_id": group_id}, "group")
    return frozen, Handle(group_id, handles)


def _flat(group: Signature[Any]) -> list[Signature[Any]]:
    """The members of a group, those of groups in it included."""
    if group.options.get("link"):
        raise UsageError(NO_LINK)
    found: list[Signature[Any]] = []
    for member in members(group):
        if member.task == CHUNKS:
            member = _chunked(member)
        if member.task == GROUP:
            found += [
                _with(inner, member.options).clone(member.args, member.kwargs.get("kwargs"))
                for inner in _flat(member)
            ]
        else:
            found.append(member)
    return found


def _freeze_chord(
    signature: Signature[Any], reply_to: str | None, ids: NewId
) -> tuple[Signature[Any], Handle]:
    options = signature.options
    found = signature.kwargs.get("header")
    first: Signature[Any] = (
        as_signature(found)
        if isinstance(found, Signature | Mapping) and as_signature(found).task == GROUP
        else Signature(GROUP, [], {"tasks": header(signature)}, {}, "group")
    )
    shared = {name: value for name, value in options.items() if name not in _OF_ONE}
    first = _with(first, shared).clone(signature.args, signature.kwargs.get("kwargs"))
    heading, parts = freeze(first, reply_to=reply_to, ids=ids)
    later = {name: value for name, value in options.items() if name not in _OF_THE_FIRST}
    body = _ending(_with(_body(signature), later), options)
    body, handle = _freeze_part(body, reply_to, ids)
    handle.begins_after(parts)
    kwargs = {"kwargs": {}, "header": heading, "body": body}
    said = {**first.options, **options}
    own = {name: said[name] for name in ("deadline", "queue") if said.get(name) is not None}
    frozen: Signature[Any] = Signature(CHORD, [], kwargs, own, "chord")
    return frozen, handle


def _body(chord: Signature[Any]) -> Signature[Any]:
    body = chord.kwargs.get("body")
    if body is None:
        raise UsageError("this chord has no body yet: chord(header)(body), or chord(header, body)")
    return as_signature(body)


def _with_body(chord: Signature[Any], body: Signature[Any]) -> Signature[Any]:
    changed = chord.clone()
    changed.kwargs["body"] = body
    return changed


def _chord_of(group: Signature[Any], body: Signature[Any]) -> Signature[Any]:
    return Signature(CHORD, [], {"kwargs": {}, "header": group, "body": body}, {}, "chord")


def _chunked(signature: Signature[Any]) -> Signature[Any]:
    task, items, n = (signature.kwargs[name] for name in ("task", "it", "n"))
    parts = [xstarmap(as_signature(task), items[at : at + n]) for at in range(0, len(items), n)]
    return Signature(GROUP, [], {"tasks": parts}, signature.options, "group")


def _with(signature: Signature[Any], options: Mapping[str, Any]) -> Signature[Any]:
    """Return a copy with these options where it has none of its own, and with more error links."""
    copy = signature.clone()
    for name, value in options.items():
        if name not in _OF_ONE:
            copy.options.setdefault(name, value)
    for errback in as_list(options.get("link_error")):
        copy.link_error(errback)
    return copy


def _ending(signature: Signature[Any], options: Mapping[str, Any]) -> Signature[Any]:
    """Return a copy of the last task with what belongs to the end of a chain or chord."""
    copy = signature.clone()
    if options.get("task_id"):
        copy.options.setdefault("task_id", options["task_id"])
    for callback in as_list(options.get("link")):
        copy.link(callback)
    if any(options.get(name) is not None for name in ("group_id", "chord")):
        part = Part(options.get("group_id") or "", options.get("group_index"), options.get("chord"))
        return attach(copy, part)
    return copy


# --- sending -------------------------------------------------------------------------------------


class Part(msgspec.Struct):
    """Which part of a group a task is, and the body of the chord if the group is its header."""

    group: str
    index: int | None
    chord: Wire | None = None


def attach(signature: Signature[Any], part: Part) -> Signature[Any]:
    """Return a copy whose last task is this part."""
    if signature.task == CHAIN:
        *before, last = members(signature)
        copy = signature.clone()
        copy.kwargs["tasks"] = [*before, attach(last, part)]
        return copy
    if signature.task in (GROUP, CHUNKS):
        if part.chord is None:
            return signature.clone()
        signature = _chunked(signature) if signature.task == CHUNKS else signature
        signature = _chord_of(signature, Signature(ACCUMULATE, [], {"index": 0}))
    if signature.task == CHORD:
        return _with_body(signature, attach(_body(signature), part))
    options: dict[str, Any] = {"group_id": part.group, "group_index": part.index}
    if part.chord is not None:
        options["chord"] = part.chord
    return signature.clone(**options)


def unfold(
    frozen: Signature[Any],
    args: Sequence[Any] = (),
    rest: Sequence[Wire] = (),
    *,
    ids: NewId = fresh_uuid,
) -> list[Signature[Any]]:
    """Return the single tasks that are to be sent now.

    Args:
        frozen: as `freeze` returns it.
        args: what comes before the arguments of each.
        rest: what is to follow it, in reverse order.
        ids: for what has none.
    """
    if rest and frozen.task in (GROUP, CHORD):
        whole = join([frozen, *(as_signature(step) for step in reversed(rest))])
        return unfold(freeze(whole, ids=ids)[0], args, ids=ids)
    if frozen.task == CHAIN:
        first, *later = members(frozen)
        behind = [*rest, *(step.as_wire() for step in reversed(later))]
        return unfold(first, [*args, *frozen.args], behind, ids=ids)
    if frozen.task == GROUP:
        group_id = frozen.options["task_id"]
        parts = [attach(part, Part(group_id, index)) for index, part in enumerate(members(frozen))]
        return [*itertools.chain.from_iterable(unfold(part, args, ids=ids) for part in parts)]
    if frozen.task == CHORD:
        return _unfold_chord(frozen, args, ids)
    if not args and not rest:
        return [frozen]
    task = frozen.clone(args)
    if rest:
        task.options["chain"] = [*rest, *as_list(task.options.get("chain"))]
    return [task]


def _unfold_chord(frozen: Signature[Any], args: Sequence[Any], ids: NewId) -> list[Signature[Any]]:
    group = as_signature(frozen.kwargs["header"])
    group_id = group.options["task_id"]
    parts = members(group)
    body = _body(frozen)
    if not parts:
        return unfold(body, [[]], ids=ids)
    body = body.clone()
    body.chord_size = len(parts)
    wire = body.as_wire()
    sent: list[Signature[Any]] = []
    for index, part in enumerate(parts):
        whole, _ = freeze(attach(part, Part(group_id, index, wire)), ids=ids)
        sent += unfold(whole, args, ids=ids)
    if frozen.options.get("deadline"):
        watch = {
            "task_id": ids(),
            "queue": frozen.options.get("queue"),
            "countdown": frozen.options["deadline"],
            "ignore_result": True,
        }
        last = Part(group_id, len(parts), wire)
        sent.append(attach(Signature(DEADLINE, options=watch), last))
    return sent
