"""The key-value table: small values with expiry and compare-and-set.

A key whose ttl is over is absent for every reader at once; its row goes with a later write, or when
the keeper collects. Versions come from the counter that the topology table uses, so that one is
never given twice, not even after a removal.
"""

from __future__ import annotations

from queue_core.errors import UsageError
from queue_core.transport import KeyEntry
from queue_core.transports.sql.database import Database, Steps, Undo

_PURGE_EVERY = 64


def next_version(steps: Steps, database: Database) -> int:
    """Draw a version from the counter, in the open write."""
    steps.run(database.statements.next_version)
    return int(steps.row(database.statements.last_version)[0])


class Keys:
    """`queue_core.transport.KeyValue` on a database."""

    __slots__ = ("_database", "_writes")

    def __init__(self, database: Database) -> None:
        """Share the handle's database."""
        self._database = database
        self._writes = 0

    def get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        return self._database.read(lambda steps: self._find(steps, key))

    def set(self, key: str, value: bytes, ttl: float | None, version: int | None) -> int | None:
        """See `KeyValue.key_set`."""
        if version is not None:
            # A condition that does not hold needs no write lock to say so.
            found = self.get(key)
            if (found.version if found is not None else 0) != version:
                return None

        def work(steps: Steps) -> int | None:
            if version is not None:
                found = self._find(steps, key)
                if (found.version if found is not None else 0) != version:
                    raise Undo
            return self._write(steps, key, value, _expiry(steps.now, ttl))

        return self._database.write(work)

    def increment(self, key: str, amount: int, ttl: float | None) -> int:
        """See `KeyValue.key_increment`."""

        def work(steps: Steps) -> int:
            row = steps.row(self._database.statements.key, name=key)
            if row is None:
                count, expires_at = amount, _expiry(steps.now, ttl)
            else:
                count, expires_at = _read_count(key, row[0]) + amount, row[2]
            self._write(steps, key, str(count).encode(), expires_at)
            return count

        return self._database.write(work)

    def delete(self, key: str, version: int | None) -> bool:
        """See `KeyValue.key_delete`."""

        def matches(steps: Steps) -> bool:
            found = self._find(steps, key)
            return found is not None and version in (None, found.version)

        def work(steps: Steps) -> bool:
            return matches(steps) and steps.run(self._database.statements.delete_key, name=key) > 0

        return self._database.read(matches) and self._database.write(work)

    def purge(self) -> None:
        """Remove rows whose ttl is over, up to a bound."""
        statements = self._database.statements
        if self._database.read(lambda steps: steps.row(statements.has_expired_keys)) is not None:
            self._database.write(lambda steps: steps.run(statements.purge_keys))

    def _find(self, steps: Steps, key: str) -> KeyEntry | None:
        row = steps.row(self._database.statements.key, name=key)
        return None if row is None else KeyEntry(row[0], row[1])

    def _write(self, steps: Steps, key: str, value: bytes, expires_at: int | None) -> int:
        statements = self._database.statements
        self._writes += 1
        if self._writes % _PURGE_EVERY == 0 and steps.row(statements.has_expired_keys) is not None:
            steps.run(statements.purge_keys)
        version = next_version(steps, self._database)
        steps.run(statements.set_key, name=key, version=version, expires_at=expires_at, value=value)
        return version


def _expiry(now: int, ttl: float | None) -> int | None:
    return None if ttl is None else now + int(ttl * 1_000_000)


def _read_count(key: str, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(
            f"the key {key!r} holds no number; key_increment needs one, or an absent key"
        ) from None
