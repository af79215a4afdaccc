"""The state of one memory broker, and the steps that the store's methods are made of.

One lock per broker makes each method of a handle one atomic step: the handle takes it, asks the
clock once, and calls these. Nothing under the lock blocks, and nobody is called back.

A claim that finds nothing waits on a signal of its own and is woken by what makes a message of its
queues ready, one waiter for each message. With a clock other than the machine's it looks at that
clock every few milliseconds, and ends when ``wait`` seconds have passed on that clock or on the
machine's, whichever comes first: a test whose clock stands still does not hang.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

import msgspec

from queue_core.message import Token
from queue_core.policy import Clock, SystemClock
from queue_core.transport import Claim, Entry, Envelope, Limit
from queue_core.transports.memory.queues import (
    CLAIMED,
    DEAD,
    DELAYED,
    GONE,
    READY,
    Heap,
    Message,
    Queue,
)

_FAKE_CLOCK_SLICE = 0.005
_REMEMBERED_REQUESTS = 64
_CRASHES_TO_BE_ALONE = 2


class Session:
    """A session: its lease, what it holds, and which of its claims wait."""

    __slots__ = ("answers", "beats", "held", "lease", "waiters")

    def __init__(self, lease: float, beats: int) -> None:
        self.lease = lease
        self.beats = beats
        self.held: dict[Token, Message] = {}
        self.answers: dict[str, Sequence[Token]] = {}
        self.waiters: set[Waiter] = set()

    def remember(self, request: str, stale: Sequence[Token]) -> None:
        """Keep what else a claim answered, for the case that it is repeated."""
        self.answers[request] = stale
        if len(self.answers) > _REMEMBERED_REQUESTS:
            del self.answers[next(iter(self.answers))]


class Waiter:
    """One claim that waits for messages of some queues."""

    __slots__ = ("queues", "signal")

    def __init__(self, lock: threading.Lock, queues: Sequence[str]) -> None:
        self.signal = threading.Condition(lock)
        self.queues = queues


class Value(msgspec.Struct):
    """The value of one key."""

    value: bytes
    version: int
    expires: float | None


class MemoryBroker:
    """The state of one memory broker: what all its handles share.

    The caller of its methods holds ``lock`` and hands in the present.

    Args:
        clock: decides when delays and ttls are over; the machine's unless a test says otherwise.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.lock = threading.Lock()
        self.number = itertools.count(1).__next__
        self.queues: dict[str, Queue] = {}
        self.claims: dict[Token, tuple[Message, Session]] = {}
        self.expiry = Heap(READY | DELAYED | CLAIMED | DEAD)
        self.dead: OrderedDict[int, Message] = OrderedDict()
        self.sessions: dict[str, Session] = {}
        self.table: dict[str, Entry] = {}
        self.waiters: dict[str, dict[Waiter, None]] = {}
        self.keys: dict[str, Value] = {}
        self.key_expiry: list[tuple[float, str]] = []

    # where a message is

    def leave(self, message: Message) -> None:
        """Take the message out of the account of its state; the caller puts it into another one."""
        if message.state == READY:
            message.queue.remove_ready(message)
        elif message.state == DELAYED:
            message.queue.remove_delayed(message)
        elif message.state == CLAIMED:
            message.queue.claimed -= 1
            _, session = self.claims.pop(message.token)
            del session.held[message.token]
        elif message.state == DEAD:
            del self.dead[message.place]

    def place(self, message: Message, now: float, delay: float = 0.0) -> None:
        """Put a message that is nowhere with the dead, the delayed or the ready ones."""
        message.reason = message.reason or self.verdict(message, now)
        if message.reason:
            self.die(message, message.reason)
        elif delay > 0:
            due = now + delay
            before = message.queue.next_due()
            message.queue.add_delayed(message, due)
            if before is None or due < before:
                self.wake(message.queue.name, everybody=True)
        else:
            message.queue.add_ready(message)
            self.wake(message.queue.name)

    def verdict(self, message: Message, now: float) -> str:
        """Return why an unclaimed message is dead; empty while it is not."""
        if message.expires is not None and message.expires <= now:
            return "expired"
        if message.max_deliveries and message.attempts >= message.max_deliveries:
            return "delivery_limit"
        return ""

    def die(self, message: Message, reason: str) -> None:
        """Put a message that is nowhere with the dead ones."""
        message.reason = reason
        message.state = DEAD
        self.dead[message.place] = message

    def hold(self, message: Message, session: Session, request: str = "") -> None:
        """Give an unclaimed message to the session."""
        self.leave(message)
        message.state = CLAIMED
        message.token = self.number()
        message.request = request
        message.queue.claimed += 1
        session.held[message.token] = message
        self.claims[message.token] = message, session

    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        """Make a claimed message unclaimed.

        Collecting was no attempt, so there is none to take back from a dead one.
        """
        self.leave(message)
        if not counted and not message.reason:
            message.attempts -= 1
        self.place(message, now, delay)

    def forget(self, message: Message) -> None:
        """Remove a message for ever, wherever it is."""
        self.leave(message)
        message.state = GONE
        del message.queue.ids[message.id]
        if message.in_expiry:
            self.expiry.left()

    # what time does

    def advance(self, now: float) -> None:
        """Let every message die whose ttl is over."""
        expiry = self.expiry
        while (message := expiry.first()) and expiry.entries[0][0][0] <= now:
            heappop(expiry.entries)
            expiry.left()
            message.in_expiry = False
            if message.state & (READY | DELAYED):
                self.leave(message)
                self.die(message, "expired")

    def promote(self, queue: Queue, now: float) -> None:
        """Make the queue's delayed messages ready that are due."""
        while (message := queue.due.first()) and queue.due.entries[0][0][0] <= now:
            heappop(queue.due.entries)
            queue.remove_delayed(message)
            queue.add_ready(message)

    # the parts of put

    def stale_entries(self, versions: Mapping[str, int]) -> list[str]:
        """Return the names whose table entry has another version."""
        table = self.table
        return [
            name
            for name, version in versions.items()
            if (table[name].version if name in table else 0) != version
        ]

    def split(self, tokens: Iterable[Token]) -> tuple[dict[Token, Message], list[Token]]:
        """Return the tokens that are held, with their messages, and those that are not."""
        held, stale = {}, []
        for token in dict.fromkeys(tokens):
            claim = self.claims.get(token)
            if claim is None:
                stale.append(token)
            else:
                held[token] = claim[0]
        return held, stale

    def is_moot(self, envelope: Envelope, settled: Mapping[Token, Message]) -> bool:
        """Return whether the envelope's cause is stale, so that somebody else will deal with it."""
        cause = envelope.cause
        return cause is not None and cause not in settled and cause not in self.claims

    def full(
        self,
        batch: Sequence[Envelope],
        settled: Mapping[Token, Message],
        limits: Mapping[str, Limit],
    ) -> list[str]:
        """Return the queues that would refuse the batch."""
        fresh: dict[str, set[str]] = {
            name: set() for name, limit in limits.items() if limit.overflow == "reject-publish"
        }
        seen: set[tuple[str, str]] = set()
        for envelope in batch:
            key = (envelope.queue, envelope.id)
            if envelope.queue not in fresh or key in seen or self.is_moot(envelope, settled):
                continue
            seen.add(key)  # a second one with the same id will be there already
            queue = self.queues.get(envelope.queue)
            older = queue.ids.get(envelope.id) if queue else None
            exists = older is not None and older.token not in settled
            if not exists and (envelope.ttl is None or envelope.ttl > 0):
                fresh[envelope.queue].add(envelope.id)
        return [
            name
            for name, ids in fresh.items()
            if ids and self.unclaimed(name) + len(ids) > limits[name].max_length
        ]

    def unclaimed(self, name: str) -> int:
        """Count the queue's ready and delayed messages."""
        queue = self.queues.get(name)
        return queue.ready + queue.delayed if queue else 0

    def append(self, envelope: Envelope, now: float) -> bool:
        """Store the envelope unless its (queue, id) exists; return whether it was stored."""
        queue = self.queues.get(envelope.queue)
        if queue is None:
            queue = self.queues[envelope.queue] = Queue(envelope.queue)
        if envelope.id in queue.ids:
            return False
        expires = None if envelope.ttl is None else now + envelope.ttl
        message = Message(
            queue,
            self.number(),
            envelope.id,
            envelope.body,
            envelope.properties,
            envelope.priority,
            envelope.max_deliveries,
            expires,
        )
        queue.ids[envelope.id] = message
        self.place(message, now, envelope.delay)
        if expires is not None and not message.reason:
            self.expiry.push((expires, message.place), message)
            message.in_expiry = True
        return True

    def drop_surplus(self, limits: Mapping[str, Limit]) -> None:
        """Let die what ``drop-head`` queues hold beyond their limit."""
        for name, limit in limits.items():
            if limit.overflow != "drop-head" or name not in self.queues:
                continue
            queue = self.queues[name]
            while queue.ready + queue.delayed > limit.max_length and (head := queue.head_to_drop()):
                self.leave(head)
                self.die(head, "maxlen")

    # the parts of claim

    def take(
        self, session: Session, request: str, wants: Mapping[str, int], now: float
    ) -> list[Claim]:
        """Claim what is ready for the session, as far as there is room."""
        self.advance(now)
        claims: list[Claim] = []
        for name, room in wants.items():
            queue = self.queues.get(name)
            if queue is None or room <= 0:
                continue
            self.promote(queue, now)
            if queue.ready:
                for message in self.next_messages(queue, room):
                    self.hold(message, session, request)
                    message.attempts += 1
                    claims.append(message.claim())
        return claims

    def next_messages(self, queue: Queue, room: int) -> list[Message]:
        """Choose up to ``room`` ready messages, best first.

        One that crashed too often is chosen alone, or ends the choice.
        """
        chosen: list[Message] = []
        for priority in sorted(queue.levels, reverse=True):
            level = queue.levels[priority]
            while len(chosen) < room and (message := level.first()):
                if message.crashes >= _CRASHES_TO_BE_ALONE:
                    if not chosen:
                        heappop(level.entries)
                        chosen.append(message)
                    return chosen
                heappop(level.entries)
                chosen.append(message)
        return chosen

    def wait_and_take(
        self, session: Session, request: str, wants: Mapping[str, int], wait: float
    ) -> list[Claim]:
        """Wait until something can be taken, the time is over, or the session has ended."""
        clock = self.clock
        until, until_really = clock.monotonic() + wait, time.monotonic() + wait
        longest = wait if isinstance(clock, SystemClock) else _FAKE_CLOCK_SLICE
        waiter = Waiter(self.lock, [name for name, room in wants.items() if room > 0])
        session.waiters.add(waiter)
        try:
            while True:
                now = clock.monotonic()
                remaining = min(until - now, until_really - time.monotonic())
                if remaining <= 0:
                    return []
                for name in waiter.queues:
                    self.waiters.setdefault(name, {})[waiter] = None
                waiter.signal.wait(min(remaining, longest, self.until_due(waiter.queues, now)))
                self.dismiss(waiter)
                if waiter not in session.waiters:
                    for name in waiter.queues:
                        self.wake(name)
                    return []
                if claims := self.take(session, request, wants, clock.monotonic()):
                    return claims
        finally:
            self.dismiss(waiter)
            session.waiters.discard(waiter)

    def until_due(self, names: Iterable[str], now: float) -> float:
        """Return the seconds until the next delayed message of these queues is due."""
        dues = [queue.next_due() for name in names if (queue := self.queues.get(name))]
        return max(0.0, min((due for due in dues if due is not None), default=now + 1e6) - now)

    def wake(self, name: str, *, everybody: bool = False) -> None:
        """Wake the claim that has waited longest for a message of this queue, or all of them."""
        while waiters := self.waiters.get(name):
            waiter = next(iter(waiters))
            self.dismiss(waiter)
            waiter.signal.notify()
            if not everybody:
                break

    def dismiss(self, waiter: Waiter) -> None:
        """Wake this waiter no more."""
        for name in waiter.queues:
            if waiters := self.waiters.get(name):
                waiters.pop(waiter, None)
                if not waiters:
                    del self.waiters[name]

    # keys

    def live_value(self, key: str, now: float) -> Value | None:
        """Return the key's value unless it has expired; expired ones are deleted on the way."""
        while self.key_expiry and self.key_expiry[0][0] <= now:
            at, name = heappop(self.key_expiry)
            if name in self.keys and self.keys[name].expires == at:
                del self.keys[name]
        return self.keys.get(key)

    def set_value(self, key: str, value: bytes, expires: float | None) -> int:
        """Store the value and return its new version."""
        version = self.number()
        self.keys[key] = Value(value, version, expires)
        if expires is not None:
            heappush(self.key_expiry, (expires, key))
            if len(self.key_expiry) > 2 * len(self.keys) + 64:
                live = [(v.expires, k) for k, v in self.keys.items() if v.expires is not None]
                heapify(live)
                self.key_expiry = live
        return version
