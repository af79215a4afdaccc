"""Results in a key-value store, under their task's id: any process can read them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from queue_core import Connection, Message, Publication, Unsupported, decode
from queue_core.worker.results.base import RESULT_ENCODING, RESULT_TYPE
from queue_core.worker.results.wire import Result, read_result

PREFIX = "celery-task-meta-"
_FIRST_POLL = 0.002
_LAST_POLL = 0.25


def result_key(task_id: str) -> str:
    """Return the key of a task's result; the same as celery's."""
    return PREFIX + task_id


class KeyValueResults:
    """Reads results from the store of ``connection``, which stays the caller's."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is connected yet. Raises Unsupported if the broker has no key-value store."""
        require_key_value(connection)
        self._connection = connection

    def reply_to(self) -> None:
        """No queue is needed."""
        return None

    def expect(self, task_id: str) -> object:
        """Nothing to prepare."""
        return None

    def recall(self, task_id: str) -> object:
        """Nothing to prepare; an unknown task is as pending as a slow one."""
        return None

    def poll(self, task_id: str, kept: object) -> Result | None:
        """Ask the store once."""
        entry = self._connection.key_value().key_get(result_key(task_id))
        if entry is None:
            return None
        result = read_result(decode(entry.value, RESULT_TYPE, RESULT_ENCODING))
        return None if result.status == "PENDING" else result

    def wait(self, task_id: str, kept: object, timeout: float | None) -> Result | None:
        """Ask the store until it has the result, ever more slowly, down to four times a second."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_POLL
        while True:
            result = self.poll(task_id, kept)
            if result is not None:
                return result
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(_LAST_POLL, pause * 1.5)

    def close(self) -> None:
        """Nothing is held."""


class KeyValueDeliverer:
    """Stores results before the ack."""

    def __init__(self, connection: Connection, ttl: float | None) -> None:
        """Results are kept for ``ttl`` seconds.

        Raises Unsupported if the broker has no key-value store.
        """
        require_key_value(connection)
        self._connection = connection
        self._ttl = ttl

    def deliver(self, message: Message, task_id: str, reply: bytes) -> Sequence[Publication]:
        """Store the result; blocks for a round trip."""
        self._connection.key_value().key_set(result_key(task_id), reply, ttl=self._ttl)
        return ()


def require_key_value(connection: Connection) -> None:
    """Raise Unsupported, with the remedy, unless the broker has a key-value store."""
    if not connection.features.key_value:
        scheme = connection.url.partition(":")[0]
        raise Unsupported(
            "key_value",
            scheme,
            "results can be kept in another broker: App(backend='sqlite:///results.db')",
        )
