"""Which queues are consumed, and by which `queue_core.Consumer`.

Both may change while messages of theirs are in flight. A `queue_core.Consumer` cannot stop taking
from a queue and keep what it took from there, so every change - another queue, one fewer, a pause,
another prefetch - replaces it by a new one. The old one takes nothing more, and is closed when
everything that it took is settled.

A new one knows nothing of what the old one holds. So when less is to be held than is here, nothing
is consumed until there is room.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

from queue_core import Connection, Consumer, Queue, QueueCoreError, QueueNotFound
from queue_core.worker.runner import Worker
from queue_core.worker.settler import Settler

logger = logging.getLogger(__name__)

RETIRED: Final = 5.0
"""Seconds for which what nothing is taken from any more is kept at least."""


class Intake:
    """Where messages come from. Thread-safe.

    Attributes:
        queues: those that are consumed, by name.
        paused: the names of those that nothing is taken from for now.
        taker: takes from the others; None if nothing is to be taken, or there is no room.
    """

    def __init__(self, worker: Worker, queues: Iterable[Queue]) -> None:
        """Nothing is consumed before `open` and `take_from`."""
        self.queues = {queue.name: queue for queue in queues}
        self.paused: set[str] = set()
        self.taker: Consumer | None = None
        self._changing = threading.RLock()
        self._worker = worker
        self._connection: Connection | None = None
        self._settler: Settler | None = None
        self._retired: list[tuple[float, Consumer]] = []
        self._declared: set[str] = set()
        self._ending = False
        self._ahead = 0

    def open(self, connection: Connection, settler: Settler) -> None:
        """Say where to take from, and who settles what is taken."""
        self._connection, self._settler = connection, settler

    def take_from(self, queues: Mapping[str, Queue]) -> None:
        """From now on, or from `open` on, consume these queues; blocks for round trips.

        Raises:
            QueueCoreError: one cannot be declared or consumed; all is as it was.
        """
        with self._changing:
            if self._connection is None:  # told by remote control, which comes before
                self.queues = dict(queues)
                return
            for queue in queues.values():
                self._declare(self._connection, queue)
            self._subscribe(queues, self._wanted_ahead())

    def _declare(self, connection: Connection, queue: Queue) -> None:
        """Declare a queue; say so if it was there once, and somebody has deleted it."""
        if queue.name in self._declared:
            try:
                connection.inspect(queue)
            except QueueNotFound:
                logger.warning("queue %s is declared again", queue.name)
        connection.declare(queue)
        self._declared.add(queue.name)

    def renew(self) -> None:
        """Consume the same queues again, with the prefetch that is right now."""
        with self._changing:
            self.take_from(self.queues)

    def tend(self) -> None:
        """Look after what is consumed; to be called from time to time, at best while tasks run.

        Twice as many messages are held, or half, when the pool runs shorter or longer tasks now.
        What waits behind long tasks goes back, unless somebody said how many to hold. Either way
        nothing is consumed before there is room. What was retired is closed when it can be.
        """
        self._close_retired()
        worker = self._worker
        with self._changing:
            if self.taker is not None and not worker.in_flight:
                return  # another prefetch costs round trips; nobody needs it before a message
            returned = not worker.prefetch and worker.pool.return_waiting()
            ahead = self._wanted_ahead()
            if returned or not self._ahead / 2 < ahead < self._ahead * 2:
                room = len(worker.in_flight.all("reserved")) < ahead
                self._subscribe(self.queues, ahead if room else 0)

    def _wanted_ahead(self) -> int:
        return self._worker.prefetch or self._worker.pool.ahead

    def _subscribe(self, queues: Mapping[str, Queue], ahead: int) -> None:
        """Replace the consumer by one that holds ``ahead`` messages, or by none."""
        assert self._connection is not None and self._settler is not None, "it is open"
        if self._ending:
            return
        wanted = [queue for queue in queues.values() if queue.name not in self.paused]
        fresh = None
        if ahead and wanted and not self._worker.options.check:
            prefetch = max(1, ahead // len(wanted))
            fresh = self._connection.consumer(*wanted, prefetch=prefetch, decode=False)
            try:
                fresh.start()
            except QueueCoreError:
                fresh.close()
                raise
        before, self.taker, self._ahead = self.taker, fresh, ahead
        self.queues = dict(queues)
        self._settler.queues = {**self._settler.queues, **queues}
        self._retire(before)

    def add(self, queue: Queue) -> None:
        """Consume from one more queue. Raises as `take_from`."""
        with self._changing:
            self.take_from({**self.queues, queue.name: queue})

    def cancel(self, name: str) -> None:
        """Take nothing more from a queue; what is here from it is finished."""
        with self._changing:
            self.take_from({other: queue for other, queue in self.queues.items() if other != name})

    def pause(self, name: str = "") -> None:
        """Take nothing more from a queue, or from any, until `resume`."""
        with self._changing:
            self._take_but(self.paused | ({name} if name else set(self.queues)))

    def resume(self, name: str = "") -> None:
        """Take from a queue, or from all, again."""
        with self._changing:
            self._take_but(self.paused - {name} if name else set())

    def _take_but(self, paused: set[str]) -> None:
        before, self.paused = self.paused, paused
        try:
            self.renew()
        except QueueCoreError:
            self.paused = before
            raise

    @property
    def idle(self) -> bool:
        """Whether nothing is here, and nothing is being settled."""
        assert self._settler is not None, "it is open"
        return not self._worker.in_flight and self._settler.idle  # the way that messages take

    def exhausted(self) -> bool:
        """Whether nothing waits in the queues; blocks for round trips."""
        assert self._connection is not None, "it is open"
        return not any(self._connection.inspect(queue).ready for queue in self.queues.values())

    def stop(self, *, ever: bool = False) -> None:
        """Take nothing, until `take_from` or for ever; what was fetched goes back."""
        with self._changing:
            self._ending = self._ending or ever
            before, self.taker = self.taker, None
        self._retire(before)

    def close(self, patience: float) -> None:
        """Make all settlements certain, and give back the rest."""
        self.stop(ever=True)
        with self._changing:
            retired, self._retired = self._retired, []
        for _, taker in retired:
            _close(taker, patience)

    def _retire(self, taker: Consumer | None) -> None:
        if taker is not None:
            taker.stop()
            with self._changing:
                self._retired.append((time.monotonic(), taker))

    def _close_retired(self) -> None:
        """Close those of which nothing is here any more."""
        if not self._retired:
            return
        in_use = {id(request.taker) for request in self._worker.in_flight.all()}
        # After that: what is here no more may be on its way to the broker.
        idle = self._settler is not None and self._settler.idle
        until = time.monotonic() - RETIRED if idle else -math.inf
        with self._changing:
            over = [old for since, old in self._retired if since < until and id(old) not in in_use]
            self._retired = [item for item in self._retired if item[1] not in over]
        for old in over:
            _close(old, 1.0)


def _close(taker: Consumer, patience: float) -> None:
    try:
        taker.flush(patience)
    except QueueCoreError as error:
        logger.warning("some settlements are not certain: %s", error)
    taker.close()
