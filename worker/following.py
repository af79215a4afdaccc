"""What follows a run: its links, the next of its chain, its error links, its part in a chord.

Pure. Used by the process that ran the task, and by the worker's own process for a task that could
not even fail: killed after its time limit, dead three times, unknown. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from queue_core.worker.failure import Failure
from queue_core.worker.outcome import ChordPart
from queue_core.worker.protocol import Call, Wire
from queue_core.worker.request import failed_run
from queue_core.worker.signature import CHAIN, CHORD, Signature, as_signature, members
from queue_core.worker.unfolding import freeze, unfold


def after_success(call: Call, value: Any) -> list[Signature[Any]]:
    """Return the tasks to send now that ``call`` has returned ``value``.

    The results of its links go to who waits for its own.

    Raises:
        DecodeError, UsageError: one of the signatures is damaged.
    """
    embed = call.embed
    if embed.callbacks is None and embed.chain is None:
        return []
    sent: list[Signature[Any]] = []
    for callback in embed.callbacks or ():
        frozen, _ = freeze(as_signature(callback), reply_to=call.reply_to)
        sent += unfold(frozen, [value])
    if embed.chain:
        *rest, following = embed.chain
        sent += unfold(freeze(as_signature(following))[0], [value], rest)
    return children(sent, call)


def after_failure(
    call: Call, errback: Wire, failure: Failure, queue: str = ""
) -> list[Signature[Any]]:
    """Return what to send for one error link now that ``call`` has failed for good.

    It gets the id of the failed run as its first argument, and carries the rest of what is known
    for those that want it.

    Raises:
        DecodeError, UsageError: it is damaged.
    """
    failed = failed_run(call, queue, failure).as_wire()
    sent = unfold(freeze(as_signature(errback))[0], [call.id])
    return children((task.set(failed=failed) for task in sent), call)


def children(tasks: Iterable[Signature[Any]], parent: Call | None) -> list[Signature[Any]]:
    """Let ``parent`` be the one that sends ``tasks``; None: they have none."""
    found = []
    for task in tasks:
        options = task.options
        if not options.get("root_id"):
            options["root_id"] = (parent and (parent.root_id or parent.id)) or options["task_id"]
        if parent is not None and not options.get("parent_id"):
            options["parent_id"] = parent.id
        found.append(task)
    return found


def chord_part(call: Call) -> ChordPart | None:
    """Return the part of ``call`` in a chord, if it is the last task of that part."""
    return _part(call.embed.chord, call.group, call.group_index)


def lost(call: Call) -> tuple[list[str], ChordPart | None]:
    """Return what will never happen if ``call`` does not succeed.

    That is the ids of the tasks in the rest of its chain, and the part in a chord that it, or
    the end of its chain, does not play.

    Raises:
        DecodeError, UsageError: one of the signatures is damaged.
    """
    rest = call.embed.chain
    if not rest:
        return [], chord_part(call)
    ids: list[str] = []
    for step in reversed(rest):
        ids += _ids(as_signature(step))
    options = _last(as_signature(rest[0])).options
    return ids, _part(options.get("chord"), options.get("group_id"), options.get("group_index"))


def _ids(step: Signature[Any]) -> list[str]:
    """The ids of all tasks in a step that have one."""
    parts = members(step)
    if not parts:
        return [step.id] if step.id and isinstance(step.id, str) else []
    found: list[str] = []
    for part in parts:
        found += _ids(part)
    return found


def _last(step: Signature[Any]) -> Signature[Any]:
    while step.task in (CHAIN, CHORD) and (parts := members(step)):
        step = parts[-1]
    return step


def _part(body: Wire | None, group: object, index: object) -> ChordPart | None:
    if body is None or not isinstance(group, str):
        return None
    size = as_signature(body).chord_size
    return ChordPart(
        group,
        index if isinstance(index, int) else -1,
        0 if isinstance(size, msgspec.UnsetType) else size,
        body,
    )
