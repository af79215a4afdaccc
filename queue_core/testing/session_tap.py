"""A `Tap`: one consumer in the hand of a test of `SessionSuite`.

It says briefly what such tests do all the time: take so many messages, be sure that no more come,
settle them and be sure that it is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_core.message import Delivery, Properties, Settlement
from queue_core.policy import Deadline, SystemClock
from queue_core.topology import Queue
from queue_core.transport import Session


class Tap:
    """One consumer and what it holds."""

    def __init__(
        self,
        session: Session,
        consumer: str,
        queues: Sequence[Queue | str],
        prefetch: int,
        *,
        patience: float,
        quiet: float,
    ) -> None:
        self.session = session
        self.patience = patience
        self.quiet = quiet
        self.consumer = consumer
        self.held: list[Delivery] = []
        for queue in queues:
            self.subscribe(queue, prefetch)

    def subscribe(self, queue: Queue | str, prefetch: int) -> None:
        """Take messages from one more queue."""
        name = queue if isinstance(queue, str) else queue.name
        self.session.subscribe(self.consumer, name, prefetch=prefetch)

    def take(
        self, count: int, *, within: float | None = None, exactly: bool = True
    ) -> list[Delivery]:
        """Receive ``count`` messages; fail if they do not come ``within`` seconds."""
        seconds = self.patience if within is None else within
        deadline = Deadline.after(seconds, SystemClock())
        got: list[Delivery] = []
        while len(got) < count and (not deadline.expired or not got):
            more = self.session.receive(
                self.consumer, limit=count - len(got), wait=deadline.bound(1.0)
            )
            assert len(more) <= count - len(got), "receive returned more than its limit"
            got += more
            if deadline.expired:
                break
        self.held += got
        bodies = [delivery.body[:40] for delivery in got]
        assert len(got) == count or not exactly, (
            f"{len(got)} of {count} within {seconds:g} s: {bodies}"
        )
        return got

    def one(self, *, within: float | None = None) -> Delivery:
        """Receive one message."""
        return self.take(1, within=within)[0]

    def none(self, seconds: float | None = None) -> None:
        """Check that nothing comes."""
        deadline = Deadline.after(self.quiet if seconds is None else seconds, SystemClock())
        while True:
            extra = self.session.receive(self.consumer, wait=deadline.bound(1.0))
            self.held += extra
            assert not extra, f"unexpected: {[(d.queue, d.body[:40]) for d in extra]}"
            if deadline.expired:
                return

    def settle(self, *deliveries: Delivery, flush: bool = True, **fields: Any) -> None:
        """Settle deliveries (``fields`` are those of `Settlement`) and wait for it."""
        self.session.settle([Settlement(delivery, **fields) for delivery in deliveries])
        gone = {id(delivery) for delivery in deliveries}
        self.held = [delivery for delivery in self.held if id(delivery) not in gone]
        if flush:
            self.flush()

    def ack(self, *deliveries: Delivery, flush: bool = True) -> None:
        """Ack deliveries."""
        self.settle(*deliveries, flush=flush)

    def ack_all(self) -> None:
        """Ack everything held."""
        self.ack(*self.held)

    def reject(self, *deliveries: Delivery, **fields: Any) -> None:
        """Reject deliveries."""
        self.settle(*deliveries, action="reject", **fields)

    def requeue(self, *deliveries: Delivery, **fields: Any) -> None:
        """Return deliveries to their queue."""
        self.settle(*deliveries, action="requeue", **fields)

    def flush(self) -> None:
        """Wait until every settlement is certain."""
        self.session.flush(self.consumer, timeout=self.patience)

    def cancel(self) -> None:
        """End every subscription."""
        self.session.cancel(self.consumer)
        self.held = []


def properties_of(delivery: Delivery) -> Properties:
    """Decode a delivery's properties."""
    return delivery.reader.properties(delivery.raw)
