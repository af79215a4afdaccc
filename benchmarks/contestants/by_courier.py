"""A mailbox of two couriers: one queue for commands, one for answers, a thread that answers.

What the bare drivers of databases do, whose couriers can do no better for a message that need not
be kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.lane import Lane
from benchmarks.names import named

COMMANDS, ANSWERS = named("commands"), named("answers")


class Nodes:
    """One node; there are no more. The thread opens a lane of its own."""

    def __init__(self, lane: Lane, open_lane: Callable[[], Lane], names: Sequence[str]) -> None:
        (self._name,) = names
        self._lane = lane
        self._open = open_lane
        lane.clear(COMMANDS, ANSWERS)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        lane = self._open()
        courier = lane.courier(COMMANDS, ANSWERS)
        while (command := courier.take())["method"]:
            courier.send({"ticket": command["ticket"], self._name: {"ok": "pong"}})
        lane.close()

    def close(self) -> None:
        self._lane.courier(ANSWERS, COMMANDS).send({"method": ""})
        self._thread.join(10.0)
        self._lane.drop(COMMANDS, ANSWERS)


class Caller:
    """Asks that node."""

    def __init__(self, lane: Lane) -> None:
        self._courier = lane.courier(ANSWERS, COMMANDS)
        self._asked = 0

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        self._asked += 1
        self._courier.send(command(self._asked, names))
        answer = self._courier.take()
        if answer.pop("ticket") != self._asked:
            raise RuntimeError("an answer to another command came")
        return dict.fromkeys(answer, time.monotonic())

    def tell(self, name: str) -> None:
        self._courier.send(command(0, [name]))

    def close(self) -> None:
        """Nothing was opened."""


def command(ticket: int, names: Sequence[str] | None) -> dict[str, Any]:
    """What a bare driver sends."""
    return {"method": "ping", "arguments": {}, "destination": names, "ticket": ticket}
