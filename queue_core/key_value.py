"""The broker's key-value store as programs use it: it survives a lost connection.

Reading and plain setting are repeated when the connection breaks. What would be wrong if it
happened twice (a condition, a count, a deletion) is tried once: it raises ConnectionLost if nobody
can tell whether it happened, and the caller looks. A key or value that some broker cannot have is
refused here, with the same words on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from queue_core.arguments import check_count, check_kind
from queue_core.errors import ConfigError
from queue_core.recovery import Recovery
from queue_core.transport import KeyEntry, KeyValue, KeyWrite

MAX_KEY: Final = 400
"""Characters."""
MAX_TTL: Final = 2**31
"""Seconds."""


class RecoveredKeyValue:
    """`KeyValue` on whatever session is current. See that protocol for the methods. Thread-safe."""

    def __init__(self, recovery: Recovery, timeout: float) -> None:
        """Connect nothing yet. Each call may take ``timeout`` seconds, reconnecting included."""
        self._recovery = recovery
        self._timeout = timeout

    def key_get(self, key: str) -> KeyEntry | None:
        """Read; repeated."""
        _check_key(key)
        return self._recovery.call(
            lambda session, left: session.key_value(timeout=left).key_get(key),
            timeout=self._timeout,
        )

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """Set; repeated unless there is a condition."""
        _check_write(key, value, ttl, version)
        if version is not None:
            return self.connect().key_set(key, value, ttl=ttl, version=version)
        return self._recovery.call(
            lambda session, left: session.key_value(timeout=left).key_set(key, value, ttl=ttl),
            timeout=self._timeout,
        )

    def key_set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """Set several; repeated unless one of them has a condition."""
        check_kind("what is set", writes, Sequence, "a list of KeyWrite(...)")
        for write in writes:
            check_kind("each of them", write, KeyWrite, "a KeyWrite(...)")
            _check_write(write.key, write.value, write.ttl, write.version)
        if any(write.version is not None for write in writes):
            return self.connect().key_set_many(writes)
        return self._recovery.call(
            lambda session, left: session.key_value(timeout=left).key_set_many(writes),
            timeout=self._timeout,
        )

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """Count; not repeated."""
        _check_key(key, ttl)
        check_kind("amount", amount, int, "a whole number")
        return self.connect().key_increment(key, amount, ttl=ttl)

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """Delete; not repeated."""
        _check_key(key)
        check_count("version", version, 0)
        return self.connect().key_delete(key, version=version)

    def connect(self) -> KeyValue:
        """Connect as long as it may take; what is done with the result is not repeated."""
        return self._recovery.call(
            lambda session, left: session.key_value(timeout=left), timeout=self._timeout
        )


def _check_key(key: str, ttl: float | None = None) -> None:
    """Refuse what some broker cannot have, in place of its driver."""
    check_kind("a key", key, str, "a string")
    if not 0 < len(key) <= MAX_KEY or "\0" in key or not _is_unicode(key):
        raise ConfigError(f"a key has 1 to {MAX_KEY} characters, none of them NUL, not {key!r:.60}")
    if ttl is not None and not (isinstance(ttl, int | float) and ttl <= MAX_TTL):
        raise ConfigError(
            f"the ttl of a key is at most {MAX_TTL} seconds (68 years), not {ttl!r:.60}"
        )


def _check_write(key: str, value: bytes, ttl: float | None, version: int | None) -> None:
    _check_key(key, ttl)
    check_kind("the value of a key", value, bytes, "bytes")
    check_count("version", version, 0)


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
