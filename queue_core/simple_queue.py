"""A queue on a broker that looks like `queue.Queue`, for scripts that want nothing more."""

from __future__ import annotations

import queue as stdlib_queue
import threading
from typing import Any, Never, Self

from queue_core.arguments import refuse_options
from queue_core.consumer import Consumer
from queue_core.errors import Refused
from queue_core.message import Message
from queue_core.policy import Deadline, SystemClock
from queue_core.producer import Producer


class SimpleQueue:
    """``put`` and ``get`` with the meaning that `queue.Queue` gives them.

    Made by `Connection.simple_queue`.

    ``get`` returns the item and acks it. With ``get_message`` the caller acks it himself, after the
    work is done; an item whose process dies before that returns to the queue. Safe to use from
    several threads; ``get`` serves one of them at a time.
    """

    def __init__(self, name: str, producer: Producer, consumer: Consumer) -> None:
        """Wrap a producer and a consumer of the queue ``name``; nothing is sent."""
        self.name = name
        self._producer = producer
        self._consumer = consumer
        self._getting = threading.Lock()

    def put(self, item: Any, timeout: float | None = None, **unknown: Never) -> None:
        """Append an item; blocks until the broker has it.

        It waits at most ``timeout`` seconds (the connection's timeout if None).

        Raises:
            queue.Full: the queue was declared to refuse more.
            QueueCoreError: as `Producer.publish`.
        """
        if unknown:
            refuse_options("put", unknown, ("item", "timeout"))
        try:
            self._producer.publish(item, self.name, timeout=timeout)
        except Refused as error:
            raise stdlib_queue.Full(str(error)) from error

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as in queue.Queue
        """Remove and return the oldest item.

        Blocks for ever, or at most ``timeout`` seconds, or with ``block=False`` for one round
        trip.

        Raises:
            queue.Empty: there was none in time.
        """
        message = self.get_message(block, timeout)
        payload = message.payload
        message.ack()
        return payload

    def get_message(self, block: bool = True, timeout: float | None = None) -> Message:  # noqa: FBT001, FBT002
        """Return the oldest item as a `Message`, to be settled by the caller.

        Until it is, this `SimpleQueue` hands out no other. Blocks and raises as `get`.
        """
        deadline = Deadline.after(timeout if block else 0.0, SystemClock())
        if self._getting.acquire(timeout=deadline.bound(threading.TIMEOUT_MAX)):
            try:
                message = self._consumer.receive(deadline.remaining())
            finally:
                self._getting.release()
            if message is not None:
                return message
        raise stdlib_queue.Empty(f"queue {self.name!r} had no item in time")

    def put_nowait(self, item: Any) -> None:
        """Append an item; the same as `put`, since a broker's answer always takes a moment."""
        self.put(item)

    def get_nowait(self) -> Any:
        """Return an item if there is one; raises queue.Empty."""
        return self.get(block=False)

    def close(self) -> None:
        """Send the acks and stop consuming; may be called twice."""
        self._consumer.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()
