"""`EmulatedSession`: the `Session` protocol on top of a `Store`.

It puts the parts together and owns their threads and handles: `declaring` for topology,
`publishing`, one `consuming.Consumer` per consumer, and the `keeper` for what has to happen by
itself. The session exists at the store under one name as long as its heartbeat comes; a lost
connection does not end it, only a lost lease does.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

from queue_core.emulation.consuming import Consumer
from queue_core.emulation.core import Core
from queue_core.emulation.declaring import Declarer
from queue_core.emulation.handles import Pool, PooledKeyValue
from queue_core.emulation.keeper import Keeper
from queue_core.emulation.leases import Names
from queue_core.emulation.ledger import Finish, Ledger, PiggybackedAcks
from queue_core.emulation.reclaiming import Reclaimer
from queue_core.emulation.shredding import purge
from queue_core.emulation.window import Window
from queue_core.errors import ConnectionLost, QueueCoreError, StaleDelivery, TransportError, counted
from queue_core.message import Delivery, Publication, Settlement
from queue_core.policy import Deadline
from queue_core.topology import Entity
from queue_core.transport import (
    Detector,
    Durability,
    Features,
    KeyValue,
    Outcome,
    QueueInfo,
    SessionOptions,
    Store,
    Transaction,
    require,
)

__all__ = ["EmulatedSession"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_STRAYS: Final = 1_000


class EmulatedSession:
    """A `Session` on a store. Thread-safe; made by `StoreTransport.open`."""

    def __init__(
        self,
        transport: str,
        features: Features,
        options: SessionOptions,
        open_store: Callable[[float], Store],
    ) -> None:
        """Connect, open the session at the store, and start the keeper."""
        self._pool = Pool(open_store)
        self._core = Core(transport, features, options, self._pool)
        self._consumers: dict[str, Consumer] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._entering: dict[tuple[str, str], int] = {}  # subscriptions tried and not yet certain
        self._strays: Counter[str] = Counter()
        self._leaving: dict[str, Ledger] = {}  # of cancelled consumers: some is not certain yet
        self._settled_then: dict[object, tuple[str, ...]] = {}
        self._declarer = Declarer(self._core, self._queue_deleted)
        reclaimer = Reclaimer(self._core, self._declarer)
        try:
            with self._pool.borrow(options.connect_timeout) as store:
                deadline = Deadline.after(options.connect_timeout, options.clock)
                sent = options.clock.monotonic()
                store.open_session(self._core.main, options.lease)
                self._core.fence.confirm(sent)
                if options.node or options.again:
                    reclaimer.take_over(store, deadline)
        except BaseException:
            self._pool.close()
            raise
        self._keeper = Keeper(self._core, self._declarer, reclaimer, self._all_consumers)
        self._core.keeper = self._keeper
        self._core.wake_all = self._wake_all
        if options.keeper:
            self._keeper.start()

    # --- state ------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """See `Session.closed`."""
        return self._core.over

    @property
    def holds(self) -> bool:
        """See `Session.holds`."""
        return self._core.holds

    @property
    def features(self) -> Features:
        """See `Session.features`."""
        return self._core.features

    def tick(self) -> None:
        """Run one round of the keeper on this thread: for sessions without a keeper thread."""
        self._core.guard()
        self._keeper.tick()

    def _call(self, operation: Callable[[Store], T], timeout: float) -> T:
        self._core.guard()
        with self._pool.borrow(timeout) as store:
            return operation(store)

    def _deadline(self, timeout: float) -> Deadline:
        return Deadline.after(timeout, self._core.clock)

    # --- topology ---------------------------------------------------------------------------------

    def declare(self, entity: Entity, *, passive: bool = False, timeout: float = 10.0) -> str:
        """See `Session.declare`."""
        deadline = self._deadline(timeout)
        return self._call(
            lambda store: self._declarer.declare(store, entity, passive=passive, deadline=deadline),
            timeout,
        )

    def delete(
        self,
        entity: Entity,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float = 10.0,
    ) -> bool:
        """See `Session.delete`."""
        deadline = self._deadline(timeout)
        return self._call(
            lambda store: self._declarer.delete(
                store, entity, if_unused=if_unused, if_empty=if_empty, deadline=deadline
            ),
            timeout,
        )

    def inspect(self, queue: str, *, timeout: float = 10.0) -> QueueInfo:
        """See `Session.inspect`."""
        return self._call(lambda store: self._declarer.inspect(store, queue), timeout)

    def purge(self, queue: str, *, timeout: float = 10.0) -> int:
        """See `Session.purge`."""
        deadline = self._deadline(timeout)

        def purge_queue(store: Store) -> int:
            self._declarer.fresh(store, queue)
            return purge(store, queue, deadline)

        return self._call(purge_queue, timeout)

    # --- publishing -------------------------------------------------------------------------------

    def publish(
        self,
        publications: Sequence[Publication],
        *,
        timeout: float = 10.0,
        transaction: Transaction | None = None,
    ) -> Sequence[Outcome]:
        """See `Session.publish`."""
        core = self._core
        core.publisher.check(publications, transaction)
        deadline = Deadline.after(timeout, core.clock)
        core.guard()
        # What the caller's transaction would undo is no place for acks.
        ledgers = () if transaction is not None else self._ledgers()
        with self._pool.borrow(timeout) as store, PiggybackedAcks(ledgers) as piggybacked:
            return core.publisher.publish(
                store, publications, piggybacked, deadline=deadline, transaction=transaction
            )

    def settle_then(
        self, delivery: Delivery, then: Sequence[Publication], *, timeout: float = 10.0
    ) -> Sequence[Outcome]:
        """See `Session.settle_then`."""
        core = self._core
        core.guard()
        core.publisher.check(then, None)
        consumer = self._consumers.get(delivery.consumer)
        window = consumer.ledger.hold_back(delivery) if consumer is not None else None
        if consumer is None or window is None:
            raise _stale(delivery)
        token = delivery.token
        ids = tuple(publication.id for publication in then)
        settled = False
        try:
            deadline = self._deadline(timeout)
            outcomes, stale = self._call(
                lambda store: core.publisher.publish_with(store, then, token, deadline), timeout
            )
            # Stale although it was tried before with the same ids: that try had worked.
            repeated = self._settled_then.pop(token, None) == ids
            settled = stale or all(outcome.status == "confirmed" for outcome in outcomes)
            if stale and not repeated:
                raise _stale(delivery)
            return outcomes
        except TransportError:
            with self._lock:
                self._settled_then[token] = ids
                if len(self._settled_then) > MAX_STRAYS:
                    self._settled_then.pop(next(iter(self._settled_then)), None)
            raise
        finally:
            consumer.ledger.let_go(window, token, settled=settled)

    # --- consuming --------------------------------------------------------------------------------

    def subscribe(self, consumer: str, queue: str, *, prefetch: int, timeout: float = 10.0) -> None:
        """See `Session.subscribe`."""
        self._core.guard()
        with self._lock:
            found = self._consumers.get(consumer)
            if found is None:
                found = self._consumers[consumer] = Consumer(self._core, consumer)
        if found.ledger.resize(queue, prefetch):
            return
        deadline = self._deadline(timeout)
        with self._lock:
            number = self._entering.setdefault((consumer, queue), next(self._numbers))
        try:
            joined = self._call(
                lambda store: self._declarer.enter(store, queue, number, deadline), timeout
            )
        except ConnectionLost:
            raise  # its session may exist: the next try takes the same one, or close ends it
        except QueueCoreError:
            self._entering.pop((consumer, queue), None)
            raise
        self._entering.pop((consumer, queue), None)
        found.ledger.add(
            Window(queue, prefetch, leases=joined.leases, uid=joined.uid, expires=joined.expires)
        )

    def cancel(self, consumer: str, queue: str | None = None, *, timeout: float = 10.0) -> None:
        """See `Session.cancel`."""
        self._core.guard()
        found = self._consumers.get(consumer)
        if found is None:
            return
        deadline = self._deadline(timeout)
        removed = [
            window
            for item in found.ledger.subscriptions()
            if queue in (None, item.queue) and (window := found.remove(item.queue)) is not None
        ]
        errors = [error for window in removed if (error := self._leave(found, window, deadline))]
        if queue is None:
            with self._lock:
                self._consumers.pop(consumer, None)
                left = {**self._leaving, consumer: found.ledger}
                self._leaving = {name: ledger for name, ledger in left.items() if ledger.uncertain}
            if stale := found.retire():
                self._count_strays(consumer, stale)
        elif not found.ledger.subscriptions():
            found.abandon()
            found.wake()
        if errors:
            raise next((one for one in errors if not isinstance(one, QueueCoreError)), errors[0])

    def _leave(
        self, consumer: Consumer, window: Window, deadline: Deadline
    ) -> BaseException | None:
        """Put away a subscription that has ended; what fails now is left to the keeper."""

        def leave(store: Store) -> None:
            again = self._deadline(self._core.options.timeout)
            self._declarer.leave(store, window.queue, window.leases, again)

        try:
            self._call(lambda store: consumer.ledger.finish(store, window), deadline.remaining())
            self._call(leave, deadline.remaining())
        except BaseException as error:  # Ctrl-C, too: there may be others
            self._core.later(Finish(consumer.ledger, window))
            self._core.later(leave)
            return error
        return None

    def receive(
        self, consumer: str, *, limit: int = 1000, wait: float = 1.0, timeout: float = math.inf
    ) -> Sequence[Delivery]:
        """See `Session.receive`."""
        found = self._consumers.get(consumer)
        if found is None:
            self._core.guard()
            return ()
        return found.receive(limit, wait, timeout)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Session.settle`."""
        self._core.guard()
        for settlement in settlements:
            if settlement.delay > 0:
                require(self._core.features, "delay", self._core.transport)
            name = settlement.delivery.consumer
            consumer = self._consumers.get(name)
            if consumer is None:
                self._count_strays(name, 1)
            else:
                consumer.ledger.settle(settlement)

    def _count_strays(self, consumer: str, count: int) -> None:
        with self._lock:
            if consumer in self._strays or len(self._strays) < MAX_STRAYS:
                self._strays[consumer] += count

    def flush(self, consumer: str, *, timeout: float = 10.0) -> None:
        """See `Session.flush`."""
        found = self._consumers.get(consumer)
        ledger = self._leaving.get(consumer) if found is None else found.ledger
        if ledger is not None:
            deadline = self._deadline(timeout)
            self._call(lambda store: ledger.flush(store, deadline), timeout)
            return
        self._core.guard()
        with self._lock:
            strays = self._strays.pop(consumer, 0)
        if strays:
            raise StaleDelivery(
                f"{counted(strays, 'settlement')} of consumer {consumer!r} came after it was "
                "cancelled"
            )

    def stop(self, consumer: str) -> None:
        """See `Session.stop`."""
        found = self._consumers.get(consumer)
        if found is not None and self._core.ours:
            found.stop()

    def wake(self, consumer: str) -> None:
        """See `Session.wake`."""
        found = self._consumers.get(consumer)
        if found is not None and self._core.ours:
            found.wake()

    def durability(self, queue: str = "") -> Durability:
        """See `Detector.durability`: the store's answer, the same for each queue."""
        timeout = self._core.options.timeout
        if queue:
            self.inspect(queue, timeout=timeout)
        return self._call(
            lambda store: store.durability() if isinstance(store, Detector) else Durability(),
            timeout,
        )

    def key_value(self, *, timeout: float = 10.0) -> KeyValue:
        """See `Session.key_value`."""
        self._core.guard()
        require(self._core.features, "key_value", self._core.transport)
        return PooledKeyValue(self._pool, timeout, self._core.guard)

    # --- the end ----------------------------------------------------------------------------------

    def close(self, *, timeout: float = 10.0) -> None:
        """See `Session.close`."""
        core = self._core
        if not core.ours or not core.shut():
            return
        until = time.monotonic() + timeout

        def left() -> float:
            return max(0.0, until - time.monotonic())

        self._keeper.stop(left())
        if not core.lost:
            self._say_goodbye(left)
        for consumer in self._all_consumers():
            consumer.close_handle(left())
        self._pool.close()

    def _say_goodbye(self, left: Callable[[], float]) -> None:
        """Send settlements, give everything back, delete what is only ours.

        Each step is tried, whatever became of those before it: what one of them leaves behind is
        left to the leases, the rest is not.
        """
        for step in self._last_steps(left):
            if left() <= 0:
                logger.debug("closing session %s: its lease does the rest", self._core.main)
                return
            try:
                with self._pool.borrow(left()) as store:
                    step(store)
            except ConnectionLost as error:
                logger.debug("closing session %s: %s", self._core.main, error)
            except QueueCoreError as error:
                logger.warning("closing session %s: %s", self._core.main, error)

    def _last_steps(self, left: Callable[[], float]) -> Iterator[Callable[[Store], object]]:
        core, declarer = self._core, self._declarer
        consumers = self._all_consumers()
        for _ in range(len(core.chores)):  # once: what takes many steps is left to others
            if (chore := core.next_chore()) is not None:
                yield chore
        for ledger in [*(consumer.ledger for consumer in consumers), *self._leaving.values()]:
            yield partial(_settle_all, ledger=ledger, deadline=self._deadline(left() / 2))
        # gives back uncounted whatever is unsettled
        yield partial(_end_session, name=core.main)
        yield partial(_end_session, name=Names.collect(core.uid))
        for consumer in consumers:
            for window in consumer.ledger.subscriptions():
                deadline = self._deadline(left())
                yield partial(
                    declarer.leave, queue=window.queue, leases=window.leases, deadline=deadline
                )
        for name, uid in list(core.exclusive):
            yield partial(declarer.remove, name=name, uid=uid, deadline=self._deadline(left()))
        for (_, queue), number in list(self._entering.items()):
            yield partial(_end_session, name=Names.consumer(queue, core.uid, number))

    # --- callbacks --------------------------------------------------------------------------------

    def _all_consumers(self) -> list[Consumer]:
        with self._lock:
            return list(self._consumers.values())

    def _ledgers(self) -> Sequence[Ledger]:
        return [consumer.ledger for consumer in self._all_consumers()] if self._consumers else ()

    def _wake_all(self) -> None:
        for consumer in self._all_consumers():
            consumer.ledger.stir()

    def _queue_deleted(self, queue: str, uid: str) -> None:
        """End our own subscriptions to a queue that this session deleted."""
        for consumer in self._all_consumers():
            window = consumer.remove(queue, deleted=uid)
            if window is not None:
                self._core.later(partial(_end_session, name=window.leases[0]))


def _end_session(store: Store, name: str) -> None:
    store.end_session(name)


def _settle_all(store: Store, ledger: Ledger, deadline: Deadline) -> None:
    """Send what is pending, and let what is under way with other threads arrive."""
    try:
        ledger.flush(store, deadline)
    except StaleDelivery as error:
        logger.debug("closing a session: %s", error)


def _stale(delivery: Delivery) -> StaleDelivery:
    return StaleDelivery(
        f"the message from queue {delivery.queue!r} with routing key {delivery.routing_key!r}"
        " is not held any more: it was settled, or was given to somebody else"
    )
