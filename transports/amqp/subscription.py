"""What is known of one consumer, and of one life of it on one queue.

An `Inbox` is shared by the consumer's thread and the I/O thread under its condition. A
`Subscription` keeps the delivery tags that are unsettled, in order, and decides which acks may
leave as one frame. It counts what was written and what of it is proved (see ``proof``):
settlements, and frames.
"""

from __future__ import annotations

import threading
from collections import deque

from queue_core.message import Delivery
from queue_core.transports.amqp import frames
from queue_core.transports.amqp.channel import Channel


class Inbox:
    """One consumer: its subscriptions and what has arrived; guarded by ``condition``."""

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer
        self.condition = threading.Condition()
        self.deliveries: deque[Delivery] = deque()
        self.subscriptions: dict[str, Subscription] = {}
        self.broken: deque[Subscription] = deque()
        self.mending = False
        self.woken = False
        self.stopped = False
        self.cancelled = False

    def notify(self) -> None:
        """Let the receiver look again."""
        with self.condition:
            self.condition.notify_all()

    def drop(self, epoch: int) -> None:
        """Forget what has arrived under ``epoch``: those messages went back."""
        with self.condition:
            self.deliveries = deque(item for item in self.deliveries if item.token[0] != epoch)


class Subscription:
    """One life of a consumer on a queue. What changes of it belongs to the I/O thread."""

    def __init__(
        self, inbox: Inbox, queue: str, prefetch: int, epoch: int, *, private: bool = False
    ) -> None:
        self.inbox = inbox
        self.queue = queue
        self.prefetch = prefetch
        self.epoch = epoch
        self.private = private
        self.channel: Channel
        self.unsettled: set[int] = set()
        self._last = 0
        self._low = 1
        self.acks: list[int] = []
        self.others: dict[int, bytes] = {}
        self.settlements = 0
        self.settlements_proved = 0
        self.frames_written = 0
        self.frames_proved = 0
        self.proofs = 0
        self.ended = False
        self.cancelled = False
        self.gone = False
        self.why = ""
        self.stopped = False

    @property
    def over(self) -> bool:
        """Nothing more will be delivered."""
        return self.ended or self.cancelled

    @property
    def unproved(self) -> int:
        """How many settlements were written and are not certain."""
        return self.settlements - self.settlements_proved

    @property
    def loose(self) -> int:
        """How many frames were written and may be kept back by the broker."""
        return self.frames_written - self.frames_proved

    @property
    def tag(self) -> str:
        """The consumer tag."""
        return f"qc-{self.epoch}"

    def deliver(self, tag: int) -> None:
        """Note a delivery; its tag is greater than all before."""
        self.unsettled.add(tag)
        self._last = tag

    def written(self) -> bytes:
        """Return the frames for what was settled since the last time, and forget it."""
        number = self.channel.number
        others, self.others = self.others, {}
        parts = [others[tag] for tag in sorted(others)]
        acks, self.acks = self.acks, []
        self.settlements += len(parts) + len(acks)
        if acks:
            low = self._lowest()
            covered = [tag for tag in acks if tag < low]
            if covered:
                parts.append(frames.ack(number, max(covered), multiple=len(covered) > 1))
            if len(covered) < len(acks):
                parts += [frames.ack(number, tag) for tag in acks if tag > low]
        self.frames_written += len(parts)
        return b"".join(parts)

    def _lowest(self) -> int:
        """Return the lowest unsettled tag, or one more than the last that was delivered."""
        while self._low <= self._last and self._low not in self.unsettled:
            self._low += 1
        return self._low
