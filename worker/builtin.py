"""The tasks that every app has: those that celery's programs expect of every worker.

``celery.map``, ``celery.starmap`` and ``celery.chunks`` call another task many times in one run;
``celery.accumulate`` hands on what it gets; a ``celery.chain``, ``celery.group`` or
``celery.chord`` that was sent as a task becomes what it stands for. One is our own: the deadline of
a chord.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from queue_core import UsageError
from queue_core.worker.canvas import CHUNKS, MAP, STARMAP
from queue_core.worker.signature import CHAIN, CHORD, GROUP, Signature, as_signature
from queue_core.worker.task import Task
from queue_core.worker.unfolding import ACCUMULATE, DEADLINE

PREFIX = "celery."


def is_builtin(name: str) -> bool:
    """Whether every app has a task of this name: people need not be told of it."""
    return name.startswith(PREFIX) or name == DEADLINE


def builtin_tasks() -> list[Task[..., Any]]:
    """Return new tasks, for one app."""
    functions: dict[str, Callable[..., Any]] = {
        MAP: _map,
        STARMAP: _starmap,
        CHUNKS: _starmap,
        ACCUMULATE: _accumulate,
    }
    tasks: list[Task[..., Any]] = [
        Task().define(function, name=name, bind=True) for name, function in functions.items()
    ]
    tasks.append(Task().define(_deadline, name=DEADLINE, options={"throws": (ChordTooLate,)}))
    for kind in (CHAIN, GROUP, CHORD):
        tasks.append(Task().define(_become, name=kind, bind=True, options={"max_retries": 0}))
    return tasks


def _map(self: Task[..., Any], task: Mapping[str, Any], it: Iterable[Any]) -> list[Any]:
    """Call a task for each item."""
    signature = as_signature(task).bound(self)
    return [signature(item) for item in it]


def _starmap(
    self: Task[..., Any], task: Mapping[str, Any], it: Iterable[Sequence[Any]], n: int = 0
) -> list[Any]:
    """Call a task for each sequence of arguments."""
    signature = as_signature(task).bound(self)
    return [signature(*items) for items in it]


def _accumulate(self: Task[..., Any], *args: Any, index: int | None = None) -> Any:
    """Return the arguments, or one of them."""
    return list(args) if index is None else args[index]


class ChordTooLate(Exception):
    """The deadline of a chord has come."""


def _deadline() -> None:
    """Fail the chord whose deadline this is, unless its fate is decided already."""
    raise ChordTooLate("some parts of the chord did not end before its deadline")


def _become(self: Task[..., Any], *args: Any, **kwargs: Any) -> None:
    """Take the place of a canvas that was sent as a task."""
    if not kwargs:
        raise UsageError(f"{self.name} without tasks")
    kind = self.name.removeprefix(PREFIX)
    signature: Signature[Any] = Signature(self.name, list(args), kwargs, {}, kind)
    if self.name == GROUP:
        signature = signature | Signature(ACCUMULATE, [], {"index": 0})
    self.replace(signature)
