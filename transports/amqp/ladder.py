"""The delay ladder as data: which levels a delay takes, and what must exist on the broker for them.

Level k (0 to 31) is a queue whose messages expire after 2**k milliseconds and then go one level
down. A headers exchange stands before each level: a message with the header ``qc-d<k>`` waits
there, any other skips it, by the alternate exchange. So a delay is the sum of the levels whose bit
is set, at most eight of them, and routing key, headers and priority stay what they were. Level
queues are quorum queues that dead-letter at least once: on classic ones, or at most once, a crash
of the node loses messages [ran].

Below level 0 stands `OUT`. A message leaves it by its header ``qc-to-queue`` straight into a queue
that never refuses, or by ``qc-to-relay`` into a relay: one queue for each exchange (and each
queue that may refuse), because what cannot be delivered stays with the level that it came from,
and stops that for everybody [ran]. A relay hands over to a fanout exchange that leads to the target
and to a sink, so that something always takes the message. What no binding at `OUT` wants (its
target was deleted meanwhile) is kept in the queue `LOST`.

Pure: nothing here talks to a broker.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from queue_core.transports.amqp.properties import milliseconds

PREFIX: Final = "qc.delay."
OUT: Final = "qc.delay.out"
LOST: Final = "qc.delay.lost"
SINK: Final = "qc.delay.sink"
MARKER: Final = "qc.delay"
"""An exchange that is declared last: where it is, the ladder is complete."""

LEVELS: Final = 32
SIGNIFICANT_BITS: Final = 8
LONGEST: Final = 2**LEVELS - 1

TO_QUEUE: Final = "qc-to-queue"
TO_RELAY: Final = "qc-to-relay"


def rounded(delay: float) -> int:
    """Return ``delay`` seconds as milliseconds with 8 significant bits, rounded up.

    So a message is never early, and late by less than 0.8 % of its delay.
    """
    wanted = min(milliseconds(delay), LONGEST)
    spare = max(0, wanted.bit_length() - SIGNIFICANT_BITS)
    return min(-(-wanted >> spare) << spare, LONGEST)


def levels(wait: int) -> list[int]:
    """Return the levels that ``wait`` milliseconds take, the highest first."""
    return [level for level in reversed(range(LEVELS)) if wait >> level & 1]


def level_header(level: int) -> str:
    """Return the header that makes a message wait in ``level``."""
    return f"qc-d{level}"


def entry(wait: int) -> str:
    """Return the exchange to publish to for a wait of ``wait`` milliseconds; 0 is no wait."""
    return f"{PREFIX}{wait.bit_length() - 1}" if wait else OUT


def climbed(exchange: str) -> bool:
    """Whether a message that comes out of ``exchange`` came out of the ladder."""
    return exchange.startswith(PREFIX)


class Step(NamedTuple):
    """One request to the broker: a method of pika's channel and its arguments."""

    method: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes after its wait.

    ``relayed`` is False only for a queue that is known to take everything.
    """

    kind: Literal["queue", "exchange"]
    name: str
    relayed: bool = True

    @property
    def relay(self) -> str:
        """The name of the relay's queue and of its exchange."""
        name = f"{PREFIX}to.{self.kind}.{self.name}"
        if len(name.encode()) <= 255:
            return name
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:40]
        return f"{PREFIX}to.{self.kind}-{digest}"

    @property
    def header(self) -> tuple[str, str]:
        """The header, name and value, that leads a message here."""
        return (TO_RELAY, self.relay) if self.relayed else (TO_QUEUE, self.name)


def ladder_steps() -> list[Step]:
    """Return what to declare, in order. All of it may be there already."""
    steps = [
        _exchange(LOST, "fanout"),
        Step("queue_declare", {"queue": LOST, "durable": True}),
        _bind_queue(LOST, LOST),
        Step("queue_declare", {"queue": SINK, "durable": True, "arguments": {"x-max-length": 0}}),
        _exchange(OUT, "headers", {"alternate-exchange": LOST}),
    ]
    for level in range(LEVELS):
        name = f"{PREFIX}{level}"
        below = f"{PREFIX}{level - 1}" if level else OUT
        steps += [
            _exchange(name, "headers", {"alternate-exchange": below}),
            _waiting_queue(name, 2**level, below),
            _bind_queue(name, name, {"x-match": "all", level_header(level): True}),
        ]
    return [*steps, _exchange(MARKER, "fanout")]


def target_steps(target: Target) -> list[Step]:
    """Return what leads from the ladder to ``target``, which must exist; in order."""
    header, value = target.header
    match = {"x-match": "all", header: value}
    if not target.relayed:
        return [_bind_queue(target.name, OUT, match)]
    relay = target.relay
    bind = (
        _bind_queue(target.name, relay)
        if target.kind == "queue"
        else Step("exchange_bind", {"destination": target.name, "source": relay})
    )
    return [
        _passive(target),
        _exchange(relay, "fanout"),
        bind,
        _bind_queue(SINK, relay),
        _waiting_queue(relay, 0, relay),
        _bind_queue(relay, OUT, match),
    ]


def way_to(queue: str) -> tuple[Step, Step]:
    """Return what binds a queue, or the queue of a relay, at the ladder's end, and unbinds it."""
    header = TO_RELAY if climbed(queue) else TO_QUEUE
    bind = _bind_queue(queue, OUT, {"x-match": "all", header: queue})
    return bind, Step("queue_unbind", bind.arguments)


def _passive(target: Target) -> Step:
    if target.kind == "queue":
        return Step("queue_declare", {"queue": target.name, "passive": True})
    return Step("exchange_declare", {"exchange": target.name, "passive": True})


def _exchange(name: str, kind: str, arguments: dict[str, Any] | None = None) -> Step:
    return Step(
        "exchange_declare",
        {"exchange": name, "exchange_type": kind, "durable": True, "arguments": arguments or {}},
    )


def _waiting_queue(name: str, wait: int, then: str) -> Step:
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": wait,
        "x-dead-letter-exchange": then,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return Step("queue_declare", {"queue": name, "durable": True, "arguments": arguments})


def _bind_queue(queue: str, exchange: str, arguments: dict[str, Any] | None = None) -> Step:
    return Step(
        "queue_bind",
        {"queue": queue, "exchange": exchange, "routing_key": "", "arguments": arguments or {}},
    )
