"""The handle on a group of tasks that was sent.

A task of it whose result is ignored is not waited for: its place in the list is None, and it counts
as one that is not there when somebody asks how far the group is.

Which tasks it has can be kept in a key-value store under its id: any process can then wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import queue
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from queue_core import Deadline, KeyValue, SystemClock, UsageError, counted
from queue_core.worker.results.base import PATIENCE
from queue_core.worker.results.result import AsyncResult, Origin, left_of
from queue_core.worker.results.wire import Result, State

PREFIX = "celery-taskset-meta-"


class GroupResult(AsyncResult[list[Any]]):
    """The tasks of one group, sent but perhaps not finished. Safe to use from any thread.

    Attributes:
        results: one for each task of the group, in its order.
    """

    def __init__(
        self,
        group_id: str,
        results: Sequence[AsyncResult[Any]],
        parent: AsyncResult[Any] | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Made by sending a group."""
        super().__init__(group_id, origin, parent=parent)
        self.results = list(results)

    def get(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - celery's
        """Return the results of all tasks in order; wait at most ``timeout`` seconds in all.

        None stands for one whose result is ignored. Raises as `AsyncResult.get` does, for the first
        task in order that did not succeed.
        """
        deadline = Deadline.after(timeout, SystemClock())
        return [
            None if result.ignored else result.get(left_of(deadline), propagate)
            for result in self.results
        ]

    def join(self, timeout: float | None = None, propagate: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - celery's
        """As `get`, by celery's other word for it."""
        return self.get(timeout, propagate)

    def iterate(self, timeout: float | None = None, propagate: bool = True) -> Iterator[Any]:  # noqa: FBT001, FBT002 - celery's
        """Yield what the tasks returned, each when it ends; wait ``timeout`` seconds in all.

        A group among them counts as its tasks. Raises as `AsyncResult.get` does, for the first one
        that ends without success.
        """
        deadline = Deadline.after(timeout, SystemClock())
        ended: queue.SimpleQueue[AsyncResult[Any]] = queue.SimpleQueue()
        left = {result.id: result for result in self._tasks()}
        while left:
            pause = PATIENCE
            for result in left.values():
                again = result.watch(functools.partial(ended.put, result))
                if again is None:
                    ended.put(result)
                else:
                    pause = min(pause, again)
            with contextlib.suppress(queue.Empty):
                while left:
                    result = ended.get(timeout=deadline.bound(pause))
                    if left.pop(result.id, None) is not None:
                        yield result.get(left_of(deadline), propagate)
            if left and deadline.expired:
                missing = counted(len(left), "task")
                raise TimeoutError(f"no result of {missing} of group {self.id} in time")

    def _tasks(self) -> Iterator[AsyncResult[Any]]:
        for result in self.results:
            if isinstance(result, GroupResult):
                yield from result._tasks()
            elif not result.ignored:
                yield result

    @property
    def ignored(self) -> bool:
        """Whether the results of all of its tasks are."""
        return all(result.ignored for result in self.results)

    def _waited_for(self) -> list[AsyncResult[Any]]:
        return [result for result in self.results if not result.ignored]

    async def _arrival(self) -> list[Any]:
        return [None if result.ignored else await result for result in self.results]

    def ready(self) -> bool:
        """Whether all of them have ended. May ask the backend once for each."""
        return all(result.ready() for result in self._waited_for())

    def successful(self) -> bool:
        """Whether all of them have returned. May ask the backend once for each."""
        return all(result.successful() for result in self._waited_for())

    def failed(self) -> bool:
        """Whether one of them has failed. May ask the backend once for each."""
        return any(result.failed() for result in self._waited_for())

    def waiting(self) -> bool:
        """Whether one of them has not ended. May ask the backend once for each."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many of them have returned. May ask the backend once for each."""
        return sum(result.successful() for result in self._waited_for())

    @property
    def state(self) -> State:
        """``FAILURE`` if one has failed, ``SUCCESS`` if all have returned, else ``PENDING``."""
        if self.failed():
            return "FAILURE"
        return "SUCCESS" if self.successful() else "PENDING"

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """Its tasks."""
        return list(self.results)

    def save(self) -> None:
        """Keep in the backend which tasks it has; `App.GroupResult` returns it by its id.

        Blocks for a round trip. Raises Unsupported where there is no key-value store.
        """
        self._source().save(self.id, [result.id for result in self.results])

    def delete(self) -> None:
        """Forget what `save` kept."""
        self._source().drop(self.id)

    def forget(self) -> None:
        """Drop all their results. Blocks for a round trip for each."""
        for result in self._waited_for():
            result.forget()

    def _ids(self) -> list[str]:
        return [one for result in self.results for one in result._ids()]

    def _source(self) -> Origin:
        if self._origin is None:
            raise UsageError(f"the group {self.id} ran here; there is no place to keep it in")
        return self._origin

    def _look(self) -> Result | None:
        return None

    def __iter__(self) -> Iterator[AsyncResult[Any]]:
        """The results of its tasks."""
        return iter(self.results)

    def __len__(self) -> int:
        """How many tasks it has."""
        return len(self.results)

    def __getitem__(self, index: int) -> AsyncResult[Any]:
        """The result of one of its tasks."""
        return self.results[index]

    def __repr__(self) -> str:
        """Name the group's id."""
        return f"<GroupResult {self.id} of {len(self.results)}>"


def save_group(store: KeyValue, group_id: str, ids: Sequence[str], *, ttl: float | None) -> None:
    """Keep the ids of a group's tasks for ``ttl`` seconds. Blocks for a round trip."""
    body = {"result": [[group_id, None], [[[task_id, None], None] for task_id in ids]]}
    store.key_set(PREFIX + group_id, msgspec.json.encode(body), ttl=ttl)


def load_group(store: KeyValue, group_id: str) -> list[str] | None:
    """Return the ids of a group's tasks, None if it is not there. Blocks for a round trip."""
    entry = store.key_get(PREFIX + group_id)
    if entry is None:
        return None
    found: list[str] = []
    match msgspec.json.decode(entry.value, type=dict[str, Any]).get("result"):
        case [_, [*members]]:
            for member in members:
                match member:
                    case [[str(task_id), *_], *_]:
                        found.append(task_id)
    return found


def delete_group(store: KeyValue, group_id: str) -> None:
    """Forget it. Blocks for a round trip."""
    store.key_delete(PREFIX + group_id)
