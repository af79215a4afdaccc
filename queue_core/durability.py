"""How well a broker keeps what it has confirmed: what was detected, and what to do about it.

"Confirmed" means what the broker behind a connection can promise, and that depends on how it was
set up: the same Redis forgets everything when it ends, or keeps each message through a power cut.
A transport looks at the broker's settings (see `queue_core.transport.Detector`) and says what it
found as a `Durability`. Nothing is guessed: what may not be asked is ``UNKNOWN``, and says so.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec
from msgspec.structs import replace

__all__ = ["Durability", "Survives", "Weakness"]


class Survives(IntEnum):
    """What a confirmed message survives, and all that is smaller with it.

    ``connection.durability.survives >= Survives.SERVER_CRASH`` asks for enough; ``UNKNOWN`` is
    smaller than everything.
    """

    UNKNOWN = 0
    """Nobody could tell; the sentence says why."""
    NOTHING = 1
    """It is lost when this process ends."""
    CLIENTS = 2
    """It outlives every client, and is lost when the server ends (without one: the machine)."""
    RESTART = 3
    """An orderly restart keeps it; a crash of the server loses what came since the last save."""
    SERVER_CRASH = 4
    """A killed server keeps it; a power cut may take what was confirmed in the last moments."""
    POWER_CUT = 5
    """It is on disk before it is confirmed."""
    DISK_LOSS = 6
    """It is on the disks of two machines or more before it is confirmed."""

    def __str__(self) -> str:
        """Return the name in words, such as ``server crash``."""
        return self.name.lower().replace("_", " ")


class Weakness(msgspec.Struct, frozen=True):
    """One thing that makes the promise weaker than it could be.

    Attributes:
        problem: what can be lost, and when.
        remedy: which setting to change, and to what.
    """

    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.problem}; {self.remedy}"


class Durability(msgspec.Struct, frozen=True):
    """What was detected about a broker's promise.

    Attributes:
        survives: what a confirmed message survives at least.
        found: one sentence for people: the settings that say so, or why nobody can tell.
        broker: name and version, such as ``Redis 7.0.15``; empty if it did not tell.
        warnings: what weakens the promise, each with its remedy. Empty for ``memory://``, of which
            nobody expects more.
        notes: what else one should know about this broker.
    """

    survives: Survives = Survives.UNKNOWN
    found: str = "this transport does not tell how durable its broker is"
    broker: str = ""
    warnings: tuple[Weakness, ...] = ()
    notes: tuple[str, ...] = ()

    def weakened(self, most: Survives, problem: str, remedy: str) -> Durability:
        """Return a copy that survives at most ``most``, and warns why."""
        return replace(
            self,
            survives=min(self.survives, most),
            warnings=(*self.warnings, Weakness(problem, remedy)),
        )

    def __str__(self) -> str:
        """Return all of it, one thing per line."""
        head = f"{self.broker}: " if self.broker else ""
        lines = [f"survives: {self.survives} ({head}{self.found})"]
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)
