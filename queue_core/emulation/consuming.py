"""One consumer of a session: claiming, handing out, settling.

One thread at a time is in `Consumer.receive`; it has the consumer's own store handle. Settlements
come from any thread and are noted in the windows. Who sends them: the claim of the next `receive`
takes acks along; the keeper comes for what nobody took within `ACK_DELAY`, and at once for requeues
and rejects; `flush` sends on the calling thread.

The rules:

- No lock is held while the store is called.
- A settlement is in one thread's hands at a time (a `Flight`). Its reply lost, it goes back and is
  sent again.
- A claim whose reply was lost is repeated with the same request id before anything else is claimed,
  so that nothing
  stays with a session that does not know of it. If the consumer is gone by then, the keeper does
  it.
- Nothing new is handed out while the fence does not hold.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from queue_core.emulation.core import Core
from queue_core.emulation.handles import close_quietly
from queue_core.emulation.publishing import Dead
from queue_core.emulation.stored import READER, Head, head
from queue_core.emulation.window import Flight, Window
from queue_core.errors import (
    ConnectTimeout,
    DecodeError,
    QueueNotFound,
    SessionLost,
    StaleDelivery,
    TransportError,
)
from queue_core.message import Delivery, Settlement, Token
from queue_core.policy import Deadline
from queue_core.transport import Claim, Claimed, Store

__all__ = ["Consumer"]

ACK_DELAY: Final = 0.02
"""Seconds after which the keeper sends acks that nobody took along."""

URGENT_ACK_DELAY: Final = 0.002
"""The same when they fill half a window: the consumer's own thread gets the chance to be first."""

MAX_WAIT: Final = 0.5
"""The longest claim: `Consumer.wake` and the end of a session cannot end one early."""

FULL_WINDOW_WAIT: Final = 0.05
"""The longest claim while another window is full, since room in it cannot end the claim early."""


class _Unresolved(msgspec.Struct):
    """A claim whose reply was lost."""

    request: str
    wants: dict[str, int]
    settle: list[Token]


