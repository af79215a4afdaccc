"""What travels with a message that waits in the ladder or comes again, and how it is taken off.

A *copy* is a message on its way through our own exchanges: delayed, or requeued in a way that the
broker has no command for. What it must not lose on the way travels in headers that begin with
``qc-``; whoever receives it here sees the message as it was published, with nothing of ours:

- ``qc-exchange``: the exchange that it was published to. Every copy has it.
- ``qc-d<k>``, ``qc-to-queue``, ``qc-to-relay``: the way, see ``ladder``
- ``qc-expiration`` and ``qc-deadline``: its ttl, and when that ends, in milliseconds since 1970.
  The ttl itself would end the wait in the first level.
- ``qc-deliveries``: how many deliveries failed so far
- ``qc-death``: its history of deaths (``x-death`` and its like). With that in place the broker
  would take the second round for a cycle, and drop the message [ran].

A dead letter that waited earlier in its life still carries these headers, and rows about the
ladder's queues in its history: both are taken off as well, but neither ttl nor failures follow a
message into its grave.

The rules: pure; headers that somebody else forged or damaged never raise, and count as absent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from queue_core.message import (
    Delivery,
    Headers,
    Properties,
    Publication,
    deaths,
    read_count,
)
from queue_core.transports.amqp.ladder import (
    PREFIX,
    TO_QUEUE,
    TO_RELAY,
    Target,
    climbed,
    entry,
    level_header,
    levels,
)
from queue_core.transports.amqp.properties import milliseconds

EXCHANGE: Final = "qc-exchange"
EXPIRATION: Final = "qc-expiration"
DEADLINE: Final = "qc-deadline"
DELIVERIES: Final = "qc-deliveries"
DEATH: Final = "qc-death"

MARK: Final = bytes((len(EXCHANGE),)) + EXCHANGE.encode() + b"S"
"""Property bytes without this are no copy's."""

_OURS: Final = frozenset((EXCHANGE, EXPIRATION, DEADLINE, DELIVERIES, DEATH, TO_QUEUE, TO_RELAY))
_LEVEL: Final = re.compile(r"qc-d[0-9]{1,2}")
_RETURNS: Final = "x-delivery-count"
_COUNTERS: Final = frozenset((_RETURNS, "x-acquired-count"))
_FACTS: Final = ("queue", "reason", "exchange")


class Note(NamedTuple):
    """What a copy carried that its receiver does not see.

    ``deliveries``: how many failed before this one. ``deadline``: when its ttl ends, in
    milliseconds since 1970, or None. ``returns``: how often a quorum queue took it back.
    """

    deliveries: int = 0
    deadline: int | None = None
    returns: int = 0


NOTHING: Final = Note()


def delayed(publication: Publication, wait: int, target: Target, now: int) -> Publication:
    """Return what to send so that ``publication`` reaches ``target`` in ``wait`` milliseconds.

    ``now`` is in milliseconds since 1970.
    """
    properties = publication.properties
    note = Note(0, _deadline(properties, now))
    return replace(
        publication,
        exchange=entry(wait),
        properties=_carrying(properties, publication.exchange, wait, target, note),
        mandatory=True,
        delay=0.0,
    )


def returned(
    delivery: Delivery,
    properties: Properties,
    note: Note,
    *,
    wait: int,
    target: Target,
    now: int,
    counted: bool,
    user: str,
    id: str,  # noqa: A002 - as in Publication
) -> Publication:
    """Return the copy that takes the place of ``delivery`` in ``wait`` milliseconds.

    A ttl whose end is not known begins anew. ``user`` is who we are: the broker takes the property
    ``user_id`` from its owner only, so another one's is left out.
    """
    if properties.user_id != user:
        properties = replace(properties, user_id=None)
    deadline = note.deadline if note.deadline is not None else _deadline(properties, now)
    note = Note(note.deliveries + counted, deadline)
    carrying = _carrying(properties, delivery.exchange, wait, target, note)
    return Publication(entry(wait), delivery.routing_key, delivery.body, carrying, id)


def _carrying(
    properties: Properties, exchange: str, wait: int, target: Target, note: Note
) -> Properties:
    headers, history = _split(properties.headers)
    name, value = target.header
    headers |= {level_header(level): True for level in levels(wait)}
    headers |= {name: value, EXCHANGE: exchange}
    if history:
        headers[DEATH] = history
    if properties.expiration is not None:
        headers[EXPIRATION] = milliseconds(properties.expiration)
    if note.deadline is not None:
        headers[DEADLINE] = note.deadline
    if note.deliveries:
        headers[DELIVERIES] = note.deliveries
    return replace(properties, headers=headers, expiration=None)


