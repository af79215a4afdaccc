"""Results through a queue that each waiting process has for itself.

One thread takes them from it and hands them out by task id, in the same way as a mailbox hears its
answers (`queue_core.mailbox.Replies`).

The queue is declared when the first task is sent, expires when its process is gone, and works on
every broker, since it needs nothing but the messaging API. A result reaches only the process that
sent the task, and is dropped when nobody holds its `AsyncResult` any more.

Where results are kept in a store, the same queue wakes those who wait for one
(`queue_core.worker.results.key_value`); it is then declared by the first who has to wait.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Final

from queue_core import (
    Closed,
    ConfigError,
    Connection,
    Deadline,
    Message,
    MessageError,
    Producer,
    Publication,
    Queue,
    SystemClock,
    Unsupported,
)
from queue_core.mailbox import Replies, Ticket
from queue_core.worker.results.base import RESULT_ENCODING, RESULT_TYPE, Reply, Wake
from queue_core.worker.results.wire import Result, read_result

logger = logging.getLogger(__name__)

EXPIRES: Final = 3600.0
PREFETCH: Final = 500
_OPENING: Final = 60.0
_ENDING: Final = 10.0


class ReplyQueue:
    """The results of this process.

    Owns one daemon thread, from the first `reply_to` until `close`.
    """

    def __init__(self, connection: Connection) -> None:
        """Nothing is declared yet. ``connection`` stays the caller's."""
        self._connection = connection
        self._replies: Replies[Result] = Replies(
            connection,
            self._describe,
            ticket=lambda message: message.properties.correlation_id,
            read=self._read,
            prefetch=PREFETCH,
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._states: weakref.WeakKeyDictionary[Ticket[Result], Result] = (
            weakref.WeakKeyDictionary()
        )

    def reply_to(self) -> str:
        """Return the queue's name, declaring it and starting the thread at the first call."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start()
        return self._replies.queue

    def _start(self) -> None:
        if self._closed.is_set():
            raise Closed("the app is closed; its results cannot be waited for any more")
        self._replies.open(Deadline.after(_OPENING, SystemClock()))
        self._thread = threading.Thread(
            target=self._replies.serve,
            args=(self._closed,),
            name=f"results of {os.getpid()}",
            daemon=True,
        )
        self._thread.start()

    def _describe(self, own: str) -> Queue:
        """Describe a queue that outlives a broken connection: a result is sent only once."""
        features = self._connection.connect().features
        expiring = features.queue_expiry
        return Queue(
            f"qc.reply.{own}",
            expires=EXPIRES if expiring else None,
            exclusive=not expiring and features.exclusive,
            queue_type="classic",
        )

    def expect(self, task_id: str) -> Ticket[Result]:
        """Return the ticket for the result, the same one for all who wait for it.

        It lives as long as one of them keeps it.
        """
        return self._replies.expect(task_id)

    def announce(self, task_ids: Sequence[str]) -> None:
        """Do nothing: nobody else could ask."""

    def recall(self, task_id: str) -> tuple[Ticket[Result], bool]:
        """Return the ticket of a task that this process sent and still waits for."""
        ticket = self._replies.find(task_id)
        if ticket is None:
            raise Unsupported(
                "key_value",
                "rpc",
                f"task {task_id} was sent by another process, and results reach only the one that "
                "waits; name a backend: App(backend='sqlite:///results.db')",
            )
        return ticket, True

    def poll(self, task_id: str, kept: object) -> Result | None:
        """Return what came last. Does not block."""
        assert isinstance(kept, Ticket), "made by expect"
        return kept.arrived[0] if kept.arrived else self._states.get(kept)

    def wait(self, task_id: str, kept: object, deadline: Deadline) -> Result | None:
        """Wait for the thread to bring the result."""
        assert isinstance(kept, Ticket), "made by expect"
        return self.poll(task_id, kept) if self._replies.wait(kept, deadline) else None

    def attend(self, task_id: str, kept: object, wake: Wake) -> Result | None:
        """Have the thread call ``wake``. Does not block."""
        assert isinstance(kept, Ticket), "made by expect"
        return self.poll(task_id, kept) if self._replies.attend(kept, wake) else None

    def forget(self, task_id: str) -> None:
        """Drop it when it comes."""
        ticket = self._replies.find(task_id)
        if ticket is not None:
            self._replies.forget(ticket)
            ticket.arrived.clear()

    def _read(self, message: Message) -> Result | None:
        """Read a result; what has not ended is only kept in mind."""
        result = read_result(message.payload)
        if result.ended:
            return result
        ticket = self._replies.find(message.properties.correlation_id or "")
        if ticket is not None:
            self._states[ticket] = result
        return None

    def close(self) -> None:
        """Stop the thread and delete the queue.

        Blocks at most some seconds if the broker is away.
        """
        self._closed.set()
        self._replies.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=_ENDING)


class RpcDeliverer:
    """Sends results to the queue that the message names.

    Returns publications; the ack sends them.
    """

    def __init__(self, producer: Producer) -> None:
        """``producer`` must be one of the default exchange."""
        self._producer = producer

    def deliver(self, replies: Sequence[Reply]) -> list[Publication]:
        """Return those that somebody asked for. A process that is gone is no error."""
        found = []
        for message, task_id, body in replies:
            properties = message.properties
            if properties.reply_to:
                known = task_id or properties.correlation_id
                found += tell(self._producer, [properties.reply_to], known, body)
        return found

    def note(self, state: Reply) -> list[Publication]:
        """Return it, if somebody asked for the result."""
        return self.deliver([state])


def tell(
    producer: Producer, queues: Iterable[str], task_id: str | None, reply: bytes
) -> list[Publication]:
    """Return what tells processes of a result; that one may be gone is no error.

    What can never be sent, such as to a name that no queue can have, is logged and left out: no
    other result, and no message, shall wait for it.
    """
    found = []
    for queue in queues:
        try:
            publication = producer.prepare(
                reply,
                queue,
                correlation_id=task_id,
                mandatory=False,
                durable=False,
                content_type=RESULT_TYPE,
                content_encoding=RESULT_ENCODING,
            )
        except (ConfigError, MessageError) as error:
            logger.error("a result for queue %.60r is dropped: %s", queue, error)
        else:
            found.append(publication)
    return found
