"""Messages as a store keeps them, and the orders in which a queue hands them out.

Everything that keeps an order is a heap of (key, message). A message that leaves does not look for
its entry: outdated entries are skipped when they come up, and swept once they are the majority. So
no step looks at a whole queue: taking k messages costs k * log(depth), and what is gone does not
stay in memory. A message is plain data and can be saved; heaps and queues are made from messages.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from queue_core.transport import Claim

READY, DELAYED, CLAIMED, DEAD, GONE = 1, 2, 4, 8, 16


class Message(msgspec.Struct, eq=False, omit_defaults=True):
    """One stored message.

    ``place`` is its position for ever. ``reason`` is set when it dies, and a dead one stays dead.
    ``session``, ``token`` and ``request`` are those of its last claim. ``due`` and ``expires`` are
    points on the clock of its `State`.
    """

    queue: str
    place: int
    id: str
    body: bytes
    properties: bytes
    priority: int = 0
    max_deliveries: int = 0
    expires: float | None = None
    state: int = GONE
    due: float = 0.0
    attempts: int = 0
    crashes: int = 0
    reason: str = ""
    in_expiry: bool = False
    session: str = ""
    token: int = 0
    request: str = ""

    def claim(self) -> Claim:
        """Describe it to the session that holds it."""
        return Claim(
            self.token,
            self.queue,
            self.id,
            self.body,
            self.properties,
            self.attempts,
            self.priority,
            self.reason,
        )


class Heap:
    """Messages by a unique key, smallest first.

    An entry counts only while its message is in one of ``states``.
    """

    __slots__ = ("entries", "live", "states")

    def __init__(self, states: int) -> None:
        self.entries: list[tuple[Any, Message]] = []
        self.live = 0
        self.states = states

    def push(self, key: object, message: Message) -> None:
        """Add a message; ``key`` must be unique."""
        heappush(self.entries, (key, message))
        self.live += 1

    def first(self) -> Message | None:
        """Return the first message, whose entry is now ``entries[0]``; None if there is none."""
        entries = self.entries
        while entries:
            message = entries[0][1]
            if message.state & self.states:
                return message
            heappop(entries)
        return None

    def left(self) -> None:
        """Note that a message left; its entry may still be here."""
        self.live -= 1
        if len(self.entries) > 2 * self.live + 64:
            self.entries = [entry for entry in self.entries if entry[1].state & self.states]
            heapify(self.entries)


class Queue:
    """The messages of one queue: all of them by id, and the unclaimed ones in their orders."""

    __slots__ = ("claimed", "delayed", "delayed_levels", "due", "ids", "levels", "name", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: dict[str, Message] = {}
        self.levels: dict[int, Heap] = {}
        self.delayed_levels: dict[int, Heap] = {}
        self.due = Heap(DELAYED)
        self.ready = self.delayed = self.claimed = 0

    def add_ready(self, message: Message) -> None:
        """Take in a message that can be claimed now."""
        level = self.levels.get(message.priority)
        if level is None:
            level = self.levels[message.priority] = Heap(READY)
        level.push(message.place, message)
        message.state = READY
        self.ready += 1

    def add_delayed(self, message: Message, due: float) -> None:
        """Take in a message that can be claimed at ``due``."""
        level = self.delayed_levels.get(message.priority)
        if level is None:
            level = self.delayed_levels[message.priority] = Heap(DELAYED)
        level.push(message.place, message)
        self.due.push((due, message.place), message)
        message.state, message.due = DELAYED, due
        self.delayed += 1

    def remove_ready(self, message: Message) -> None:
        """Let a ready message go."""
        self.ready -= 1
        self.levels[message.priority].left()

    def remove_delayed(self, message: Message) -> None:
        """Let a delayed message go."""
        self.delayed -= 1
        self.due.left()
        self.delayed_levels[message.priority].left()

    def next_due(self) -> float | None:
        """Return when the next delayed message is due."""
        return self.due.entries[0][0][0] if self.due.first() else None

    def head_to_drop(self) -> Message | None:
        """Return the oldest unclaimed message of the lowest priority, delayed or not."""
        for priority in sorted({*self.levels, *self.delayed_levels}):
            heaps = (self.levels.get(priority), self.delayed_levels.get(priority))
            heads = [head for heap in heaps if heap is not None and (head := heap.first())]
            if heads:
                return min(heads, key=lambda message: message.place)
        return None
