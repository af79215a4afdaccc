"""What the bare drivers of databases have in common: a peer whose messages are rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Protocol


class Claims(Protocol):
    """A subscription of one of them."""

    def claim(self, room: int, end: float) -> list[Any]:
        """Claim some as soon as there are some; what was claimed before is acked."""


class TablePeer:
    """Inserts one message, or claims one, which is acked with the next claim."""

    def __init__(self, insert: Callable[[str, str], object], claims: Claims, send_to: str) -> None:
        self._insert = insert
        self._claims = claims
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        self._insert(self._send_to, json.dumps(body))

    def take(self) -> dict[str, Any]:
        (body,) = self._claims.claim(1, time.monotonic() + 30.0)
        found: dict[str, Any] = body
        return found
