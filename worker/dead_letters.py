"""Copies of messages, for the dead letters or for their queue again.

They are made as the message came: what is too much for us to send may have come from others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from queue_core import Properties, Publication, fresh_id

ERROR_HEADER: Final = "qc-error"
QUEUE_HEADER: Final = "qc-queue"
_MAX_REASON: Final = 1_000
_MAX_HEADERS: Final = 64_000
_MAX_HEADER: Final = 1_000
"""How much of headers, and of one of them if those are more, a dead letter has, in characters."""


def dead_letter(
    properties: Properties, body: bytes, exchange: str, key: str, *, reason: str, queue: str
) -> Publication:
    """Return the copy that goes to the dead letters, without its large headers if it has any."""
    known = msgspec.structs.replace(properties, headers=_without_large(properties.headers))
    return copied(
        known, body, exchange, key, {ERROR_HEADER: reason[:_MAX_REASON], QUEUE_HEADER: queue}
    )


def copied(
    properties: Properties, body: bytes, exchange: str, key: str, more: Mapping[str, object]
) -> Publication:
    """Return the message again, with ``more`` headers."""
    known = msgspec.structs.replace(
        properties,
        content_type=properties.content_type or "application/octet-stream",
        headers={**properties.headers, **more},
        expiration=None,
        user_id=None,
        delivery_mode=2,
    )
    return Publication(exchange, key, body, known, fresh_id())


def _without_large(headers: Mapping[str, Any]) -> dict[str, Any]:
    """So few headers that a broker has room for more."""
    sizes = {name: len(repr(value)) for name, value in headers.items()}
    whole = sum(sizes.values()) <= _MAX_HEADERS
    return {name: value for name, value in headers.items() if whole or sizes[name] <= _MAX_HEADER}
