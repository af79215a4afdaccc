"""What becomes of a dead message: pure rules after RabbitMQ's.

A message dies by rejection (``rejected`` or the reason that the client gave), by its ttl
(``expired``), by its queue's length (``maxlen``) or by too many deliveries (``delivery_limit``).
Its copy goes to the queue's dead-letter exchange with its history in the headers:

- ``x-death``: a list of tables, the newest first, one for each pair of queue and reason: ``queue``,
  ``reason``, ``count``, ``exchange``, ``routing-keys``, ``time``, and ``original-expiration``
  (milliseconds, as a string) if the message had a ttl of its own.
- ``x-first-death-queue``, ``x-first-death-reason``, ``x-first-death-exchange``: where it began.

The copy does not expire again by the message's own ttl. Its id follows from the dead claim, so that
a repeated put stores it once. A copy does not enter a queue in which the message died before when
since then it died only by itself, without a client rejecting it: that would go round for ever.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from queue_core.emulation.stored import Stored
from queue_core.message import Headers, Properties, Token, deaths, read_count

__all__ = ["dead_id", "dead_properties", "is_cycle"]

BY_ITSELF: Final = frozenset({"expired", "maxlen", "delivery_limit"})
"""Reasons without a client's decision."""


def dead_id(token: Token, queue: str, raw: bytes) -> str:
    """Return the id of the copy: the same for the same claim, another one for each other."""
    name = f"{token!r}\0{queue}\0".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name + raw, digest_size=16).hexdigest()


def dead_properties(stored: Stored, queue: str, reason: str, now: float) -> Properties:
    """Return the properties of the copy of a message that died in ``queue``.

    ``now`` is in seconds since the epoch, only for the header's ``time``.
    """
    properties = stored.properties
    headers = dict(properties.headers)
    rows = deaths(headers)
    death = next((d for d in rows if _is(d, queue, reason)), None)
    if death is None:
        death = {"queue": queue, "reason": reason, "count": 0}
    else:
        rows.remove(death)
        death = dict(death)
    death["count"] = (read_count(death.get("count")) or 0) + 1
    death["exchange"] = stored.exchange
    death["routing-keys"] = [stored.routing_key]
    death["time"] = datetime.fromtimestamp(int(now), UTC)
    if properties.expiration is not None and math.isfinite(properties.expiration):
        death["original-expiration"] = str(round(properties.expiration * 1000))
    headers["x-death"] = [death, *rows]
    headers.setdefault("x-first-death-queue", queue)
    headers.setdefault("x-first-death-reason", reason)
    headers.setdefault("x-first-death-exchange", stored.exchange)
    return msgspec.structs.replace(properties, headers=headers, expiration=None)


def is_cycle(headers: Headers, target: str) -> bool:
    """Whether the message, with the headers of its copy, died in ``target`` before.

    Only deaths by itself since then make a cycle.
    """
    for death in deaths(headers):
        if death.get("reason") not in BY_ITSELF:
            return False
        if death.get("queue") == target:
            return True
    return False


def _is(death: Mapping[str, Any], queue: str, reason: str) -> bool:
    return death.get("queue") == queue and death.get("reason") == reason
