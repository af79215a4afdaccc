"""What a contestant must be able to do on a broker, and the message that everybody carries.

A contestant is a module with ``open_adapter(broker, url)``. It raises `NotOffered` where it has
nothing for a broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

TEXT = "x" * 160


class NotOffered(Exception):
    """This contestant does not do that on this broker."""


def payload(number: int) -> dict[str, Any]:
    """A message of 200 bytes of JSON."""
    return {"id": number, "kind": "order", "text": TEXT}


class Peer(Protocol):
    """One side of a ping-pong."""

    def send(self, body: dict[str, Any]) -> None:
        """Publish to the other side, as safely as `Adapter.publish_each`."""

    def take(self) -> dict[str, Any]:
        """Wait for the next message and ack it."""


class Subscription(Protocol):
    """A consumer of one queue.

    Attributes:
        latest: the monotonic time when it last got messages.
    """

    latest: float

    def take(self, count: int, seconds: float) -> int:
        """Take and ack each of ``count`` messages, or what there is within ``seconds``.

        Returns how many. The acks are sent when it returns.
        """

    def close(self) -> None:
        """Give back what was not taken."""


class Nodes(Protocol):
    """Nodes of a mailbox that answer pings on threads of their own."""

    def close(self) -> None:
        """Let them leave."""


class Caller(Protocol):
    """Who asks the nodes. One thread."""

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        """Ping these nodes, or all, and wait for their answers.

        Args:
            names: of the nodes; None is all.
            timeout: seconds in all.
            most: how many nodes there are, for those who cannot know.

        Returns the monotonic time of each node's answer.
        """

    def tell(self, name: str) -> None:
        """Send one node a ping that nobody waits for."""

    def close(self) -> None:
        """Let go of the answers' queue."""


class Adapter(Protocol):
    """One contestant on one broker. Bodies are encoded and decoded by each call that is timed."""

    facts: dict[str, str]
    """For the report: how it acks (``ack``), what kind of queue it uses (``queue``), how it
    publishes (``publish``), versions (``versions``)."""

    def clear(self, *queues: str) -> None:
        """Let these queues exist and be empty."""

    def drop(self, *queues: str) -> None:
        """Remove the queues and whatever was made for them."""

    def publish_each(self, queue: str, count: int) -> None:
        """Publish one by one, each certain before the next."""

    def publish_many(self, queue: str, count: int) -> None:
        """Publish as fast as it can; all are certain (see the facts) when it returns."""

    def subscribe(self, queue: str, prefetch: int) -> Subscription:
        """Begin to consume."""

    def peer(self, take_from: str, send_to: str) -> Peer:
        """Prepare one side of a ping-pong."""

    def nodes(self, names: Sequence[str]) -> Nodes:
        """Start nodes that answer pings."""

    def caller(self) -> Caller:
        """Prepare to ask nodes."""

    def close(self) -> None:
        """Let go of everything."""
