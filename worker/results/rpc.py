"""Results through a queue that each waiting process has for itself.

One thread takes them from it and hands them out by task id.

The queue is declared when the first task is sent, expires when its process is gone, and works on
every broker, since it needs nothing but the messaging API. A result reaches only the process that
sent the task, and is dropped when nobody holds its `AsyncResult` any more.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
import weakref
from collections.abc import Sequence

from queue_core import (
    Backoff,
    Closed,
    Connection,
    Consumer,
    Message,
    MessageError,
    Producer,
    Publication,
    Queue,
    QueueCoreError,
    Unsupported,
)
from queue_core.worker.protocol import Result, read_result
from queue_core.worker.results.base import RESULT_ENCODING, RESULT_TYPE

logger = logging.getLogger(__name__)

EXPIRES = 3600.0
PREFETCH = 500
_POLL = 1.0


class _Slot:
    """Where one result is put."""

    __slots__ = ("__weakref__", "arrived", "result")

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.result: Result | None = None


class ReplyQueue:
    """The reply queue of this process.

    Owns one daemon thread, from the first `reply_to` until `close`.
    """

    def __init__(self, connection: Connection) -> None:
        """Nothing is declared yet. ``connection`` stays the caller's."""
        self._connection = connection
        self._name = f"qc.reply.{uuid.uuid4()}"
        self._slots: weakref.WeakValueDictionary[str, _Slot] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._queue: Queue | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def reply_to(self) -> str:
        """Return the queue's name, declaring it and starting the thread at the first call."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._open()
        return self._name

    def _open(self) -> None:
        if self._closed.is_set():
            raise Closed("the app is closed; its results cannot be waited for any more")
        features = self._connection.connect().features
        expiring = features.queue_expiry
        self._queue = self._connection.declare(
            Queue(
                self._name,
                expires=EXPIRES if expiring else None,
                exclusive=not expiring and features.exclusive,
                queue_type="classic",
            )
        )
        self._consumer = self._connection.consumer(self._queue, prefetch=PREFETCH, decode=False)
        self._consumer.start()
        self._thread = threading.Thread(
            target=self._dispatch, name=f"results of {os.getpid()}", daemon=True
        )
        self._thread.start()

    def expect(self, task_id: str) -> object:
        """Return the slot for the result; it lives as long as the caller keeps it."""
        slot = self._slots[task_id] = _Slot()
        return slot

    def recall(self, task_id: str) -> object:
        """Return the slot of a task that this process sent and still waits for."""
        slot = self._slots.get(task_id)
        if slot is None:
            raise Unsupported(
                "key_value",
                "rpc",
                f"task {task_id} was sent by another process, and results reach only the one that "
                "waits; name a backend: App(backend='sqlite:///results.db')",
            )
        return slot

    def poll(self, task_id: str, kept: object) -> Result | None:
        """Return the result if it came. Does not block."""
        assert isinstance(kept, _Slot), "made by expect"
        return kept.result

    def wait(self, task_id: str, kept: object, timeout: float | None) -> Result | None:
        """Wait for the thread to bring the result."""
        assert isinstance(kept, _Slot), "made by expect"
        kept.arrived.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        return kept.result

    def close(self) -> None:
        """Stop the thread and delete the queue.

        Blocks at most some seconds if the broker is away.
        """
        self._closed.set()
        with self._lock:
            consumer, self._consumer = self._consumer, None
            queue, self._queue = self._queue, None
        if consumer is None or queue is None:
            return
        consumer.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * _POLL)
        try:
            self._connection.delete(queue)
        except QueueCoreError as error:
            logger.debug("the reply queue %s is left to its expiry: %s", queue.name, error)

    def _dispatch(self) -> None:
        """Run in the thread: take replies until closed."""
        consumer = self._consumer
        backoff, failures = Backoff(), 0
        while consumer is not None and not self._closed.is_set():
            try:
                message = consumer.receive(timeout=_POLL)
                failures = 0
            except Closed:
                return
            except QueueCoreError as error:
                logger.warning("results cannot be received: %s", error)
                self._closed.wait(backoff.delay(failures))
                failures += 1
                continue
            if message is not None:
                self._hand_out(message)

    def _hand_out(self, message: Message) -> None:
        try:
            result = read_result(message.payload)
        except MessageError as error:
            logger.warning("a reply that is no result was dropped: %s", error)
        else:
            slot = self._slots.get(result.task_id)
            if slot is not None and result.status != "PENDING":
                slot.result = result
                slot.arrived.set()
        try:
            message.ack()
        except QueueCoreError as error:
            logger.debug("a result comes again: %s", error)


class RpcDeliverer:
    """Sends results to the queue that the message names.

    Returns publications; the ack sends them.
    """

    def __init__(self, producer: Producer) -> None:
        """``producer`` must be one of the default exchange."""
        self._producer = producer

    def deliver(self, message: Message, task_id: str, reply: bytes) -> Sequence[Publication]:
        """Return the reply, if the message asks for one. A process that is gone is no error."""
        properties = message.properties
        if not properties.reply_to:
            return ()
        return (
            self._producer.prepare(
                reply,
                properties.reply_to,
                correlation_id=properties.correlation_id or task_id,
                mandatory=False,
                durable=False,
                content_type=RESULT_TYPE,
                content_encoding=RESULT_ENCODING,
            ),
        )
