"""What builds signatures of several tasks: chains, groups, chords, chunks and maps.

Pure. What becomes of them when they are sent: `queue_core.worker.unfolding`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from queue_core import UsageError
from queue_core.worker.signature import (
    CHORD,
    GROUP,
    MakesSignatures,
    Signature,
    as_list,
    as_signature,
    join,
)

MAP, STARMAP, CHUNKS = "celery.map", "celery.starmap", "celery.chunks"

Parts = Iterable[Signature[Any] | MakesSignatures] | Signature[Any] | MakesSignatures


def chain(*tasks: Parts) -> Signature[Any]:
    """Return a signature that runs each task with the result of the one before: ``a | b | c``.

    Takes signatures, or one iterable of them.
    """
    parts = _parts(tasks)
    if not parts:
        raise UsageError("a chain needs a task")
    return join(parts)


def group(*tasks: Parts) -> Signature[list[Any]]:
    """Return a signature that runs the tasks independently; its result is the list of theirs.

    Takes signatures, or one iterable of them.
    """
    return Signature(GROUP, [], {"tasks": _parts(tasks)}, {}, "group")


def chord(header: Parts, body: Signature[Any] | MakesSignatures | None = None) -> Signature[Any]:
    """Return a signature that runs ``body`` with the list of the results of ``header``.

    Without a body it is one that takes it later: ``chord(header)(body)`` sends it.
    """
    parts = _parts((header,))
    made: Signature[Any] = Signature(
        CHORD,
        [],
        {
            "kwargs": {},
            "header": parts[0] if len(parts) == 1 and parts[0].task == GROUP else parts,
            "body": body and as_signature(body),
        },
        {},
        "chord",
    )
    return made


def xmap(task: Signature[Any], items: Iterable[Any]) -> Signature[list[Any]]:
    """Return a signature that calls the task for each item, one after the other, in one run."""
    return Signature(MAP, [], {"task": task, "it": list(items)}, {}, None, True)


def xstarmap(task: Signature[Any], items: Iterable[Sequence[Any]]) -> Signature[list[Any]]:
    """As `xmap`, with the arguments of each call as a sequence."""
    it = [list(item) for item in items]
    return Signature(STARMAP, [], {"task": task, "it": it}, {}, None, True)


def chunks(task: Signature[Any], items: Iterable[Sequence[Any]], n: int) -> Signature[list[Any]]:
    """Return a signature that is sent as a group of `xstarmap` with ``n`` calls each."""
    if n < 1:
        raise UsageError(f"a chunk has at least one call, not {n!r}")
    it = [list(item) for item in items]
    return Signature(CHUNKS, [], {"task": task, "it": it, "n": n}, {}, None, True)


def _parts(tasks: Sequence[Any]) -> list[Signature[Any]]:
    one = isinstance(tasks[0], Signature | Mapping | MakesSignatures) if tasks else False
    found = tasks[0] if len(tasks) == 1 and not one else tasks
    return [as_signature(part) for part in as_list(found)]
