"""What one consumer holds and settles: its windows, and the settlements on their way to the store.

Settlements come from any thread and are noted here. Who sends them: the claim of the next receive
takes acks along (`Ledger.ride`), and so does the next publish of the session (`PiggybackedAcks`),
which is one commit less for whoever acks and answers; the keeper comes for what nobody took within
`ACK_DELAY`, and at once for requeues and rejects; `Ledger.flush` sends on the calling thread.

The rules:

- No lock is held while the store is called.
- A settlement is in one thread's hands at a time (a `Flight`), and known to be so from the moment
  when it was taken. Its reply lost, it goes back and is sent again. If its subscription has ended
  meanwhile, the keeper sends it.
- What failed to arrive with a claim or a publish does not travel with a publish again: one that
  fails for ever (a full server) must not keep from the store what would make room there.
- A claim that waits at the store is interrupted for what it does not know of: another queue, room
  in a window that was full, somebody who waits for the acks that it took along, the end.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from queue_core.emulation.apart import Apart
from queue_core.emulation.core import Core
from queue_core.emulation.publishing import Dead
from queue_core.emulation.window import Flight, Window
from queue_core.errors import ConnectTimeout, StaleDelivery, StoreCorrupt
from queue_core.message import Delivery, Settlement, Token
from queue_core.policy import Deadline
from queue_core.transport import Store

__all__ = ["Finish", "Ledger", "give_back"]

logger = logging.getLogger(__name__)

ACK_DELAY: Final = 0.02
"""Seconds after which the keeper sends acks that nobody took along."""

URGENT_ACK_DELAY: Final = 0.002
"""The same when they fill half a window: the consumer's own thread gets the chance to be first."""

RETRY_DELAY: Final = 0.5
"""Seconds after which the keeper sends again what failed."""

_Requeues = dict[tuple[str, float, bool], list[tuple[Flight, Settlement]]]
_Rejects = list[tuple[Flight, Settlement, str]]


