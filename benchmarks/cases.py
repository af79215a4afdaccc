"""What a question asks: a case is one line of the table for each broker and contestant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QUORUM = "amqp-quorum"
"""RabbitMQ again, with its other type of queue: for rates and latency only."""

BROKERS = ("memory", "sqlite", "redis", "postgresql", "mariadb", "amqp", QUORUM)
PLAIN = tuple(name for name in BROKERS if name != QUORUM)
SHARED = tuple(name for name in PLAIN if name != "memory")
"""Those that two processes can use together."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        question: the module in `benchmarks.questions`.
        name: the line's name, unique.
        unit: of the value. Ratios of ``/s`` are better when high, of all others when low.
        given: what the question's two sides need to know.
        first: how many operations the first sample has. The others have as many as fit into the
            time of a sample. 0: the question knows by itself.
        most: and at most this many.
        brokers: where it can be asked.
        contestants: who is asked.
        rounds: how many samples at most, or 0 for the run's usual number.
        thorough: only asked by name, or in a thorough run, since it takes minutes.
        longer: how many times as long as usual a sample should last.
    """

    question: str
    name: str
    unit: str
    given: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    most: int = 0
    brokers: tuple[str, ...] = BROKERS
    contestants: tuple[str, ...] = ("ours", "raw", "kombu")
    rounds: int = 0
    thorough: bool = False
    longer: float = 1.0
