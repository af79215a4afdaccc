"""The state of one store, and the steps that a store's methods are made of. Pure.

A `State` does no I/O, takes no lock and waits for nothing: whoever calls it makes sure that nobody
else does meanwhile, and hands in the present. All that is worth saving is its `Snapshot`; queues
and heaps are indexes over the messages, made anew from it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

import msgspec

from queue_core.message import Token
from queue_core.state.queues import (
    CLAIMED,
    DEAD,
    DELAYED,
    GONE,
    READY,
    Heap,
    Message,
    Queue,
)
from queue_core.transport import Entry, Envelope, Limit

_CRASHES_TO_BE_ALONE = 2


class Life(msgspec.Struct):
    """A session from its first opening to its end; ``number`` tells it from others of its name."""

    number: int
    lease: float
    beats: int


class Value(msgspec.Struct):
    """The value of one key."""

    value: bytes
    version: int
    expires: float | None = None


class Snapshot(msgspec.Struct):
    """A state as plain data, for msgspec to encode.

    Attributes:
        last: the latest number given to a message, claim, beat or version.
        messages: all of them, in no particular order.
        sessions, table, keys: by name.
    """

    last: int = 0
    messages: list[Message] = []
    sessions: dict[str, Life] = {}
    table: dict[str, Entry] = {}
    keys: dict[str, Value] = {}


class State:
    """Everything that the handles of one store share.

    Points in time are seconds of one clock that the caller looks at.
    """

    def __init__(self, saved: Snapshot | None = None) -> None:
        """Begin with what was ``saved``, which belongs to the state from now on; or empty."""
        saved = saved or Snapshot()
        self.last = saved.last
        self.sessions = saved.sessions
        self.table = saved.table
        self.keys = saved.keys
        self.key_expiry = [(v.expires, k) for k, v in saved.keys.items() if v.expires is not None]
        heapify(self.key_expiry)
        self.queues: dict[str, Queue] = {}
        self.claims: dict[Token, Message] = {}
        self.held: dict[str, dict[Token, Message]] = {name: {} for name in saved.sessions}
        self.expiry = Heap(READY | DELAYED | CLAIMED | DEAD)
        self.dead: OrderedDict[int, Message] = OrderedDict()
        for message in sorted(saved.messages, key=lambda message: message.token):
            self._index(message)

    def snapshot(self) -> Snapshot:
        """Return the state as plain data. It shares its parts with the state."""
        messages = [message for queue in self.queues.values() for message in queue.ids.values()]
        return Snapshot(self.last, messages, self.sessions, self.table, self.keys)

    def number(self) -> int:
        """Return a number that was never used before, and is greater than all before."""
        self.last += 1
        return self.last

    def queue(self, name: str) -> Queue:
        """Return the queue; it is made at its first use."""
        found = self.queues.get(name)
        if found is None:
            found = self.queues[name] = Queue(name)
        return found

    def _index(self, message: Message) -> None:
        """Put a message that was saved into the orders of its state."""
        queue = self.queue(message.queue)
        queue.ids[message.id] = message
        if message.state == READY:
            queue.add_ready(message)
        elif message.state == DELAYED:
            queue.add_delayed(message, message.due)
        elif message.state == CLAIMED:
            self._claim(message)
        else:
            self.die(message, message.reason)
        self._await_expiry(message)

    # sessions

    def open_session(self, name: str, lease: float) -> None:
        """Make or renew a session."""
        beats = self.number()
        if found := self.sessions.get(name):
            found.lease, found.beats = lease, beats
        else:
            self.sessions[name] = Life(beats, lease, beats)
            self.held[name] = {}

    def end_session(self, name: str, now: float, *, crashed: bool) -> None:
        """End a session that exists, and give back what it holds."""
        for message in list(self.held[name].values()):
            message.crashes += crashed
            self.give_back(message, now, counted=crashed)
        del self.sessions[name], self.held[name]

    # where a message is

    def leave(self, message: Message) -> None:
        """Take the message out of the account of its state; the caller puts it into another one."""
        queue = self.queues[message.queue]
        if message.state == READY:
            queue.remove_ready(message)
        elif message.state == DELAYED:
            queue.remove_delayed(message)
        elif message.state == CLAIMED:
            queue.claimed -= 1
            del self.claims[message.token], self.held[message.session][message.token]
        elif message.state == DEAD:
            del self.dead[message.place]

    def place(self, message: Message, now: float, delay: float = 0.0) -> None:
        """Put a message that is nowhere with the dead, the delayed or the ready ones."""
        message.reason = message.reason or self.verdict(message, now)
        if message.reason:
            self.die(message, message.reason)
        elif delay > 0:
            due, queue = now + delay, self.queues[message.queue]
            before = queue.next_due()
            queue.add_delayed(message, due)
            if before is None or due < before:
                self.wake(message.queue, everybody=True)
        else:
            self.queues[message.queue].add_ready(message)
            self.wake(message.queue)

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

    def hold(self, message: Message, session: str, request: str = "") -> None:
        """Give an unclaimed message to the session."""
        self.leave(message)
        message.token, message.session, message.request = self.number(), session, request
        self._claim(message)

    def _claim(self, message: Message) -> None:
        """Put a message that is nowhere with the claimed ones, by its token."""
        message.state = CLAIMED
        self.queues[message.queue].claimed += 1
        self.claims[message.token] = self.held[message.session][message.token] = message

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
        del self.queues[message.queue].ids[message.id]
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
            message = self.claims.get(token)
            if message is None:
                stale.append(token)
            else:
                held[token] = message
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
        queue = self.queue(envelope.queue)
        if envelope.id in queue.ids:
            return False
        expires = None if envelope.ttl is None else now + envelope.ttl
        message = Message(
            envelope.queue,
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
        self._await_expiry(message)
        return True

    def _await_expiry(self, message: Message) -> None:
        """Let a living message with a ttl die at its time."""
        message.in_expiry = message.expires is not None and not message.reason
        if message.in_expiry:
            self.expiry.push((message.expires, message.place), message)

    def drop_surplus(self, limits: Mapping[str, Limit], most: int) -> None:
        """Let die what ``drop-head`` queues hold beyond their limit, ``most`` of each.

        What is left is for the next put: nobody else has a turn meanwhile.
        """
        for name, limit in limits.items():
            if limit.overflow != "drop-head" or name not in self.queues:
                continue
            queue = self.queues[name]
            surplus = queue.ready + queue.delayed - limit.max_length
            for _ in range(min(surplus, most)):
                if head := queue.head_to_drop():
                    self.leave(head)
                    self.die(head, "maxlen")

    # the parts of claim

    def take(
        self, session: str, request: str, wants: Mapping[str, int], now: float
    ) -> list[Message]:
        """Claim what is ready for the session, as far as there is room."""
        self.advance(now)
        taken: list[Message] = []
        for name, room in wants.items():
            queue = self.queues.get(name)
            if queue is None or room <= 0:
                continue
            self.promote(queue, now)
            if queue.ready:
                for message in self.next_messages(queue, room):
                    self.hold(message, session, request)
                    message.attempts += 1
                    taken.append(message)
        return taken

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

    def wake(self, name: str, *, everybody: bool = False) -> None:
        """Do nothing; a subclass lets a claim that waits for this queue look again.

        One claim for each message that became ready, or ``everybody``, since one will be earlier
        than they know.
        """

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
