"""Settling what one session delivered.

Every delivery belongs to the session that brought it. When that session ends, the broker gives its
messages to others, and a settlement that comes then would be about somebody else's message: it is
refused here, and never reaches the session that took the ended one's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_core.arguments import check_kind, need_seconds
from queue_core.errors import StaleDelivery
from queue_core.message import Delivery, Publication, Settlement
from queue_core.receipt import Receipt, failure_of
from queue_core.recovery import Recovery
from queue_core.transport import Outcome, Session

UNCERTAIN = (
    "the session ended before these settlements were certain; their messages are delivered again"
)

_PUBLICATIONS = "publications that prepare() returned, in a list"


class SessionSettler:
    """Where the messages of one session send their settlements; the `Settler` that they know.

    Attributes:
        session: the one that they came from.
        unflushed: whether something was settled that `flush` has not made certain.
    """

    __slots__ = ("_recovery", "_timeout", "session", "unflushed")

    def __init__(self, recovery: Recovery, session: Session, timeout: float) -> None:
        """``timeout``: how many seconds `settle_then` may take."""
        self._recovery = recovery
        self._timeout = timeout
        self.session = session
        self.unflushed = False

    @property
    def holds(self) -> bool:
        """The session's deliveries are certainly still its own."""
        return self.session.holds

    @property
    def over(self) -> bool:
        """The session has ended: its deliveries belong to others now."""
        return self.session.closed

    def settle(self, settlement: Settlement) -> None:
        """Hand it to the session, which sends it with its next round trip; does not block."""
        self._check(settlement.delivery)
        if settlement.delay.__class__ is not float or settlement.delay:
            need_seconds("delay", settlement.delay, zero=True)
        self.unflushed = True
        self.session.settle((settlement,))

    def settle_then(self, delivery: Delivery, then: Sequence[Any]) -> Sequence[Receipt]:
        """Publish ``then`` and ack the delivery in one step; blocks until both are certain.

        Raises:
            Unroutable, Refused, NotConfirmed: a publication was not taken; the delivery is as it
                was.
            StaleDelivery: the delivery belongs to somebody else; nothing was published.
        """
        self._check(delivery)
        check_kind("then=", then, Sequence, _PUBLICATIONS)
        publications = list(then)
        for publication in publications:
            check_kind("each of then=", publication, Publication, _PUBLICATIONS)

        def settle(session: Session, left: float) -> Sequence[Outcome]:
            if session is not self.session:
                raise _stale(delivery)
            return session.settle_then(delivery, publications, timeout=left)

        outcomes = self._recovery.call(settle, timeout=self._timeout)
        fates = zip(publications, outcomes, strict=True)
        if failed := [fate for fate in fates if fate[1].status != "confirmed"]:
            # One that is unroutable is why others were not stored.
            raise failure_of(*min(failed, key=lambda fate: fate[1].status != "unroutable"))
        return [Receipt(publication, "confirmed") for publication in publications]

    def flush(self, session: Session, tag: str, timeout: float) -> None:
        """Flush if ``session`` is the one that the settlements belong to, else StaleDelivery."""
        if session is not self.session:
            raise StaleDelivery(UNCERTAIN)
        session.flush(tag, timeout=timeout)

    def _check(self, delivery: Delivery) -> None:
        if self.session.closed:
            raise _stale(delivery)


def _stale(delivery: Delivery) -> StaleDelivery:
    return StaleDelivery(
        f"the session that the message from {delivery.queue!r} came from has ended; the message "
        "is delivered again"
    )
