"""Which version of the tables a broker holds, and which one this queue_core wants.

Only brokers that are databases have tables. The transports of the others lack `Migrator`, and
asking them is `Unsupported`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from queue_core.url import BrokerURL

__all__ = ["Migrator", "Schema"]

Version = tuple[int, int]


class Schema(msgspec.Struct, frozen=True):
    """The tables of one database.

    A version is ``(major, minor)``. A higher minor only adds, so programs of one major work side by
    side whatever their minor is; a database of another major is refused.

    Attributes:
        place: the database for people, without a password.
        found: the version of its tables; None if there are none yet, or not all of them.
        wanted: the version that this queue_core makes.
    """

    place: str
    found: Version | None
    wanted: Version

    @property
    def current(self) -> bool:
        """There is nothing to add."""
        return self.found is not None and self.found >= self.wanted

    def __str__(self) -> str:
        """Version and place."""
        has = f"version {number(self.found)}" if self.found else "no tables of queue_core"
        return f"{self.place} has {has}, and this queue_core wants {number(self.wanted)}"


def number(version: Version) -> str:
    """Return a version as people write it."""
    return f"{version[0]}.{version[1]}"


@runtime_checkable
class Migrator(Protocol):
    """Optional, for a `queue_core.transport.Transport`: its broker has tables with a version."""

    def schema(self, url: BrokerURL, *, upgrade: bool = False, timeout: float = 10.0) -> Schema:
        """Connect, look which version the tables have, and with ``upgrade`` make them current.

        Upgrading may be done while programs work, by several at once, and again after it was
        interrupted. Blocks at most about ``timeout`` seconds, with ``upgrade`` also for as long as
        the database works on it.

        Raises:
            StoreCorrupt: the tables are of another major version, or not ours.
            ConfigError, AccessRefused, ConnectionLost, ConnectTimeout: as they say.
        """
