"""The key-value table: small values with expiry and compare-and-set.

A key whose ttl is over is absent for every reader at once; its row goes with a later write, or when
the keeper collects. Versions are drawn as those of the topology table are, by
`Language.next_version`, so that one is never given twice, not even after a removal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_core.errors import UsageError
from queue_core.transport import KeyEntry, KeyWrite
from queue_core.transports.sql.database import Database, Steps, Undo
from queue_core.transports.sql.statements import Statements

_PURGE_EVERY = 64


def next_version(steps: Steps, statements: Statements) -> int:
    """Draw a version that was never given before, in the open write."""
    *before, last = statements.next_version
    for statement in before:
        steps.run(statement)
    return int(steps.row(last)[0])


class Keys:
    """`queue_core.transport.KeyValue` on a database."""

    __slots__ = ("_database", "_statements", "_writes")

    def __init__(self, database: Database) -> None:
        """Share the handle's database."""
        self._database = database
        self._statements = database.statements
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
            self._purge_now_and_then(steps)
            new = self._put(steps, KeyWrite(key, value, ttl, version))
            if new is None:
                raise Undo
            return new

        return self._database.write(work)

    def set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """See `KeyValue.key_set_many`: one transaction, in the order of keys, which all keep to."""
        ordered = sorted(range(len(writes)), key=lambda index: writes[index].key)

        def work(steps: Steps) -> list[int | None]:
            self._purge_now_and_then(steps)
            answers: list[int | None] = [None] * len(writes)
            for index in ordered:
                answers[index] = self._put(steps, writes[index])
            return answers

        return self._database.write(work) if writes else []

    def _put(self, steps: Steps, write: KeyWrite) -> int | None:
        """Set a key in the open write; return its version, None if the condition does not hold."""
        values = self._values(steps, write.key, write.value, write.ttl)
        new = int(values["version"])
        if write.version is None:
            steps.run(self._statements.set_key, **values)
            return new
        if write.version == 0 and steps.run(self._statements.add_key, **values):
            return new
        row = steps.row(self._statements.hold_key, name=write.key)
        if (row[1] if row is not None and row[2] else 0) != write.version:
            return None
        if row is not None:
            steps.run(self._statements.set_key, **values)
            return new
        return new if steps.run(self._statements.add_key, **values) else None

    def increment(self, key: str, amount: int, ttl: float | None) -> int:
        """See `KeyValue.key_increment`."""

        def work(steps: Steps) -> int:
            self._purge_now_and_then(steps)
            new = self._values(steps, key, b"%d" % amount, ttl)
            while True:
                row = steps.row(self._statements.hold_key, name=key)
                if row is None:
                    if steps.run(self._statements.add_key, **new):
                        return amount
                elif not row[2]:
                    steps.run(self._statements.set_key, **new)
                    return amount
                else:
                    count = _read_count(key, row[0]) + amount
                    values = {"name": key, "version": new["version"], "value": b"%d" % count}
                    steps.run(self._statements.change_key, **values)
                    return count

        return self._database.write(work)

    def delete(self, key: str, version: int | None) -> bool:
        """See `KeyValue.key_delete`."""

        def work(steps: Steps) -> bool:
            row = steps.row(self._statements.hold_key, name=key)
            if row is None or not row[2] or version not in (None, row[1]):
                raise Undo(False)
            return steps.run(self._statements.delete_key, name=key) > 0

        found = self.get(key)
        if found is None or version not in (None, found.version):
            return False
        return self._database.write(work)

    def purge(self) -> None:
        """Remove rows whose ttl is over, up to a bound."""
        self._database.write(self._purge)

    def _purge(self, steps: Steps) -> None:
        """Do it in the open write; what somebody else keeps locked is for the next time."""
        statements = self._statements
        if old := [row[0] for row in steps.rows(statements.hold_expired_keys)]:
            steps.run(statements.delete_keys, names=steps.names(old))

    def _find(self, steps: Steps, key: str) -> KeyEntry | None:
        row = steps.row(self._statements.key, name=key)
        return None if row is None else KeyEntry(row[0], row[1])

    def _values(self, steps: Steps, key: str, value: bytes, ttl: float | None) -> dict[str, Any]:
        version = next_version(steps, self._statements)
        expires_at = _expiry(steps.now, ttl)
        return {"name": key, "version": version, "expires_at": expires_at, "value": value}

    def _purge_now_and_then(self, steps: Steps) -> None:
        self._writes += 1
        expired = self._statements.has_expired_keys
        if self._writes % _PURGE_EVERY == 0 and steps.row(expired) is not None:
            self._purge(steps)


def _expiry(now: int, ttl: float | None) -> int | None:
    return None if ttl is None else now + int(ttl * 1_000_000)


def _read_count(key: str, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(
            f"the key {key!r} holds no number; key_increment needs one, or an absent key"
        ) from None
