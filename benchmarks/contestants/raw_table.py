"""What the bare drivers of databases have in common: messages are rows, claimed in batches."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

Step = Callable[[int, list[int]], Sequence[tuple[int, Any]]]
"""Deletes rows by their numbers and takes so many others, in one step; their numbers and bodies."""

Wait = Callable[[float], bool]
"""Waits until there may be more, at most until that moment; False if it is over."""


class TableSubscription:
    """Claims from one queue; what was claimed is acked with the next claim."""

    def __init__(
        self, step: Step, wait: Wait, prefetch: int, close: Callable[[], object] = lambda: None
    ) -> None:
        self._step = step
        self._wait = wait
        self._prefetch = prefetch
        self._close = close
        self._handled: list[int] = []
        self.latest = time.monotonic()

    def take(self, count: int, seconds: float) -> int:
        taken = 0
        end = time.monotonic() + seconds
        while taken < count and (bodies := self.claim(count - taken, end)):
            taken += len(bodies)
            self.latest = time.monotonic()
        self._ack()
        return taken

    def claim(self, room: int, end: float) -> list[Any]:
        """Claim some as soon as there are some; what was claimed before is acked."""
        while True:
            rows = self._step(min(self._prefetch, room), self._handled)
            self._handled = [number for number, _ in rows]
            if rows or not self._wait(end):
                return [json.loads(body) for _, body in rows]

    def _ack(self) -> None:
        if self._handled:
            self._step(0, self._handled)
            self._handled = []

    def close(self) -> None:
        self._ack()
        self._close()


class TablePeer:
    """Inserts one message, or claims one, which is acked with the next claim."""

    def __init__(
        self, insert: Callable[[str, str], object], claims: TableSubscription, send_to: str
    ) -> None:
        self._insert = insert
        self._claims = claims
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        self._insert(self._send_to, json.dumps(body))

    def take(self) -> dict[str, Any]:
        (body,) = self._claims.claim(1, time.monotonic() + 30.0)
        found: dict[str, Any] = body
        return found
