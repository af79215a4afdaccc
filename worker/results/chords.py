"""Counting the parts of chords: the last one to end starts the body, once.

Each part's result is stored under a key of its own; one more key holds a bit for each part, set by
compare-and-set. A part that is delivered twice sets its bit twice, which changes nothing. Which
part set the last bit is kept with them, and only that one starts the body: what it learns here is
sent by the worker in one step with its ack. Only then the results are forgotten, so that a worker
that dies in between leaves it for the next delivery to do. The bits stay until they expire: a part
that comes late once more, or a deadline, must not begin anew.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from queue_core import Connection, DecodeError, KeyValue
from queue_core.worker.outcome import ChordPart
from queue_core.worker.results.key_value import require_key_value

PREFIX: Final = "qc-chord-"
MAX_PARTS: Final = 10_000_000
"""A chord that says to have more is not counted: each part has a bit."""
_TRIES: Final = 1000


_Wire = tuple[bytes, int | None, bool, int | None]


class Chords(Protocol):
    """Where parts of chords are counted. Thread-safe; blocks for round trips."""

    def succeeded(self, part: ChordPart, reply: bytes) -> list[bytes] | None:
        """Note the encoded result of a part; return all of them in order if it is the last.

        None: others are still missing, or the body's fate is decided already.

        Raises MessageError if the result is too large for the store, or the count is damaged; a
        part that is told as `failed` begins that anew.
        """

    def failed(self, part: ChordPart) -> bool:
        """Note that a part failed; return whether the body has to fail now, because of it.

        A part number ``size`` stands for the deadline of the whole.
        """

    def forget(self, part: ChordPart) -> None:
        """The body is on its way: drop the results of the parts."""


class _Count(msgspec.Struct, array_like=True):
    """What is known of one chord.

    Attributes:
        done: a bit for each part that succeeded.
        failed: which one failed first.
        over: the body was sent.
        last: which one set the last bit.
    """

    done: int = 0
    failed: int | None = None
    over: bool = False
    last: int | None = None


class KeyValueChords:
    """Counts in the store of ``connection``, which stays the caller's."""

    def __init__(self, connection: Connection, ttl: float | None) -> None:
        """What is not completed within ``ttl`` seconds is forgotten.

        Raises Unsupported if the broker has no key-value store.
        """
        require_key_value(connection)
        self._connection = connection
        self._ttl = ttl

    def succeeded(self, part: ChordPart, reply: bytes) -> list[bytes] | None:
        """Store the result, then set the bit."""
        store = self._store()
        store.key_set(_part_key(part.group, part.index), reply, ttl=self._ttl)
        count = self._change(store, part, lambda old: _with(old, part))
        if count.over or count.failed is not None or count.last != part.index:
            return None
        entries = [store.key_get(_part_key(part.group, index)) for index in range(part.size)]
        return [entry.value for entry in entries if entry is not None]

    def failed(self, part: ChordPart) -> bool:
        """Note the first part that failed."""
        count = self._change(
            self._store(),
            part,
            lambda old: old if _decided(old) else _Count(old.done, part.index),
            anew=True,
        )
        return count.failed == part.index

    def forget(self, part: ChordPart) -> None:
        """Note that it is over, and delete the keys of the parts."""
        store = self._store()
        self._change(store, part, lambda old: msgspec.structs.replace(old, over=True), anew=True)
        for index in range(part.size):
            store.key_delete(_part_key(part.group, index))

    def _change(
        self, store: KeyValue, part: ChordPart, change: _Change, *, anew: bool = False
    ) -> _Count:
        key = PREFIX + part.group
        for _ in range(_TRIES):
            entry = store.key_get(key)
            old = _Count() if entry is None else _decode(entry.value, anew=anew)
            new = change(old)
            if new == old:
                return new
            version = 0 if entry is None else entry.version
            if store.key_set(key, _encode(new), ttl=self._ttl, version=version) is not None:
                return new
        raise TimeoutError(f"the count of chord {part.group} changes too fast")

    def _store(self) -> KeyValue:
        return self._connection.key_value()


class _Change(Protocol):
    def __call__(self, old: _Count, /) -> _Count: ...


def _with(count: _Count, part: ChordPart) -> _Count:
    done = count.done | 1 << part.index
    full = done == (1 << part.size) - 1
    last = part.index if full and count.last is None else count.last
    return _Count(done, count.failed, count.over, last)


def _decided(count: _Count) -> bool:
    return count.failed is not None or count.over or count.last is not None


def _part_key(group: str, index: int) -> str:
    return f"{PREFIX}{group}-{index}"


def _encode(count: _Count) -> bytes:
    size = (count.done.bit_length() + 7) // 8
    done = count.done.to_bytes(size, "little")
    return msgspec.msgpack.encode((done, count.failed, count.over, count.last))


def _decode(value: bytes, *, anew: bool) -> _Count:
    """Read a count; one that is damaged is a new one or, unless ``anew``, a DecodeError."""
    try:
        done, *rest = msgspec.msgpack.decode(value, type=_Wire)
    except msgspec.MsgspecError as error:
        if anew:
            return _Count()
        raise DecodeError(f"the count of its parts is damaged: {error}") from error
    return _Count(int.from_bytes(done, "little"), *rest)
