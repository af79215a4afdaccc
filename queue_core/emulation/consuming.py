"""One consumer of a session: claiming and handing out.

One thread at a time is in `Consumer.receive`; it has the consumer's own store handle. What it holds
and what becomes of it is in the consumer's `Ledger`.

The rules:

- A claim whose reply was lost is asked for with the same request id before anything else is
  claimed, so that nothing stays with a session that does not know of it. If the consumer is gone by
  then, the keeper does it and gives back what it took. It does so, too, with what a claim takes
  that was given up, asked for in vain, and arrives all the same (`Core.late`).
- Nothing new is handed out while the fence does not hold. What was claimed by then is kept until
  it holds again.
- What was claimed beyond the caller's limit is kept for the next receive.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from queue_core.emulation.apart import Apart
from queue_core.emulation.core import Core
from queue_core.emulation.handles import close_quietly, punctual
from queue_core.emulation.ledger import Ledger, give_back
from queue_core.emulation.stored import READER, Head, head
from queue_core.emulation.window import Flight, Window
from queue_core.errors import (
    DecodeError,
    QueueNotFound,
    SessionLost,
)
from queue_core.message import Delivery, Settlement, Token
from queue_core.transport import Claim, Claimed, Store

__all__ = ["Consumer", "return_late"]

logger = logging.getLogger(__name__)

MAX_WAIT: Final = 2.0
"""The longest claim, and so the longest that a message waits whose hint the store lost."""


class Consumer:
    """A consumer as the session sees it.

    Attributes:
        name: unique in the session.
        ledger: its subscriptions, and the settlements.
    """

    def __init__(self, core: Core, name: str) -> None:
        """Begin without subscriptions; the handle is opened at the first receive."""
        self.name = name
        self._core = core
        self.ledger = Ledger(core, name, self._interrupt)
        self._receiving = threading.Lock()
        self._ended: list[str] = []
        self._stash: deque[Delivery] = deque()
        self._store: Store | None = None
        self._expect_by: Callable[[float], None] = lambda until: None
        self._unresolved = ""  # the request of a claim whose reply was lost
        self._broken: set[str] = set()  # queues; said already
        self._until = math.inf
        self._woken = False
        self._stopped = False
        self._retired = False

    def remove(self, queue: str, *, deleted: str | None = None) -> Window | None:
        """End a subscription and return its window; `Ledger.finish` must follow.

        ``deleted`` is the uid of a queue that is gone: a subscription to another one of that name
        stays. The next receive raises QueueNotFound.
        """
        ledger = self.ledger
        with ledger.lock:
            window = ledger.windows.get(queue)
            if window is None or deleted not in (None, window.uid):
                return None
            del ledger.windows[queue]
            self._stash = deque(item for item in self._stash if item.queue != queue)
            if deleted is not None:
                self._ended.append(queue)
            else:
                ledger.leaving.append(window)
        ledger.stir()
        return window

    # --- receiving --------------------------------------------------------------------------------

    def receive(self, limit: int, wait: float, timeout: float = math.inf) -> Sequence[Delivery]:
        """See `Session.receive`."""
        self._core.guard()  # before the lock: in a forked child nobody would release it
        try:
            with self._receiving:
                self._until = self._core.pool.within(timeout)
                return self._receive(limit, wait)
        finally:
            self.ledger.waiting = False
            if self.ledger.due is not None:
                self._core.call_keeper(self.ledger.due)
            if self._stopped:
                self.abandon()
            if self._retired or self._core.closed:
                self.close_handle(0.0)

    def _receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        core = self._core
        until = time.monotonic() + wait
        while True:
            self.ledger.bell.clear()
            self.ledger.waiting = True
            core.guard()
            if self._ended:
                queue = self._ended.pop(0)
                raise QueueNotFound(
                    f"queue {queue!r} was deleted; the subscription to it has ended", ended=queue
                )
            if self._stopped:
                self._give_back_stash()
                return ()
            if core.fence.holds(core.clock.monotonic()):
                if self._stash:
                    return self._hand_out(limit)
                if self._unresolved:
                    if found := self._repeat(limit):
                        return found
                    continue
                store = self._handle()
                if verdicts := self.ledger.take_verdicts():
                    self._send(store, verdicts)
                self.ledger.claiming = True  # before the look at it: who changes it interrupts
                wants, flights = self.ledger.ride(limit)
                if wants:
                    if found := self._claim(store, wants, flights, until, limit):
                        return found
                    if self._stash or (time.monotonic() < until and not self._woken):
                        continue
                self.ledger.claiming = False
                if not wants and self.ledger.due is not None:
                    core.call_keeper(self.ledger.due)  # acks that have nothing to travel with
            left = until - time.monotonic()
            if left <= 0 or self._woken:
                self._woken = False
                return ()
            self.ledger.bell.wait(left)

    def _claim(
        self, store: Store, wants: dict[str, int], flights: list[Flight], until: float, limit: int
    ) -> Sequence[Delivery]:
        """Claim, and wait for something until ``until``, unless the ledger has changed already."""
        wait = min(max(until - time.monotonic(), 0.0), MAX_WAIT)
        if self.ledger.bell.is_set():
            wait = 0.0
        settle = [token for flight in flights for token in flight.acks]
        request = self._core.new_request()
        try:
            answer = self._ask(store, request, wants, wait, settle)
        except BaseException:
            self.ledger.claiming = False
            self.ledger.land(flights, settle)
            raise
        self.ledger.claiming = False
        if answer.broken or self._broken:
            self._note_broken(wants, answer.broken)
        if flights:
            self.ledger.settled(flights, answer.stale_tokens)
            self.ledger.land(flights, ())
        return self._accept(answer.claims, limit)

    def _note_broken(self, wants: Collection[str], broken: Mapping[str, str]) -> None:
        """Say once which queues cannot be read, while the others go on."""
        for queue in broken.keys() - self._broken:
            logger.error("queue %r cannot be consumed: %s", queue, broken[queue])
        self._broken = (self._broken - set(wants)) | broken.keys()

    def _repeat(self, limit: int) -> Sequence[Delivery]:
        """Ask what the claim took whose reply was lost.

        Its acks went back to their windows, and are sent once more with the next claim. What cannot
        be asked because of what it took is left to the keeper.
        """
        request = self._unresolved
        claims: Sequence[Claim] = ()
        with Apart() as asking:
            claims = self._ask(self._handle(), request, {}, 0.0, (), repeat=True).claims
        if asking.error is not None:
            logger.error("a claim of consumer %r is given up: %s", self.name, asking.error)
            self.abandon()
            return ()
        self._core.expect_late(request, (claim.token for claim in claims))
        return self._accept(claims, limit)

    def _send(self, store: Store, flights: Sequence[Flight]) -> None:
        """Send settlements; what cannot be done for one message is left to the keeper."""
        try:
            with Apart():
                self.ledger.send(store, flights)
        except BaseException:
            self._drop_store()
            raise

    def _handle(self) -> Store:
        if self._store is None:
            self._store = self._core.pool.open(self._until)
            self._expect_by = punctual(self._store)
        self._expect_by(self._until)
        return self._store

    def _ask(
        self,
        store: Store,
        request: str,
        wants: dict[str, int],
        wait: float,
        settle: Sequence[Token],
        *,
        repeat: bool = False,
    ) -> Claimed:
        core = self._core
        try:
            answer = store.claim(core.main, request, wants, wait, settle=settle, repeat=repeat)
        except SessionLost:
            self._unresolved = ""
            if core.closed:
                core.guard()
            core.lose()
            raise
        except BaseException:
            self._unresolved = request
            self._drop_store()
            if not self.ledger.windows:
                self.abandon()  # cancelled meanwhile, by somebody who could not know of this
            raise
        self._unresolved = ""
        return answer

    def _accept(self, claims: Sequence[Claim], limit: int) -> Sequence[Delivery]:
        """Make deliveries of claims; return those that may be handed out now."""
        if not claims:
            return ()
        self._core.guard()
        strays: list[Token] = []
        deliveries: list[Delivery] = []
        name = self.name
        with self.ledger.lock:
            windows = self.ledger.windows
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
            self._core.later(lambda store: give_back(store, strays))
        if len(deliveries) > limit or not self._core.fence.holds(self._core.clock.monotonic()):
            with self.ledger.lock:
                self._stash.extend(deliveries)
            return ()
        return deliveries

    def _hand_out(self, limit: int) -> Sequence[Delivery]:
        with self.ledger.lock:
            count = min(limit, len(self._stash))
            return [self._stash.popleft() for _ in range(count)]

    def _drop_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            close_quietly(store)

    def stop(self) -> None:
        """Hand nothing more out; a claim that is under way may still bring something."""
        self._stopped = True
        self._give_back_stash()
        self.wake()
        if self._receiving.acquire(blocking=False):  # else who receives does it
            try:
                self.abandon()
            finally:
                self._receiving.release()

    def _give_back_stash(self) -> None:
        with self.ledger.lock:
            stash, self._stash = self._stash, deque()
        for delivery in stash:
            self.ledger.settle(Settlement(delivery, "requeue", counted=False))

    def wake(self) -> None:
        """End a receive early if it waits for room; otherwise the next one that finds nothing."""
        self._woken = True
        self.ledger.stir()

    def _interrupt(self) -> None:
        """End a claim that waits at the store."""
        store = self._store
        if self.ledger.claiming and store is not None:
            store.interrupt()

    def retire(self) -> int:
        """End a consumer without subscriptions; return how many settlements came too late.

        Its handle is closed now, or by the receive that still uses it.
        """
        self.abandon()
        self._retired = True
        self.wake()
        self.close_handle(0.0)
        return self.ledger.late()

    def abandon(self) -> None:
        """Leave a claim whose reply was lost to the keeper, who gives back what it took."""
        request, self._unresolved = self._unresolved, ""
        if request:
            self._core.expect_late(request, ())
            self._core.later(partial(return_late, core=self._core))

    def close_handle(self, timeout: float) -> None:
        """Close the store handle once no receive uses it; waits at most ``timeout`` seconds."""
        if self._receiving.acquire(timeout=max(0.0, min(timeout, 1e6))):
            try:
                self._drop_store()
            finally:
                self._receiving.release()


def return_late(store: Store, core: Core) -> None:
    """Give back what claims have taken that nobody waits for any more."""
    each = Apart()
    for late in list(core.late):
        with each:
            claims = store.claim(core.main, late.request, {}, 0.0, repeat=True).claims
            give_back(store, [claim.token for claim in claims if claim.token not in late.known])
        if late.until <= core.clock.monotonic():
            with contextlib.suppress(ValueError):  # it has made room for another
                core.late.remove(late)
    each.tell()


_NOWHERE: Final = Head("", "")


def _head(raw: bytes) -> Head:
    try:
        return head(raw)
    except DecodeError:
        return _NOWHERE  # whoever reads the properties hears of the damage
