"""What the parts of one emulated session share, and whether it may still be used.

The rules: a session that was lost (its lease ended) or closed says so to every later call. A
process that inherited a session through a fork may not use it, nor touch its handles, whose
sockets and locks belong to the parent.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from queue_core.emulation.handles import Pool
from queue_core.emulation.leases import Fence, Names
from queue_core.emulation.publishing import Publisher
from queue_core.emulation.table import Table
from queue_core.errors import Closed, SessionLost
from queue_core.message import Token
from queue_core.process import process_id
from queue_core.transport import Features, SessionOptions, Store

__all__ = ["LATE", "Chore", "Core"]

Chore = Callable[[Store], None]
"""Something that must be done at the store, repeated until it succeeds."""


LATE: Final = 180.0
"""Seconds in which a request that was given up may still arrive: as long as the systems of both
sides send again what nobody has confirmed, also after the connection was closed.
"""

_MOST_LATE: Final = 100


class LateClaim(msgspec.Struct):
    """A claim without an answer: all that was taken by ``request``, but ``known``, is nobody's."""

    request: str
    known: frozenset[Token]
    until: float


class Wakeable(Protocol):
    """The keeper, as far as others call it."""

    def call(self, due: float) -> None:
        """Come round by ``due`` (monotonic seconds of the session's clock)."""


class Core:
    """The middle of a session; its parts refer to it and not to each other."""

    def __init__(
        self, transport: str, features: Features, options: SessionOptions, pool: Pool
    ) -> None:
        """Name the session; nothing is opened."""
        self.transport = transport
        self.features = features
        self.options = options
        self.clock = options.clock
        self.pool = pool
        self.table = Table()
        self.publisher = Publisher(self.table, features, transport, options.clock)
        self.uid = options.origin + uuid.uuid4().hex[len(options.origin) :]
        self.main = Names.main(options.node, self.uid)
        self.fence = Fence(options.lease, options.clock.monotonic())
        self.lock = threading.Lock()
        self.exclusive: set[tuple[str, str]] = set()
        """Exclusive queues of this session: name and uid."""
        self.chores: deque[Chore] = deque()
        self.late: deque[LateClaim] = deque(maxlen=_MOST_LATE)
        self.keeper: Wakeable | None = None
        self.wake_all: Callable[[], None] = lambda: None
        self._requests = itertools.count(1)
        self._pid = process_id()
        self._lost = False
        self._closed = False

    @property
    def ours(self) -> bool:
        """Whether this process opened the session."""
        return process_id() == self._pid

    @property
    def over(self) -> bool:
        """The session cannot be used any more."""
        return self._closed or self._lost or process_id() != self._pid

    @property
    def holds(self) -> bool:
        """The session is not over, and neither is its lease."""
        return self.fence.holds(self.clock.monotonic()) and not self.over

    @property
    def lost(self) -> bool:
        """The lease ended."""
        return self._lost

    @property
    def closed(self) -> bool:
        """It was closed."""
        return self._closed

    def guard(self) -> None:
        """Raise Closed or SessionLost if the session cannot be used any more."""
        if self._closed:
            raise Closed("the session is closed")
        if self._lost:
            raise SessionLost(
                f"the lease of session {self.main!r} ended and its messages went back to their"
                f" queues; open a new session ({self.options.lease:g} seconds without a heartbeat,"
                " or another process took the node's name)"
            )
        if process_id() != self._pid:
            raise Closed(
                f"this session belongs to process {self._pid}; a forked child opens its own"
            )

    def lose(self) -> None:
        """Note that the session does not exist at the store any more."""
        self._lost = True
        self.wake_all()

    def shut(self) -> bool:
        """Note that the session is closed; False if it was before."""
        with self.lock:
            if self._closed:
                return False
            self._closed = True
        self.wake_all()
        return True

    def new_request(self) -> str:
        """Return a fresh id for a claim."""
        return f"{self.uid}.{next(self._requests)}"

    def expect_late(self, request: str, known: Iterable[Token]) -> None:
        """Note a claim that was given up, was asked for since, and has taken what is ``known``."""
        self.late.append(LateClaim(request, frozenset(known), self.clock.monotonic() + LATE))

    def later(self, chore: Chore) -> None:
        """Have the keeper do this until it succeeds; the same chore waits only once."""
        with self.lock:
            if chore not in self.chores:
                self.chores.append(chore)
        self.call_keeper(0.0)

    def next_chore(self) -> Chore | None:
        """Take the chore that has waited longest, to do it or hand it to `later` again."""
        with self.lock:
            return self.chores.popleft() if self.chores else None

    def call_keeper(self, due: float) -> None:
        """Have the keeper come round by ``due``."""
        if self.keeper is not None:
            self.keeper.call(due)
