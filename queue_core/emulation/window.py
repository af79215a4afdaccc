"""What a consumer holds, what it may still take, and which settlements are due: pure bookkeeping.

A `Window` belongs to one subscription and keeps the promise of its prefetch: the messages that the
store counts as claimed for it are never more than ``prefetch``. A settlement passes through these
states::

    held -- settle() --> pending -- take_*() --> in flight -- acked() / judged() --> certain
                            ^                        |
                            +------- failed() -------+     its reply was lost: to be repeated

- A pending ack takes no room, because the claim that fills the room takes the ack along (it
  *rides*). A pending requeue or reject, and what is in flight by itself, takes room.
- What was sent without an answer is *unsure*. When it is repeated and the store says "stale", the
  first try had worked: that is success.

No method blocks or does I/O. The caller holds the consumer's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from queue_core.message import Settlement, Token

__all__ = ["Flight", "Window"]


class Flight(msgspec.Struct):
    """Settlements of one window on their way to the store, in the hands of one thread.

    ``number`` is for who wants to know when they have arrived.
    """

    window: Window
    acks: list[Token]
    verdicts: list[Settlement]
    riding: bool
    number: int = 0


class Window:
    """One subscription: at most ``prefetch`` messages, and the settlements on their way."""

    __slots__ = (
        "acks",
        "expires",
        "flying",
        "held",
        "leases",
        "prefetch",
        "queue",
        "uid",
        "unsure",
        "verdicts",
    )

    def __init__(
        self,
        queue: str,
        prefetch: int,
        *,
        leases: Sequence[str] = (),
        uid: str = "",
        expires: float | None = None,
    ) -> None:
        """Begin empty.

        ``leases`` are the sessions that live as long as this subscription, its own one first;
        ``uid`` is the queue's, so that another queue of the same name is recognised, and
        ``expires`` its expiry in seconds.
        """
        self.queue = queue
        self.prefetch = prefetch
        self.leases = leases
        self.uid = uid
        self.expires = expires
        self.held: set[Token] = set()
        self.acks: list[Token] = []
        self.verdicts: list[Settlement] = []
        self.unsure: set[Token] = set()
        self.flying = 0

    def room(self) -> int:
        """Return how many messages may be claimed, if the pending acks ride along."""
        return max(0, self.prefetch - len(self.held) - len(self.verdicts) - self.flying)

    @property
    def urgent(self) -> bool:
        """Half the window consists of acks that nobody has sent yet."""
        return 2 * len(self.acks) >= self.prefetch

    def settle(self, settlement: Settlement) -> bool:
        """Note the fate of a held delivery; False if it is not held (any more)."""
        token = settlement.delivery.token
        if token not in self.held:
            return False
        self.held.remove(token)
        if settlement.action == "ack":
            self.acks.append(token)
        else:
            self.verdicts.append(settlement)
        return True

    def take_acks(self, *, riding: bool) -> Flight | None:
        """Take the pending acks, to send them; ``riding``: along with a claim."""
        if not self.acks:
            return None
        flight = Flight(self, self.acks, [], riding)
        self.acks = []
        if not riding:
            self.flying += len(flight.acks)
        return flight

    def take_verdicts(self) -> Flight | None:
        """Take the pending requeues and rejects, to send them."""
        if not self.verdicts:
            return None
        flight = Flight(self, [], self.verdicts, False)
        self.verdicts = []
        self.flying += len(flight.verdicts)
        return flight

    def acked(self, flight: Flight, stale: Collection[Token]) -> int:
        """Note that the flight's acks are certain; return how many of them came too late.

        ``stale`` may name tokens of other windows too.
        """
        late = 0
        if stale:
            late = len(set(flight.acks).intersection(stale) - self.unsure)
        if not flight.riding:
            self.flying -= len(flight.acks)
        if self.unsure:
            self.unsure.difference_update(flight.acks)
        flight.acks = []
        return late

    def judged(self, flight: Flight, settlement: Settlement, *, stale: bool) -> int:
        """Note that one requeue or reject is certain; return 1 if it came too late, else 0."""
        token = settlement.delivery.token
        late = stale and token not in self.unsure
        self.flying -= 1
        self.unsure.discard(token)
        flight.verdicts.remove(settlement)
        return int(late)

    def failed(self, flight: Flight, sent: Iterable[Token]) -> None:
        """Take back what is not certain, to be sent again; ``sent`` may have reached the store."""
        if not flight.riding:
            self.flying -= len(flight.acks) + len(flight.verdicts)
        self.unsure.update(sent)
        self.acks = flight.acks + self.acks
        self.verdicts = flight.verdicts + self.verdicts
        flight.acks, flight.verdicts = [], []
