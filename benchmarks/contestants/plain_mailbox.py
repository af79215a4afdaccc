"""The least that can be a mailbox: a queue for commands, one for answers, a thread that answers.

What the bare drivers of databases do, whose peers can do no better for a message that need not
be kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.adapter import Adapter
from benchmarks.names import named

COMMANDS, ANSWERS = named("commands"), named("answers")


class Nodes:
    """One node; there are no more. The thread opens an adapter of its own."""

    def __init__(
        self, adapter: Adapter, open_adapter: Callable[[], Adapter], names: Sequence[str]
    ) -> None:
        (self._name,) = names
        self._adapter = adapter
        self._open = open_adapter
        adapter.clear(COMMANDS, ANSWERS)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        adapter = self._open()
        peer = adapter.peer(COMMANDS, ANSWERS)
        while (command := peer.take())["method"]:
            peer.send({"ticket": command["ticket"], self._name: {"ok": "pong"}})
        adapter.close()

    def close(self) -> None:
        self._adapter.peer(ANSWERS, COMMANDS).send({"method": ""})
        self._thread.join(10.0)
        self._adapter.drop(COMMANDS, ANSWERS)


class Caller:
    """Asks that node."""

    def __init__(self, adapter: Adapter) -> None:
        self._peer = adapter.peer(ANSWERS, COMMANDS)
        self._asked = 0

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        self._asked += 1
        self._peer.send(command(self._asked, names))
        answer = self._peer.take()
        if answer.pop("ticket") != self._asked:
            raise RuntimeError("an answer to another command came")
        return dict.fromkeys(answer, time.monotonic())

    def tell(self, name: str) -> None:
        self._peer.send(command(0, [name]))

    def close(self) -> None:
        """Nothing was opened."""


def command(ticket: int, names: Sequence[str] | None) -> dict[str, Any]:
    """What a bare driver sends."""
    return {"method": "ping", "arguments": {}, "destination": names, "ticket": ticket}
