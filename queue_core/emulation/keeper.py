"""The keeper: what a session has to do by itself, on one thread or, in tests, by `Keeper.tick`.

- *beat*: keep our sessions alive, every third of the shortest lease.
- *send*: settlements that no `receive` took along.
- *watch*: end the sessions of those who died, after the rules of `leases.Watch`.
- *collect*: every second, bury dead messages, also when nobody consumes.
- *look*: every three seconds, see whether the queues that we consume from still exist, and whether
  claims that were given up have taken something late.

What cannot be done for one message, queue or session alone is put off (see `apart`): no duty stops
before the rest of what it has to do, and none comes back to it each time.

`Schedule` says when; it is pure. The keeper has a store handle of its own. It is the one place of
a session where an error of the store is not the caller's: it throws the handle away, tries again a
little later, and says so at debug level; who else uses the store hears of it by himself. Only the
end of our own session is told, to everybody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Final

from queue_core.emulation.apart import Apart
from queue_core.emulation.consuming import Consumer, return_late
from queue_core.emulation.core import LATE, Chore, Core
from queue_core.emulation.declaring import Declarer
from queue_core.emulation.entries import q
from queue_core.emulation.handles import close_quietly
from queue_core.emulation.leases import Names, Watch
from queue_core.emulation.ledger import Finish, Ledger
from queue_core.emulation.publishing import Dead
from queue_core.emulation.reclaiming import Reclaimer
from queue_core.errors import QueueCoreError, SessionLost, TransportError
from queue_core.policy import Deadline
from queue_core.transport import Store

__all__ = ["Keeper", "Schedule"]

logger = logging.getLogger(__name__)

BEATS_PER_LEASE: Final = 3
COLLECT_INTERVAL: Final = 1.0
LARGEST_BATCH: Final = 100
BATCH_PER_SECOND: Final = 20
"""How much work one round takes on, for each second of lease: heartbeats must not wait for it."""

PUT_OFF: Final = 60.0
"""Seconds until what could not be done for one dead message or session is tried again."""

SMALLEST_BATCH: Final = 5

LOOK_INTERVAL: Final = 3.0
RETRY_INTERVAL: Final = 0.5
SHORTEST_BEAT: Final = 0.02
LONGEST_SLEEP: Final = 1.0


class Schedule:
    """When each duty is due: pure, in monotonic seconds."""

    __slots__ = ("_due",)

    def __init__(self, duties: Iterable[str], now: float) -> None:
        """Everything is due now."""
        self._due = dict.fromkeys(duties, now)

    def due(self, duty: str, now: float) -> bool:
        """Whether it is time."""
        return self._due[duty] <= now

    def done(self, duty: str, due: float) -> None:
        """Note when it is due again."""
        self._due[duty] = due

    def next(self) -> float:
        """Return when the first one is due."""
        return min(self._due.values())


class Keeper:
    """The background work of one session."""

    def __init__(
        self,
        core: Core,
        declarer: Declarer,
        reclaimer: Reclaimer,
        consumers: Callable[[], Collection[Consumer]],
    ) -> None:
        """Prepare; `start` starts the thread."""
        self._core = core
        self._declarer = declarer
        self._reclaimer = reclaimer
        self._consumers = consumers
        self._watch = Watch()
        self._store: Store | None = None
        self._collector = ""
        self._collecting = False  # or it was interrupted
        self._doubted_until = float("-inf")
        self._bury_again = float("inf")
        self._fetch = SMALLEST_BATCH  # how many dead messages
        self._stuck: dict[str, float] = {}  # sessions that could not be ended: when to try again
        self._chores_from = float("-inf")  # after a failure they wait a little
        self._idle: dict[tuple[str, str], tuple[int, float]] = {}  # version, and since when
        self._event = threading.Event()
        self._next_wake = float("-inf")
        self._asked = float("inf")
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._running = threading.Lock()
        self._duties: dict[str, Callable[[Store], float]] = {
            "beat": self._beat,
            "watch": self._observe,
            "collect": self._collect,
            "look": self._look,
        }
        self._schedule = Schedule(self._duties, core.clock.monotonic())
        interval = self._beat_interval()
        self._batch = min(
            LARGEST_BATCH, max(SMALLEST_BATCH, int(core.options.lease * BATCH_PER_SECOND))
        )
        self._retry = min(RETRY_INTERVAL, core.options.lease / 10)
        self._schedule.done("beat", core.clock.monotonic() + interval)

    # --- running ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(
            target=self._run, name=f"queue-core keeper {self._core.uid[:8]}", daemon=True
        )
        self._thread.start()

    def call(self, due: float) -> None:
        """Come round by ``due``; does not block. From any thread.

        Who acks one message after the other wakes the thread once until then, not with each ack:
        it comes by then even if there is nothing left to do, which another claim has taken along.
        """
        if due < self._next_wake:
            self._asked = min(self._asked, due)
            self._event.set()

    def stop(self, timeout: float) -> None:
        """Stop the thread and wait for it at most ``timeout`` seconds."""
        self._stopped = True
        self._event.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, min(timeout, 1e6)))
        elif thread is None and self._running.acquire(timeout=max(0.0, min(timeout, 1e6))):
            try:
                self._drop_store()
            finally:
                self._running.release()

    def tick(self) -> None:
        """Do everything once, now, whatever the schedule says."""
        with self._running:
            self._round(force=True)
            if self._stopped:
                self._drop_store()

    def _run(self) -> None:
        core = self._core
        try:
            while not self._stopped and not core.over:
                self._event.clear()
                # While this is infinite, whoever has something new sets the event for sure.
                self._next_wake = float("inf")
                if self._asked <= core.clock.monotonic():
                    self._asked = float("inf")
                with self._running:
                    self._round(force=False)
                due = min(self._next_due(), self._asked)
                self._next_wake = due
                self._event.wait(max(0.0, min(due - core.clock.monotonic(), LONGEST_SLEEP)))
        finally:
            self._next_wake = float("-inf")
            self._drop_store()

    def _next_due(self) -> float:
        dues = [due for item in self._consumers() if (due := item.ledger.due) is not None]
        if self._core.chores:
            dues.append(self._chores_from)
        return min([self._schedule.next(), *dues])

    def _round(self, *, force: bool) -> None:
        now = self._core.clock.monotonic()
        for duty, function in self._duties.items():
            if self._core.over or self._stopped:
                return
            if force or self._schedule.due(duty, now):
                again = self._guarded(duty, function, self._retry)
                self._schedule.done(duty, self._core.clock.monotonic() + again)
            if duty == "beat":  # nothing comes before that
                self._send(now, force)
                if self._core.chores and (force or now >= self._chores_from):
                    self._guarded("a chore", self._do_chores, self._retry)

    def _guarded(self, what: str, function: Callable[[Store], float], retry: float) -> float:
        """Run one duty; return the seconds until it is due again."""
        try:
            if self._store is None:
                self._store = self._core.pool.open()
            return function(self._store)
        except SessionLost:
            self._core.lose()
        except TransportError as error:
            logger.debug("%s of session %s failed: %s", what, self._core.main, error)
            self._drop_store()
        except QueueCoreError:
            logger.exception("%s of session %s failed", what, self._core.main)
        except Exception:
            logger.exception("%s of session %s failed unexpectedly", what, self._core.main)
            self._drop_store()
        return retry

    def _drop_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            close_quietly(store)

    # --- duties -----------------------------------------------------------------------------------

    def _send(self, now: float, force: bool) -> None:
        for consumer in self._consumers():
            ledger = consumer.ledger
            if force or (ledger.due is not None and ledger.due <= now):

                def send(store: Store, ledger: Ledger = ledger) -> float:
                    with Apart() as settling:
                        ledger.send(store, ledger.take(), self._breathe)
                    if settling.error is not None:
                        logger.debug("a settlement is tried again: %s", settling.error)
                    return 0.0

                self._guarded("settling", send, 0.0)

    def _leases(self) -> dict[str, tuple[Consumer | None, float]]:
        """Return every session that we keep alive."""
        core = self._core
        lease = core.options.lease
        names: dict[str, tuple[Consumer | None, float]] = {core.main: (None, lease)}
        if self._collector:
            names[self._collector] = (None, lease)
        for name, uid in list(core.exclusive):
            names[Names.queue(name, uid)] = (None, lease)
        for consumer in self._consumers():
            for window in consumer.ledger.subscriptions():
                own, *others = window.leases
                names[own] = (consumer, lease)
                for other in others:
                    names[other] = (consumer, window.expires or lease)
        return names

    def _beat_interval(self) -> float:
        shortest = min(seconds for _, seconds in self._leases().values())
        return max(SHORTEST_BEAT, shortest / BEATS_PER_LEASE)

    def _beat(self, store: Store) -> float:
        core = self._core
        leases = self._leases()
        sent = core.clock.monotonic()
        gone = store.heartbeat(list(leases))
        if core.main in gone:
            core.lose()
            return LONGEST_SLEEP
        fenced = not core.fence.holds(core.clock.monotonic())
        core.fence.confirm(sent)
        if fenced:
            core.wake_all()
        for name in gone:
            if name == self._collector:
                self._collector = ""
            elif self._is_ours(name):
                store.open_session(name, leases[name][1])
        return self._beat_interval()

    def _breathe(self, store: Store) -> None:
        """Beat if it is time, between the steps of a duty that may take long."""
        now = self._core.clock.monotonic()
        if self._schedule.due("beat", now):
            self._schedule.done("beat", now + self._beat(store))

    def _is_ours(self, name: str) -> bool:
        return name in self._leases()

    def _do_chores(self, store: Store) -> float:
        for _ in range(len(self._core.chores)):
            chore = self._core.next_chore()
            if chore is None:
                break
            trying = Apart()
            try:
                with trying:
                    chore(store)
            except TransportError:
                self._put_back(chore)
                raise
            if trying.error is not None:
                logger.debug("%r is tried again: %s", chore, trying.error)
                self._put_back(chore)
        return 0.0

    def _put_back(self, chore: Chore) -> None:
        self._core.later(chore)
        self._chores_from = self._core.clock.monotonic() + self._retry

    def _observe(self, store: Store) -> float:
        clock = self._core.clock
        started = clock.monotonic()
        sessions = store.sessions()
        finished = clock.monotonic()
        dead = self._watch.observe(sessions, started, finished, ours=self._leases())
        self._stuck = {name: again for name, again in self._stuck.items() if again > finished}
        over = [(name, beats) for name, beats in dead if name not in self._stuck]
        deadline = Deadline.after(self._core.options.timeout, clock)
        if over:
            batch = dict(over[: self._batch])
            stuck = self._reclaimer.reclaim(store, batch, deadline, self._breathe)
            self._stuck.update(dict.fromkeys(stuck, finished + PUT_OFF))
        if len(over) > self._batch:
            return 0.0
        now = clock.monotonic()
        return max(0.0, self._watch.next_look(now) - now)

    def _collect(self, store: Store) -> float:
        """Bury what is dead. After an error the session that holds it ends: it is dead again.

        For a while that is done each time, since a request that was given up may arrive late. What
        cannot be buried stays with that session for a while, so that others have their turn.
        """
        core = self._core
        now = core.clock.monotonic()
        if self._collecting:
            self._doubted_until = now + LATE
        if self._collector and (now < self._doubted_until or now >= self._bury_again):
            with Apart() as ending:
                store.end_session(self._collector)
                self._collector = ""
            self._collecting, self._bury_again = False, float("inf")
            if ending.error is not None:
                logger.error("not all dead messages can be given back: %s", ending.error)
                self._bury_again = now + PUT_OFF
        if not self._collector:
            store.open_session(Names.collect(core.uid), core.options.lease)
            self._collector = Names.collect(core.uid)
        deadline = Deadline.after(core.options.timeout, core.clock)
        self._collecting, limit = True, self._fetch
        started = core.clock.monotonic()
        try:
            claims = store.collect(self._collector, limit)
        except SessionLost:
            self._collecting, self._collector = False, ""
            return 0.0
        self._fetch = self._next_fetch(len(claims), core.clock.monotonic() - started)
        for claim in claims:
            dead = Dead(claim.queue, claim.token, claim.body, claim.properties, claim.reason)
            if not self._bury(store, dead, deadline):
                self._bury_again = min(self._bury_again, now + PUT_OFF)
            self._breathe(store)
        self._collecting = False
        return 0.0 if len(claims) >= limit else COLLECT_INTERVAL

    def _next_fetch(self, found: int, seconds: float) -> int:
        """Return how many to fetch next: heartbeats wait while large ones come over a slow line."""
        if seconds > self._beat_interval() / 2:
            return max(1, self._fetch // 2)
        return min(self._batch, 4 * self._fetch) if found >= self._fetch else SMALLEST_BATCH

    def _bury(self, store: Store, dead: Dead, deadline: Deadline) -> bool:
        """Bury one; what is wrong with it alone is logged, and does not concern the others."""
        with Apart() as burying:
            self._core.publisher.bury(store, dead, deadline)
        if burying.error is not None:
            what = f"a dead message of queue {dead.queue!r} cannot be buried"
            logger.error("%s: %s", what, burying.error)
        return burying.error is None

    def _look(self, store: Store) -> float:
        """Give back what claims have taken late, and end what has no use any more.

        That is subscriptions to queues that are gone, and exclusive queues that nobody uses.
        """
        each = Apart()
        with each:
            return_late(store, self._core)
        consumed: dict[str, list[tuple[Consumer, str]]] = {}
        for consumer in self._consumers():
            for window in consumer.ledger.subscriptions():
                consumed.setdefault(window.queue, []).append((consumer, window.uid))
        known = self._core.table.readable(store, [q(name) for name in consumed])
        for name, users in consumed.items():
            if q(name) in known:
                entry = known[q(name)].queue
                for consumer, uid in users:
                    if entry is None or entry.uid != uid:
                        with each:
                            self._drop(store, consumer, name, uid)
        for name, uid in list(self._core.exclusive):
            with each:
                self._expire_exclusive(store, name, uid, used=name in consumed)
        for queue in self._idle.keys() - self._core.exclusive:
            del self._idle[queue]
        if each.error is not None:
            logger.debug("something is left as it is for now: %s", each.error)
        return LOOK_INTERVAL

    def _drop(self, store: Store, consumer: Consumer, queue: str, uid: str) -> None:
        window = consumer.remove(queue, deleted=uid)
        if window is not None:
            try:
                consumer.ledger.finish(store, window)
                store.end_session(window.leases[0])
            except QueueCoreError:
                self._core.later(Finish(consumer.ledger, window))
                raise

    def _expire_exclusive(self, store: Store, name: str, uid: str, *, used: bool) -> None:
        """Only we can consume from our exclusive queues, so only we see that one is idle.

        Who declares it or subscribes gives its entry a new version, by which we notice.
        """
        core = self._core
        now = core.clock.monotonic()
        known = core.table.queue(store, name)
        entry, version = known.queue, known.version
        if entry is not None and entry.uid != uid:
            core.exclusive.discard((name, uid))  # another one has its name
            return
        idle = self._idle.setdefault((name, uid), (version, now))
        if entry is None or entry.expires is None or used or idle[0] != version:
            self._idle[name, uid] = version, now
        elif now - idle[1] >= entry.expires:
            deadline = Deadline.after(core.options.timeout, core.clock)
            self._declarer.remove(store, name, uid, deadline, version=version)
