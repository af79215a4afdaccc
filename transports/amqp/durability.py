"""What a RabbitMQ keeps of what it confirmed: as far as AMQP tells, which is queue by queue. Pure.

AMQP has no question for it. The server introduces itself by name and version when a connection is
made. A queue's type is in the text of the refusal when somebody declares the queue with another
type: so it is declared, where it is known to exist, with a type that does not exist (see
`administration`); refusals about other arguments tell what to say the next time. How many nodes
there are is not visible at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from queue_core.durability import Durability, Survives

Kind = Literal["quorum", "classic", "stream", "transient", "exclusive", "unknown"]

NO_TYPE: Final = "queue-core-asks"
"""The value of ``x-queue-type`` that no queue has."""

_REFUSED: Final = re.compile(
    r"inequivalent arg '(?P<what>[\w-]+)' for queue .* but current is "
    r"(?:the value )?'?(?P<value>.*?)'?(?: of type '(?P<type>\w+)')?\s*$",
    re.DOTALL,
)
_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {"quorum": "quorum", "stream": "stream", "classic": "classic", "none": "classic"}
)
_READERS: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {"longstr": str, "bool": "true".__eq__, "signedint": int, "long": int}
)
_NOTES: Final = (
    "RabbitMQ takes back what is unacked for longer than its consumer_timeout, 30 minutes unless "
    "it was set: the message is delivered again; split longer work, or raise consumer_timeout in "
    "rabbitmq.conf",
    "the number of nodes is not visible over AMQP: ask rabbitmq-diagnostics cluster_status",
)


def of_broker(properties: Mapping[str, Any]) -> Durability:
    """Return what is known without a queue; ``properties`` are those that the server sent."""
    return Durability(
        found="each queue makes its own promise, so ask for one by its name; quorum queues, which "
        "durable named ones are here unless asked otherwise, keep messages through a power cut",
        broker=f"{properties.get('product', 'AMQP')} {properties.get('version', '')}".strip(),
        notes=_NOTES,
    )


def of_queue(kind: Kind, queue: str) -> Durability:
    """Return what this kind of queue keeps."""
    if kind == "quorum":
        return Durability(
            Survives.POWER_CUT,
            f"{queue!r} is a quorum queue: on the disks of most of its nodes before it is "
            "confirmed, be it one node or five",
        )
    if kind == "exclusive":
        return Durability(
            Survives.NOTHING, f"{queue!r} is an exclusive queue, which ends with its connection"
        )
    if kind == "transient":
        return Durability(Survives.CLIENTS, f"{queue!r} is not durable").weakened(
            Survives.CLIENTS,
            f"when its node ends, queue {queue!r} and its messages are lost",
            "delete it and declare it with durable=True",
        )
    if kind == "unknown":
        return Durability(found=f"the broker does not tell of what type queue {queue!r} is")
    return Durability(Survives.SERVER_CRASH, f"{queue!r} is a durable {kind} queue").weakened(
        Survives.SERVER_CRASH,
        "a power cut may take what was confirmed in the last moments, since not every version of "
        f"RabbitMQ lets a {kind} queue such as {queue!r} wait for the disk",
        "use a queue with queue_type='quorum'",
    )


def kind_told_by(refusal: str, learned: dict[str, Any]) -> Kind | None:
    """Return the kind that the refusal of a durable queue with the type `NO_TYPE` tells.

    None if it is about another argument, whose value is added to ``learned``: ask again with it.
    """
    match = _REFUSED.search(refusal)
    if match is None:
        return "unknown"
    what, value, kind = match["what"], match["value"], match["type"]
    if what == "durable":
        return "transient"
    if what == "auto_delete":
        return "classic"  # no other type can be that
    if what == "x-queue-type":
        return _KINDS.get(value, "unknown")
    if what in learned or kind not in _READERS:
        return "unknown"
    learned[what] = _READERS[kind](value)
    return None