class Ledger:
    """What one consumer holds and settles. Thread-safe.

    Attributes:
        lock: held for every look at the windows; never while the store is called.
        windows: the subscriptions by queue.
        leaving: removed subscriptions whose settlements are not certain yet.
        bell: set when a waiting receive should look again.
        waiting: a receive is about to wait for the bell, and takes pending acks along itself.
        claiming: a claim is with the store; the next one takes along what is pending.
        cramped: a claim went out while a window was full, and should come back for its room.
        due: when the keeper should send; None while nothing is pending.
    """

    def __init__(self, core: Core, consumer: str, interrupt: Callable[[], None]) -> None:
        """Begin without subscriptions; ``interrupt`` ends a claim that waits at the store."""
        self.lock = threading.Lock()
        self.windows: dict[str, Window] = {}
        self.leaving: list[Window] = []
        self.bell = threading.Event()
        self.waiting = False
        self.claiming = False
        self.cramped = False
        self.due: float | None = None
        self._interrupt = interrupt
        self._core = core
        self._consumer = consumer
        self._landed = threading.Condition(self.lock)
        self._urgent = False
        self._late = 0
        self._setbacks = 0
        self._flights: set[int] = set()
        self._flight_numbers = itertools.count(1)

    def stir(self) -> None:
        """Have a receive look again, whether it waits for the bell or at the store."""
        self.cramped = False
        self.bell.set()
        self._interrupt()

    # --- subscriptions ----------------------------------------------------------------------------

    def add(self, window: Window) -> None:
        """Begin to take from one more queue."""
        with self.lock:
            self.windows[window.queue] = window
        self.stir()

    def subscriptions(self) -> list[Window]:
        """Return the windows."""
        with self.lock:
            return list(self.windows.values())

    @property
    def uncertain(self) -> bool:
        """Whether settlements of removed subscriptions, or others under way, are not certain."""
        return bool(self.leaving or self._flights)

    def resize(self, queue: str, prefetch: int) -> bool:
        """Change a subscription's prefetch; False if there is none."""
        with self.lock:
            window = self.windows.get(queue)
            if window is not None:
                window.prefetch = prefetch
        self.stir()
        return window is not None

    def finish(self, store: Store, window: Window) -> None:
        """Send the settlements of a removed window and give back what it holds.

        If it fails, `Finish` is a chore for the keeper. A settlement that cannot be done keeps
        nothing else from going back.
        """
        with self.lock:
            flights = self._take([window])
        with Apart() as settling:
            self.send(store, flights)
        with self.lock:
            tokens = list(window.held)
        give_back(store, tokens)
        with self.lock:
            window.held.difference_update(tokens)
        settling.tell()
        with self.lock:
            if window in self.leaving:
                self.leaving.remove(window)

    # --- settling ---------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        """Note a settlement and see to it that somebody sends it."""
        call: float | None = None
        with self.lock:
            window = self.windows.get(settlement.delivery.queue)
            if window is None or not window.settle(settlement):
                self._late += 1
                return
            if settlement.action != "ack":
                call = self.due = self._core.clock.monotonic()
            elif self.due is None:
                call = self.due = self._core.clock.monotonic() + ACK_DELAY
            elif not (self._urgent or self.claiming) and window.urgent:
                self._urgent = True
                call = self.due = min(self.due, self._core.clock.monotonic() + URGENT_ACK_DELAY)
        if self.waiting:
            self.bell.set()
            return
        if self.cramped:
            self.stir()
        if call is not None:
            self._core.call_keeper(call)

    def hold_back(self, delivery: Delivery) -> Window | None:
        """Take a delivery out of the window to settle it in a step of its own; None if stale."""
        with self.lock:
            window = self.windows.get(delivery.queue)
            if window is None or delivery.token not in window.held:
                return None
            window.held.remove(delivery.token)
            window.flying += 1
            return window

    def let_go(self, window: Window, token: Token, *, settled: bool) -> None:
        """End what `hold_back` began: the delivery is settled, or held as before."""
        with self.lock:
            window.flying -= 1
            if not settled:
                window.held.add(token)
            removed = self.windows.get(window.queue) is not window
        self._note_room()
        if removed and not settled:
            self._core.later(Finish(self, window))

    def take(self) -> list[Flight]:
        """Take everything that is pending."""
        with self.lock:
            return self._take(self.windows.values())

    def _take(self, windows: Iterable[Window]) -> list[Flight]:
        flights = []
        for window in windows:
            if (flight := window.take_acks(riding=False)) is not None:
                flights.append(flight)
            if (flight := window.take_verdicts()) is not None:
                flights.append(flight)
        self._note_taken(flights)
        return flights

    def _note_taken(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            flight.number = next(self._flight_numbers)
            self._flights.add(flight.number)
        self._urgent = False
        if not any(window.acks or window.verdicts for window in self.windows.values()):
            self.due = None

    def take_verdicts(self) -> list[Flight]:
        """Take the requeues and rejects that were not tried before."""
        with self.lock:
            windows = [window for window in self.windows.values() if not window.unsure]
            flights = [flight for window in windows if (flight := window.take_verdicts())]
            if flights:
                self._note_taken(flights)
            return flights

    def take_acks(self) -> list[Flight]:
        """Take the acks that were not tried before."""
        if self.due is None:
            return []
        with self.lock:
            windows = [window for window in self.windows.values() if not window.unsure]
            flights = [flight for window in windows if (flight := window.take_acks(riding=False))]
            if flights:
                self._note_taken(flights)
            return flights

    def ride(self, limit: int) -> tuple[dict[str, int], list[Flight]]:
        """Return what to claim, and the acks that go along."""
        with self.lock:
            flights = []
            wants = {}
            full = False
            for window in self.windows.values():
                room = window.room()
                if not room:
                    full = True
                    continue
                wants[window.queue] = min(room, limit)
                if (flight := window.take_acks(riding=True)) is not None:
                    flights.append(flight)
            if flights:
                self._note_taken(flights)
            if wants:
                self.waiting = False
                self.cramped = full
            return wants, flights

    def late(self) -> int:
        """Return, once, how many settlements came too late."""
        with self.lock:
            late, self._late = self._late, 0
            return late

    def send(
        self,
        store: Store,
        flights: Sequence[Flight],
        breathe: Callable[[Store], None] = lambda store: None,
    ) -> None:
        """Send settlements; what is not certain afterwards goes back to its window.

        Each reject is a step of its own, and ``breathe`` is called between them. Raises the first
        error that concerns one message only when all others are settled.
        """
        if not flights:
            return
        sent: list[Token] = []
        try:
            each = Apart()
            if acks := [token for flight in flights for token in flight.acks]:
                sent += acks
                self.settled(flights, store.put([], {}, settle=acks).stale_tokens)
            requeues, rejects = self._sorted(store, flights)
            for (_, delay, counted), group in requeues.items():
                tokens = [verdict.delivery.token for _, verdict in group]
                sent += tokens
                with each:
                    stale = set(store.release(tokens, delay=delay, counted=counted))
                    for flight, verdict in group:
                        self._judged(flight, verdict, stale=verdict.delivery.token in stale)
            deadline = Deadline.after(self._core.options.timeout, self._core.clock)
            for flight, verdict, reason in rejects:
                sent.append(verdict.delivery.token)
                with each:
                    self._bury(store, flight, verdict, reason, deadline)
                breathe(store)
            each.tell()
        finally:
            self.land(flights, sent)

    def _bury(
        self, store: Store, flight: Flight, verdict: Settlement, reason: str, deadline: Deadline
    ) -> None:
        delivery = verdict.delivery
        dead = Dead(delivery.queue, delivery.token, delivery.body, delivery.raw, reason)
        with Apart() as burying:
            buried = self._core.publisher.bury(store, dead, deadline)
            self._judged(flight, verdict, stale=not buried)
        if burying.error is not None and delivery.token not in flight.window.unsure:
            logger.error(
                "a message of queue %r that was rejected (%s) is not settled, and tried again: %s",
                delivery.queue,
                reason,
                burying.error,
            )
        burying.tell()

    def _sorted(self, store: Store, flights: Sequence[Flight]) -> tuple[_Requeues, _Rejects]:
        """Return what goes back, by queue, delay and count; and what leaves its queue, and why."""
        requeues: _Requeues = {}
        rejects: _Rejects = []
        for flight in flights:
            for verdict in flight.verdicts:
                if verdict.action == "reject":
                    rejects.append((flight, verdict, verdict.reason))
                elif self._exhausted(store, verdict):
                    rejects.append((flight, verdict, "delivery_limit"))
                else:
                    key = verdict.delivery.queue, verdict.delay, verdict.counted
                    requeues.setdefault(key, []).append((flight, verdict))
        return requeues, rejects

    def _exhausted(self, store: Store, verdict: Settlement) -> bool:
        """Whether a requeued message has had all its deliveries, as far as is known."""
        try:
            entry = self._core.table.queue(store, verdict.delivery.queue).queue
        except StoreCorrupt:
            return False
        return (
            verdict.counted
            and entry is not None
            and bool(entry.max_deliveries)
            and verdict.delivery.attempts >= (entry.max_deliveries or 0)
        )

    def settled(self, flights: Iterable[Flight], stale: Sequence[Token]) -> None:
        """Note that the acks of these flights are certain, ``stale`` among them."""
        with self.lock:
            for flight in flights:
                if flight.acks:
                    self._late += flight.window.acked(flight, stale)

    def _judged(self, flight: Flight, verdict: Settlement, *, stale: bool) -> None:
        with self.lock:
            self._late += flight.window.judged(flight, verdict, stale=stale)

    def land(self, flights: Iterable[Flight], sent: Sequence[Token]) -> None:
        """End flights: what they did not make certain is pending again."""
        homeless: list[Window] = []
        with self.lock:
            for flight in flights:
                self._flights.discard(flight.number)
                if flight.acks or flight.verdicts:
                    self._setbacks += 1
                    own = {verdict.delivery.token for verdict in flight.verdicts}
                    own.update(flight.acks)
                    flight.window.failed(flight, own.intersection(sent))
                    self.due = self._core.clock.monotonic() + RETRY_DELAY
                    if self.windows.get(flight.window.queue) is not flight.window:
                        homeless.append(flight.window)
                        if flight.window not in self.leaving:
                            self.leaving.append(flight.window)
            self._landed.notify_all()
        self._note_room()
        for window in homeless:
            self._core.later(Finish(self, window))

    def _note_room(self) -> None:
        """Have a receive look again that waits for room."""
        self.bell.set()
        if self.cramped:
            self.stir()

    def flush(self, store: Store, deadline: Deadline) -> None:
        """Send everything that is pending and wait for what others send. See `Session.flush`."""
        while True:
            with self.lock:
                earlier, setbacks = set(self._flights), self._setbacks
                flights = self._take([*self.windows.values(), *self.leaving])
            self.send(store, flights)
            if earlier:
                self._interrupt()
            with self.lock:
                if not self._landed.wait_for(
                    partial(self._flights.isdisjoint, earlier), min(deadline.remaining(), 1e6)
                ):
                    raise ConnectTimeout(
                        f"the settlements of consumer {self._consumer!r} are not certain yet"
                    )
                if setbacks == self._setbacks:  # else what others sent is pending again
                    late, self._late = self._late, 0
                    break
        if late:
            raise StaleDelivery(
                f"{late} settlement{'s' * (late > 1)} of consumer {self._consumer!r} came too late:"
                " the messages were given to somebody else"
            )


class PiggybackedAcks:
    """Acks of all consumers of a session, on their way with a publish.

    The first put that does anything settles them. A context manager, in one thread's hands: what
    was not settled at its end is pending again.

    Attributes:
        tokens: what the next put of the publish settles.
    """

    __slots__ = ("_taken", "tokens")

    def __init__(self, ledgers: Iterable[Ledger]) -> None:
        """Take what is pending."""
        self._taken: list[tuple[Ledger, list[Flight]]] = []
        self.tokens: list[Token] = []
        for ledger in ledgers:
            if flights := ledger.take_acks():
                self._taken.append((ledger, flights))
                for flight in flights:
                    self.tokens += flight.acks

    def arrived(self, stale: Sequence[Token]) -> None:
        """Note that a put has settled them, ``stale`` among them."""
        for ledger, flights in self._taken:
            ledger.settled(flights, stale)
            ledger.land(flights, ())
        self._taken, self.tokens = [], []

    def __enter__(self) -> PiggybackedAcks:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """See the class."""
        for ledger, flights in self._taken:
            ledger.land(flights, self.tokens)


@dataclass(frozen=True, slots=True)
class Finish:
    """The chore of putting a removed window away."""

    ledger: Ledger
    window: Window

    def __call__(self, store: Store) -> None:
        """See `Ledger.finish`."""
        self.ledger.finish(store, self.window)


def give_back(store: Store, tokens: Sequence[Token]) -> None:
    """Return claims uncounted."""
    if tokens:
        store.release(tokens, counted=False)
