"""What an app holds in one process: its connection, and its way of getting results."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

from queue_core import Connection, Producer, Unroutable, Unsupported
from queue_core.worker.outcome import Letter
from queue_core.worker.results.base import Results
from queue_core.worker.results.key_value import KeyValueResults
from queue_core.worker.results.rpc import ReplyQueue

RPC: Final = ("rpc", "rpc://")
_HURRY: Final = 1.0


class Office:
    """Sends letters, and receives results.

    Locks are made in the process that uses them, so a fork inherits none that is held.
    """

    def __init__(self, url: str, backend: str | None) -> None:
        """Nothing is connected yet."""
        self.connection = Connection(url)
        self.producer: Producer = self.connection.producer()
        self._pid = os.getpid()
        self._backend = backend
        self._lock = threading.Lock()
        self._declared: set[str] = set()
        self._results: Results | None = None
        self._backend_connection: Connection | None = None

    def send(
        self,
        letters: Sequence[Letter],
        *,
        transaction: object | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send; blocks until the broker has all of them.

        A queue that somebody deleted since it was declared is declared again.

        Raises:
            QueueCoreError: see `queue_core.Producer.publish_many`.
        """
        self._declare(letters)
        if transaction is not None:
            for letter in letters:
                self._send_in(transaction, letter, timeout)
            return
        try:
            self.producer.publish_many([item.publication for item in letters], timeout=timeout)
        except Unroutable as error:
            rest = letters[len(error.receipts) :]
            self.forget(rest)
            self._declare(rest)
            self.producer.publish_many([item.publication for item in rest], timeout=timeout)

    def send_many(self, letters: Iterable[Letter]) -> None:
        """Send what may be a long iterable, pipelined; see `queue_core.Producer.publish_many`."""

        def declared() -> Iterable[Any]:
            for letter in letters:
                self._declare((letter,))
                yield letter.publication

        self.producer.publish_many(declared())

    def _send_in(self, transaction: object, letter: Letter, timeout: float | None) -> None:
        publication = letter.publication
        properties = publication.properties
        self.producer.publish(
            publication.body,
            publication.routing_key,
            transaction=transaction,
            timeout=timeout,
            exchange=publication.exchange,
            headers=properties.headers,
            priority=properties.priority,
            ttl=properties.expiration,
            delay=publication.delay,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
        )

    def _declare(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            queue = letter.queue
            if queue is not None and queue.name not in self._declared:
                self.connection.declare(queue)
                self._declared.add(queue.name)

    def forget(self, letters: Iterable[Letter]) -> None:
        """Declare the queues of ``letters`` again when they are needed."""
        self._declared -= {letter.queue.name for letter in letters if letter.queue is not None}

    def results(self) -> Results:
        """Return the side of the results that waits; the first call may declare a queue."""
        if self._results is None:
            with self._lock:
                if self._results is None:
                    self._results = self._choose()
                    atexit.register(self.close)
        return self._results

    def _choose(self) -> Results:
        if self._backend in RPC or (
            self._backend is None and not self.connection.features.key_value
        ):
            return ReplyQueue(self.connection)
        if self._backend is None:
            return KeyValueResults(self.connection)
        self._backend_connection = Connection(self._backend)
        return KeyValueResults(self._backend_connection)

    def need_counting(self) -> None:
        """Raise Unsupported, with the remedy, if the parts of a chord could not be counted."""
        if self._backend in (None, *RPC) and not self.connection.features.key_value:
            raise Unsupported(
                "key_value",
                self.connection.url.partition(":")[0],
                "the parts of a chord are counted in a store: App(backend='sqlite:///results.db'), "
                "or redis:// if the workers are on several machines",
            )

    def close(self) -> None:
        """End everything; may be called twice."""
        atexit.unregister(self.close)
        if os.getpid() != self._pid:
            return  # the exit of a forked child, which must leave the parent's reply queue alone
        if self._results is not None:
            self._results.close()
        if self._backend_connection is not None:
            self._backend_connection.close()
        self.connection.close()


def patience(retry: object, policy: object) -> float | None:
    """Return within how many seconds a task must be sent; None: the connection's timeout.

    Without ``retry`` one second, in which a connection that was just lost may come back.
    """
    if retry is False:
        return _HURRY
    limit = policy.get("timeout") if isinstance(policy, dict) else None
    return float(limit) if isinstance(limit, int | float) else None