class Consumer:
    """A consumer as the session sees it. See the module for who may call what."""

    def __init__(self, core: Core, name: str) -> None:
        """Begin without subscriptions; the handle is opened at the first receive."""
        self.name = name
        self._core = core
        self._lock = threading.Lock()
        self._landed = threading.Condition(self._lock)
        self._receiving = threading.Lock()
        self._windows: dict[str, Window] = {}
        self._ended: list[str] = []
        self._stash: deque[Delivery] = deque()
        self._store: Store | None = None
        self._unresolved: _Unresolved | None = None
        self._event = threading.Event()
        self._waiting = False
        self._woken = False
        self._due: float | None = None
        self._urgent = False
        self._stale = 0
        self._retired = False
        self._flights: set[int] = set()
        self._flight_numbers = itertools.count(1)

    # --- subscriptions ----------------------------------------------------------------------------

    def add(self, window: Window) -> None:
        """Begin to take from one more queue."""
        with self._lock:
            self._windows[window.queue] = window
            self._event.set()

    def windows(self) -> list[Window]:
        """Return the subscriptions."""
        with self._lock:
            return list(self._windows.values())

    def resize(self, queue: str, prefetch: int) -> bool:
        """Change a subscription's prefetch; False if there is none."""
        with self._lock:
            window = self._windows.get(queue)
            if window is not None:
                window.prefetch = prefetch
                self._event.set()
            return window is not None

    def remove(self, queue: str, *, deleted: bool = False) -> Window | None:
        """End a subscription and return its window; `finish` must follow.

        ``deleted`` has the next receive raise QueueNotFound.
        """
        with self._lock:
            window = self._windows.pop(queue, None)
            if window is None:
                return None
            self._stash = deque(item for item in self._stash if item.queue != queue)
            if deleted:
                self._ended.append(queue)
            self._event.set()
            return window

    def finish(self, store: Store, window: Window) -> None:
        """Send the settlements of a removed window and give back what it holds.

        What fails is left to the keeper.
        """
        try:
            with self._lock:
                flights = self._take([window])
            self.send(store, flights)
            with self._lock:
                tokens = list(window.held)
            _give_back(store, tokens)
        except TransportError:
            self._core.later(partial(self.finish, window=window))
            raise
        with self._lock:
            window.held.difference_update(tokens)

    # --- receiving --------------------------------------------------------------------------------

    def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """See `Session.receive`."""
        self._core.guard()  # before the lock: in a forked child nobody would release it
        try:
            with self._receiving:
                return self._receive(limit, wait)
        finally:
            self._waiting = False
            if self._due is not None:
                self._core.call_keeper(self._due)
            if self._retired or self._core.closed:
                self.close_handle(0.0)
                if not self._windows:  # cancelled meanwhile, by somebody who did not wait for us
                    self._drop_store()

    def _receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        core = self._core
        left = wait
        while True:
            self._event.clear()
            self._waiting = True
            core.guard()
            if self._ended:
                raise QueueNotFound(
                    f"queue {self._ended.pop(0)!r} was deleted; the subscription to it has ended"
                )
            if core.fence.holds(core.clock.monotonic()):
                if self._stash:
                    return self._hand_out(limit)
                if self._unresolved is not None:
                    if found := self._repeat(limit):
                        return found
                    continue
                store = self._handle()
                self._send_verdicts(store)
                wants, flights, full = self._begin(limit)
                if wants:
                    longest = 0.0 if flights else FULL_WINDOW_WAIT if full else MAX_WAIT
                    pause = min(max(left, 0.0), longest)
                    if found := self._claim(store, wants, flights, pause, limit):
                        return found
                    left -= pause
                    if flights or self._stash or (left > 0 and not self._woken):
                        continue
                elif self._due is not None:
                    core.call_keeper(self._due)  # acks that have nothing to travel with
            if left <= 0 or self._woken:
                self._woken = False
                return ()
            started = time.monotonic()
            self._event.wait(left)
            left -= time.monotonic() - started

    def _begin(self, limit: int) -> tuple[dict[str, int], list[Flight], bool]:
        """Return what to claim, the acks that go along, and whether a window is full."""
        with self._lock:
            flights = []
            wants = {}
            full = False
            for window in self._windows.values():
                room = window.room()
                if not room:
                    full = True
                    continue
                wants[window.queue] = min(room, limit)
                if (flight := window.take_acks(riding=True)) is not None:
                    flights.append(flight)
            if flights:
                self._note_taken()
            if wants:
                self._waiting = False
            return wants, flights, full

    def _claim(
        self, store: Store, wants: dict[str, int], flights: list[Flight], wait: float, limit: int
    ) -> Sequence[Delivery]:
        settle = [token for flight in flights for token in flight.acks]
        request = self._core.new_request()
        number = self._depart() if flights else 0
        try:
            answer = self._ask(store, _Unresolved(request, wants, settle), wait, repeat=False)
        except BaseException:
            self._land(number, flights, settle)
            raise
        if flights:
            self._settled(flights, answer.stale_tokens)
            self._land(number, (), ())
        return self._accept(answer.claims, limit)

    def _repeat(self, limit: int) -> Sequence[Delivery]:
        """Ask again for the claim whose reply was lost.

        Its acks went back to their windows, too, and are sent once more with the next claim.
        """
        lost = self._unresolved
        assert lost is not None
        return self._accept(self._ask(self._handle(), lost, 0.0, repeat=True).claims, limit)

    def _handle(self) -> Store:
        if self._store is None:
            self._store = self._core.pool.open()
        return self._store

    def _ask(self, store: Store, claim: _Unresolved, wait: float, *, repeat: bool) -> Claimed:
        core = self._core
        self._unresolved = claim
        try:
            answer = store.claim(
                core.main, claim.request, claim.wants, wait, settle=claim.settle, repeat=repeat
            )
        except SessionLost:
            self._unresolved = None
            if core.closed:
                core.guard()
            core.lose()
            raise
        except BaseException:
            self._drop_store()
            if not self._windows:
                self.abandon()
            raise
        self._unresolved = None
        return answer

    def _accept(self, claims: Sequence[Claim], limit: int) -> Sequence[Delivery]:
        """Make deliveries of claims; return those that may be handed out now."""
        if not claims:
            return ()
        self._core.guard()
        strays: list[Token] = []
        deliveries: list[Delivery] = []
        name = self.name
        with self._lock:
            windows = self._windows
            window: Window | None = None
            for claim in claims:
                queue = claim.queue
                if window is None or window.queue != queue:
                    window = windows.get(queue)
                    if window is None:
                        strays.append(claim.token)
                        continue
                window.held.add(claim.token)
                place = _head(claim.properties)
                deliveries.append(
                    Delivery(
                        name,
                        queue,
                        place.exchange,
                        place.routing_key,
                        claim.body,
                        claim.properties,
                        READER,
                        claim.token,
                        claim.attempts,
                        claim.attempts > 1,
                    )
                )
        if strays:
            self._core.later(lambda store: _give_back(store, strays))
        if len(deliveries) > limit or not self._core.fence.holds(self._core.clock.monotonic()):
            with self._lock:
                self._stash.extend(deliveries)
            return ()
        return deliveries

    def _hand_out(self, limit: int) -> Sequence[Delivery]:
        with self._lock:
            count = min(limit, len(self._stash))
            return [self._stash.popleft() for _ in range(count)]

    def _drop_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            close_quietly(store)

    def wake(self) -> None:
        """End a receive early if it waits for room; otherwise the next one that finds nothing."""
        self._woken = True
        self._event.set()

    def retire(self) -> int:
        """End a consumer without subscriptions; return how many settlements came too late.

        Its handle is closed now, or by the receive that still uses it.
        """
        self.abandon()
        self._retired = True
        self.wake()
        self.close_handle(0.0)
        with self._lock:
            stale, self._stale = self._stale, 0
            return stale

    def poke(self) -> None:
        """Have a waiting receive look again."""
        self._event.set()

    def abandon(self) -> None:
        """Leave a claim whose reply was lost to the keeper, who gives back what it took."""
        lost, self._unresolved = self._unresolved, None
        if lost is None:
            return
        main = self._core.main

        def resolve(store: Store) -> None:
            answer = store.claim(
                main, lost.request, lost.wants, 0.0, settle=lost.settle, repeat=True
            )
            _give_back(store, [claim.token for claim in answer.claims])

        self._core.later(resolve)

    def close_handle(self, timeout: float) -> None:
        """Close the store handle once no receive uses it; waits at most ``timeout`` seconds."""
        if self._receiving.acquire(timeout=max(0.0, min(timeout, 1e6))):
            try:
                self._drop_store()
            finally:
                self._receiving.release()

    # --- settling ---------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        """Note a settlement and see to it that somebody sends it."""
        call: float | None = None
        with self._lock:
            window = self._windows.get(settlement.delivery.queue)
            if window is None or not window.settle(settlement):
                self._stale += 1
                return
            if settlement.action != "ack":
                call = self._due = self._core.clock.monotonic()
            elif self._due is None:
                call = self._due = self._core.clock.monotonic() + ACK_DELAY
            elif not self._urgent and window.urgent:
                self._urgent = True
                call = self._due = min(self._due, self._core.clock.monotonic() + URGENT_ACK_DELAY)
        if self._waiting:
            self._event.set()
        elif call is not None:
            self._core.call_keeper(call)

    def hold_back(self, delivery: Delivery) -> Window | None:
        """Take a delivery out of the window to settle it in a step of its own; None if stale."""
        with self._lock:
            window = self._windows.get(delivery.queue)
            if window is None or delivery.token not in window.held:
                return None
            window.held.remove(delivery.token)
            window.flying += 1
            return window

    def let_go(self, window: Window, token: Token, *, settled: bool) -> None:
        """End what `hold_back` began: the delivery is settled, or held as before."""
        with self._lock:
            window.flying -= 1
            if not settled:
                window.held.add(token)
            self._event.set()
            removed = self._windows.get(window.queue) is not window
        if removed and not settled:
            self._core.later(partial(self.finish, window=window))

    def due(self, now: float) -> bool:
        """Whether the keeper should send now."""
        return self._due is not None and self._due <= now

    def next_due(self) -> float | None:
        """When the keeper should send."""
        return self._due

    def take(self) -> list[Flight]:
        """Take everything that is pending."""
        with self._lock:
            return self._take(self._windows.values())

    def _take(self, windows: Iterable[Window]) -> list[Flight]:
        flights = []
        for window in windows:
            if (flight := window.take_acks(riding=False)) is not None:
                flights.append(flight)
            if (flight := window.take_verdicts()) is not None:
                flights.append(flight)
        self._note_taken()
        return flights

    def _note_taken(self) -> None:
        self._urgent = False
        if not any(window.acks or window.verdicts for window in self._windows.values()):
            self._due = None

    def _send_verdicts(self, store: Store) -> None:
        with self._lock:
            flights = [
                flight for window in self._windows.values() if (flight := window.take_verdicts())
            ]
            if not flights:
                return
            self._note_taken()
        try:
            self.send(store, flights)
        except BaseException:
            self._drop_store()
            raise

    def send(self, store: Store, flights: Sequence[Flight]) -> None:
        """Send settlements; what is not certain afterwards goes back to its window."""
        if not flights:
            return
        number = self._depart()
        sent: list[Token] = []
        try:
            acks = [token for flight in flights for token in flight.acks]
            if acks:
                sent += acks
                self._settled(flights, store.put([], {}, settle=acks).stale_tokens)
            requeues: dict[tuple[float, bool], list[tuple[Flight, Settlement]]] = {}
            rejects: list[tuple[Flight, Settlement, str]] = []
            for flight in flights:
                for verdict in flight.verdicts:
                    if verdict.action == "reject":
                        rejects.append((flight, verdict, verdict.reason))
                    elif self._exhausted(store, verdict):
                        rejects.append((flight, verdict, "delivery_limit"))
                    else:
                        key = verdict.delay, verdict.counted
                        requeues.setdefault(key, []).append((flight, verdict))
            for (delay, counted), group in requeues.items():
                tokens = [verdict.delivery.token for _, verdict in group]
                sent += tokens
                stale = set(store.release(tokens, delay=delay, counted=counted))
                for flight, verdict in group:
                    self._judged(flight, verdict, stale=verdict.delivery.token in stale)
            deadline = Deadline.after(self._core.options.timeout, self._core.clock)
            for flight, verdict, reason in rejects:
                delivery = verdict.delivery
                sent.append(delivery.token)
                dead = Dead(delivery.queue, delivery.token, delivery.body, delivery.raw, reason)
                buried = self._core.publisher.bury(store, dead, deadline)
                self._judged(flight, verdict, stale=not buried)
        finally:
            self._land(number, flights, sent)

    def _exhausted(self, store: Store, verdict: Settlement) -> bool:
        """Whether a requeued message has had all its deliveries."""
        entry = self._core.table.queue(store, verdict.delivery.queue).queue
        return (
            verdict.counted
            and entry is not None
            and bool(entry.max_deliveries)
            and verdict.delivery.attempts >= (entry.max_deliveries or 0)
        )

    def _settled(self, flights: Iterable[Flight], stale: Sequence[Token]) -> None:
        with self._lock:
            for flight in flights:
                if flight.acks:
                    self._stale += flight.window.acked(flight, stale)

    def _judged(self, flight: Flight, verdict: Settlement, *, stale: bool) -> None:
        with self._lock:
            self._stale += flight.window.judged(flight, verdict, stale=stale)

    def _depart(self) -> int:
        with self._lock:
            number = next(self._flight_numbers)
            self._flights.add(number)
            return number

    def _land(self, number: int, flights: Iterable[Flight], sent: Sequence[Token]) -> None:
        """End a flight: what it did not make certain is pending again."""
        homeless: list[Window] = []
        with self._lock:
            for flight in flights:
                if flight.acks or flight.verdicts:
                    own = {verdict.delivery.token for verdict in flight.verdicts}
                    own.update(flight.acks)
                    flight.window.failed(flight, own.intersection(sent))
                    self._due = self._core.clock.monotonic() + ACK_DELAY
                    if self._windows.get(flight.window.queue) is not flight.window:
                        homeless.append(flight.window)
            self._flights.discard(number)
            self._landed.notify_all()
            self._event.set()
        for window in homeless:
            self._core.later(partial(self.finish, window=window))

    def flush(self, store: Store, deadline: Deadline) -> None:
        """Send everything that is pending and wait for what others send. See `Session.flush`."""
        while True:
            with self._lock:
                earlier = set(self._flights)
                flights = self._take(self._windows.values())
            self.send(store, flights)
            with self._lock:
                if not self._landed.wait_for(
                    partial(self._flights.isdisjoint, earlier), min(deadline.remaining(), 1e6)
                ):
                    raise ConnectTimeout(
                        f"the settlements of consumer {self.name!r} are not certain yet"
                    )
                if not earlier or not any(w.unsure for w in self._windows.values()):
                    stale, self._stale = self._stale, 0
                    break
        if stale:
            raise StaleDelivery(
                f"{stale} settlement{'s' * (stale > 1)} of consumer {self.name!r} came too late:"
                " the messages were given to somebody else"
            )


_NOWHERE: Final = Head("", "")


def _head(raw: bytes) -> Head:
    try:
        return head(raw)
    except DecodeError:
        return _NOWHERE  # whoever reads the properties hears of the damage


def _give_back(store: Store, tokens: Sequence[Token]) -> None:
    if tokens:
        store.release(tokens, counted=False)
