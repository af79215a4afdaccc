"""Results in a key-value store, under their task's id: any process can read them.

A result is stored under the condition that nothing is there yet, in one round trip. Who waits for
it leaves the name of its reply queue in that very place, as part of a result that says that there
is none. So the worker that brings the result finds it there, keeps the names, and sends the result
to those queues together with the ack. Registering and storing cannot miss each other, for both are
compare-and-set of one key; a task that nobody waits for costs nothing more; and a worker that dies
between storing and acking leaves the names for the one that runs the task again. Should a message
be lost all the same, who waits looks into the store every few seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from queue_core import (
    Connection,
    Deadline,
    KeyValue,
    KeyWrite,
    Producer,
    Publication,
    QueueCoreError,
    SystemClock,
    TransportError,
    Unsupported,
    decode,
)
from queue_core.mailbox import Ticket
from queue_core.worker.results.base import (
    AGAIN,
    PATIENCE,
    RESULT_ENCODING,
    RESULT_TYPE,
    Reply,
    Wake,
)
from queue_core.worker.results.options import ResultOptions
from queue_core.worker.results.rpc import ReplyQueue, tell
from queue_core.worker.results.wire import Head, Result, read_head, read_result, state, with_waiting

logger = logging.getLogger(__name__)

PREFIX = "celery-task-meta-"
UNKNOWN: Final = "UNKNOWN"
_FIRST: Final = 1.0
_LOOKS: Final = (0.002, 0.004)
"""Seconds before more looks for a result that comes at once: they cost less than leaving word."""
_MAX_WAITING: Final = 100
"""How many queues are told of one result: those that came last."""
_TRIES: Final = 1000


def result_key(task_id: str) -> str:
    """Return the key of a task's result; the same as celery's."""
    return PREFIX + task_id


class Kept(msgspec.Struct):
    """What who waits for a task holds.

    Attributes:
        sent: this process sent it.
        ticket: the one that its result's message has; from the moment when somebody waits.
    """

    sent: bool
    ticket: Ticket[Result] | None = None


class KeyValueResults:
    """Reads results from the store of ``connection``, which stays the caller's."""

    def __init__(
        self, connection: Connection, replies: ReplyQueue, options: ResultOptions | None = None
    ) -> None:
        """Nothing is connected yet.

        Raises Unsupported if the broker has no key-value store.

        Args:
            connection: to the store.
            replies: wakes who waits; on the broker that workers take tasks from. Belongs to this.
            options: those of the app.
        """
        require_key_value(connection)
        self._connection = connection
        self._replies = replies
        self._options = options or ResultOptions()

    def reply_to(self) -> None:
        """No queue is needed until somebody waits."""
        return None

    def expect(self, task_id: str) -> Kept:
        """Nothing is needed before somebody waits."""
        return Kept(sent=True)

    def announce(self, task_ids: Sequence[str]) -> None:
        """Store that they are sent."""
        if self._options.track_sent and task_ids:
            ttl = self._options.ttl
            self._store().key_set_many(
                [KeyWrite(result_key(one), state(one, "PENDING"), ttl) for one in task_ids]
            )

    def recall(self, task_id: str) -> tuple[Kept, bool]:
        """Nothing is known before the store is asked."""
        return Kept(sent=False), False

    def poll(self, task_id: str, kept: object) -> Result | None:
        """Ask the store once."""
        entry = self._store().key_get(result_key(task_id))
        return None if entry is None else _read(entry.value)

    def wait(self, task_id: str, kept: object, deadline: Deadline) -> Result | None:
        """Wait for the message, and look into the store every few seconds.

        If that is away at the deadline, its error is what the TimeoutError comes from.
        """
        assert isinstance(kept, Kept), "made by expect"
        pause, looks = _FIRST, [0.0, *_LOOKS]
        away: TransportError | None = None
        while True:
            try:
                if looks:
                    time.sleep(deadline.bound(looks.pop(0)))
                    result = self.poll(task_id, kept)
                else:
                    result = self._ask(task_id, kept)
                away = None
            except TransportError as error:
                if not error.retryable:
                    raise
                if away is None:
                    logger.warning("the result of %s is asked for again: %s", task_id, error)
                result, away = None, error
                time.sleep(deadline.bound(AGAIN))
            if result is not None and result.ended:
                return result
            if deadline.expired:
                if away is not None:
                    raise TimeoutError(f"no result of task {task_id} in time: {away}") from away
                return None
            if kept.ticket is not None and not looks:
                short = Deadline.after(deadline.bound(pause), SystemClock())
                result = self._replies.wait(task_id, kept.ticket, short)
                if result is not None:
                    return result
                pause = min(PATIENCE, pause * 2)

    def attend(self, task_id: str, kept: object, wake: Wake) -> Result | None:
        """Leave word in the store."""
        assert isinstance(kept, Kept), "made by expect"
        result = self._ask(task_id, kept)
        if result is not None and result.ended:
            return result
        assert kept.ticket is not None, "word was left"
        return self._replies.attend(task_id, kept.ticket, wake)

    def forget(self, task_id: str) -> None:
        """Delete it."""
        self._store().key_delete(result_key(task_id))

    def close(self) -> None:
        """Delete the reply queue."""
        self._replies.close()

    def _ask(self, task_id: str, kept: Kept) -> Result | None:
        """Return what is in the store; unless it is the end, see that we are told of that."""
        queue = self._replies.reply_to()
        if kept.ticket is None:
            kept.ticket = self._replies.expect(task_id)
        store, key = self._store(), result_key(task_id)
        for _ in range(_TRIES):
            entry = store.key_get(key)
            body = entry.value if entry is not None else state(task_id, _unheard(kept))
            head = read_head(body)
            if entry is not None and (head.ended or queue in head.waiting):
                return _read(body)
            waiting = [*head.waiting, queue][-_MAX_WAITING:]
            version = 0 if entry is None else entry.version
            ttl = self._options.ttl
            if store.key_set(key, _with(body, waiting), ttl=ttl, version=version) is not None:
                return _read(body)
        raise TimeoutError(f"the state of task {task_id} changes too fast")

    def _store(self) -> KeyValue:
        return self._connection.key_value()