def _deadline(properties: Properties, now: int) -> int | None:
    return None if properties.expiration is None else now + milliseconds(properties.expiration)


def _split(headers: Headers) -> tuple[Headers, Headers]:
    """Return the user's headers, and the history; what is ours or the broker's count is in none."""
    kept: Headers = {}
    history: Headers = {}
    for name, value in headers.items():
        if _is_history(name):
            history[name] = value
        elif not _is_ours(name) and name not in _COUNTERS:
            kept[name] = value
    return kept, history


def _is_ours(name: str) -> bool:
    return name in _OURS or _LEVEL.fullmatch(name) is not None


def _is_history(name: str) -> bool:
    return name == "x-death" or name.startswith(("x-first-death-", "x-last-death-"))


def restored(properties: Properties, exchange: str) -> tuple[Properties, str, Note]:
    """Return properties and exchange of a received copy as they were published, and its note.

    ``exchange`` is the one that it was delivered from.
    """
    carried = properties.headers
    origin = carried.get(EXCHANGE)
    origin = origin if isinstance(origin, str) else ""
    headers, history = _split(carried)
    earlier = carried.get(DEATH)
    history = _rewritten(history, earlier if isinstance(earlier, dict) else {}, origin)
    headers |= history
    if not climbed(exchange):
        return replace(properties, headers=headers), exchange, NOTHING
    expiration = read_count(carried.get(EXPIRATION))
    failed = read_count(carried.get(DELIVERIES)) or 0
    note = Note(failed, read_count(carried.get(DEADLINE)), returns(properties))
    seconds = None if expiration is None else expiration / 1000
    return replace(properties, headers=headers, expiration=seconds), origin, note


def _rewritten(history: Headers, earlier: Headers, origin: str) -> Headers:
    """Return one history of two, without the ladder's rows; ``earlier`` is the older one."""
    rows = [
        {**row, "exchange": origin} if climbed(str(row.get("exchange"))) else row
        for row in deaths(history)
        if not str(row.get("queue")).startswith(PREFIX)
    ]
    known = {(row.get("queue"), row.get("reason")): row for row in rows}
    for row in deaths(earlier):
        newer = known.get((row.get("queue"), row.get("reason")))
        if newer is None:
            rows.append(row)
        else:
            count = (read_count(newer.get("count")) or 0) + (read_count(row.get("count")) or 0)
            rows[rows.index(newer)] = {**newer, "count": count}
    if not rows:
        return dict(earlier)
    found: Headers = {"x-death": rows}
    for which, row in (("first", rows[-1]), ("last", rows[0])):
        names = [f"x-{which}-death-{fact}" for fact in _FACTS]
        told, other = (earlier, history) if which == "first" else (history, earlier)
        told = told if names[0] in told else other
        if str(told.get(names[0], "")).startswith(PREFIX):
            told = {name: row.get(fact) for name, fact in zip(names, _FACTS, strict=True)}
        found |= {name: told[name] for name in names if told.get(name) is not None}
        if climbed(str(found.get(names[2]))):
            found[names[2]] = origin
    return found


def returns(properties: Properties) -> int:
    """Return how often a quorum queue took this very copy back, as far as it says."""
    return read_count(properties.headers.get(_RETURNS)) or 0


def buried(
    delivery: Delivery,
    properties: Properties,
    *,
    exchange: str,
    key: str | None,
    reason: str,
    user: str,
    now: float,
    id: str,  # noqa: A002 - as in Publication
) -> Publication:
    """Return a dead letter for ``exchange``, as the broker itself would write it.

    ``key`` None keeps the routing keys; ``now`` is in seconds since 1970.
    """
    headers, history = _split(properties.headers)
    rows = deaths(history)
    same = (delivery.queue, reason)
    count = sum(
        read_count(row.get("count")) or 0
        for row in rows
        if (row.get("queue"), row.get("reason")) == same
    )
    death: dict[str, Any] = {
        "queue": delivery.queue,
        "reason": reason,
        "count": count + 1,
        "exchange": delivery.exchange,
        "routing-keys": [delivery.routing_key],
        "time": datetime.fromtimestamp(int(now), UTC),
    }
    if properties.expiration is not None:
        death["original-expiration"] = str(milliseconds(properties.expiration))
    others = [row for row in rows if (row.get("queue"), row.get("reason")) != same]
    for fact in _FACTS:
        history.setdefault(f"x-first-death-{fact}", death[fact])
    headers |= {**history, "x-death": [death, *others]}
    if key is not None:
        headers.pop("CC", None)
    kept = properties.user_id if properties.user_id == user else None
    return Publication(
        exchange,
        delivery.routing_key if key is None else key,
        delivery.body,
        replace(properties, headers=headers, expiration=None, user_id=kept),
        id,
        mandatory=True,
    )