class KeyValueDeliverer:
    """Stores results before the ack, and tells those who wait with it."""

    def __init__(
        self, connection: Connection, producer: Producer, options: ResultOptions | None = None
    ) -> None:
        """``producer`` sends to the broker's default exchange.

        Raises Unsupported if the broker of ``connection`` has no key-value store.
        """
        require_key_value(connection)
        self._connection = connection
        self._producer = producer
        self._options = options or ResultOptions()

    def deliver(self, replies: Sequence[Reply]) -> list[Publication]:
        """Store results; blocks for a round trip, and two for each that somebody waits for."""
        heads = [read_head(reply.body) for reply in replies]
        answers = self._connection.key_value().key_set_many(
            [
                KeyWrite(result_key(reply.task_id), reply.body, self._ttl(head), 0)
                for reply, head in zip(replies, heads, strict=True)
            ]
        )
        told: list[Publication] = []
        for reply, head, answer in zip(replies, heads, answers, strict=True):
            if answer is None:
                waiting = self._replace(reply, head, over_end=True)
                queues = waiting if head.ended else ()
                told += tell(self._producer, queues, reply.task_id, reply.body)
        return told

    def note(self, state: Reply) -> list[Publication]:
        """Store the state; blocks for two round trips."""
        self._replace(state, read_head(state.body), over_end=False)
        return []

    def _replace(self, reply: Reply, head: Head, *, over_end: bool) -> Sequence[str]:
        """Store what there is to say, and return the queues of those who wait for the end."""
        store, key = self._connection.key_value(), result_key(reply.task_id)
        for _ in range(_TRIES):
            entry = store.key_get(key)
            old = Head() if entry is None else read_head(entry.value)
            if old.ended and not over_end:
                return ()
            version = 0 if entry is None else entry.version
            body = with_waiting(reply.body, old.waiting)
            if store.key_set(key, body, ttl=self._ttl(head), version=version) is not None:
                return old.waiting
        raise TimeoutError(f"the state of task {reply.task_id} changes too fast")

    def _ttl(self, head: Head) -> float | None:
        failed = head.status in ("FAILURE", "REVOKED")
        return self._options.failure_ttl if failed else self._options.ttl


def require_key_value(connection: Connection) -> None:
    """Raise Unsupported, with the remedy, unless the broker has a key-value store."""
    if not connection.features.key_value:
        scheme = connection.url.partition(":")[0]
        raise Unsupported(
            "key_value",
            scheme,
            "results can be kept in another broker: App(backend='sqlite:///results.db')",
        )


def _unheard(kept: Kept) -> str:
    """Return the state of a task that the store knows nothing of."""
    return "PENDING" if kept.sent else UNKNOWN


def _read(body: bytes) -> Result:
    return read_result(decode(body, RESULT_TYPE, RESULT_ENCODING))


def _with(body: bytes, waiting: Sequence[str]) -> bytes:
    """Return an encoded result message with others who wait."""
    try:
        message = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise QueueCoreError(f"the store holds no result: {error}") from error
    message["waiting"] = msgspec.Raw(msgspec.json.encode(waiting))
    return msgspec.json.encode(message)
