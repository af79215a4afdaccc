"""Commands that outlast their moment: nodes that start later learn of a revoke or a pause.

An entry is the command as it was sent, with its signature, and a time until which it matters.
Entries are told apart by their ticket and ordered by the logical time at which they were sent. A
`Journal` is a value, which a node keeps and tells others; a `SharedJournal` is in a key-value
store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from queue_core import Clock, KeyValue
from queue_core.mailbox.wire import Command, Malformed, parse_command

MAX_ENTRIES: Final = 10_000
"""Entries that are kept at least; older ones go now and then."""
PART: Final = 50
"""Entries that a key of a store holds."""


class Entry(msgspec.Struct, frozen=True):
    """One command worth remembering: its body, its headers, and until when (since 1970)."""

    body: dict[str, Any]
    headers: dict[str, Any]
    until: float

    @property
    def ticket(self) -> str:
        """What tells entries apart."""
        return str(self.body.get("ticket"))

    @property
    def order(self) -> tuple[int, str]:
        """Logical time, then ticket."""
        clock = self.headers.get("clock")
        return (clock if isinstance(clock, int) else 0, self.ticket)

    def command(self) -> Command:
        """Return the command. Raises Malformed."""
        return parse_command(self.body, self.headers)


def entry_of(command: Command, until: float) -> Entry:
    """Return what the journal keeps of a command.

    Celery's programs send a command that nobody answers without a ticket. It gets one that every
    node computes alike, so that such commands are told apart too.
    """
    body, headers = command.body(), command.headers()
    body.pop("reply_to", None)
    if not command.ticket:
        told = msgspec.json.encode([body, headers["clock"]], order="sorted")
        body["ticket"] = hashlib.sha256(told).hexdigest()[:32]
    return Entry(body, headers, until)


def read_entries(raw: object) -> list[Entry]:
    """Return the entries in what another node or a store holds; what is none is left out."""
    entries = []
    for item in raw if isinstance(raw, list) else []:
        try:
            entry = msgspec.convert(item, Entry)
            entry.command()
        except (msgspec.ValidationError, Malformed):
            continue
        entries.append(entry)
    return entries


class Journal:
    """The entries that still matter, in order. Not thread-safe."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Begin with these."""
        self._entries = {entry.ticket: entry for entry in entries}
        self._full = len(self._entries)

    def add(self, entry: Entry, now: float) -> bool:
        """Add an entry unless its ticket is there; return whether it was added.

        Now and then it forgets what is over, and of more than `MAX_ENTRIES` the oldest.
        """
        if entry.ticket in self._entries or entry.until <= now:
            return False
        self._entries[entry.ticket] = entry
        if len(self._entries) > self._full:
            kept = [item for item in self if item.until > now][-MAX_ENTRIES:]
            self._entries = {item.ticket: item for item in kept}
            self._full = len(kept) + max(PART, len(kept) // 4)
        return True

    def __contains__(self, ticket: object) -> bool:
        """Whether there is an entry with this ticket."""
        return ticket in self._entries

    def __iter__(self) -> Iterator[Entry]:
        """Iterate in the order in which the commands were sent."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.order))

    def alive(self, now: float) -> list[Entry]:
        """Return the entries that still matter, in order."""
        return [entry for entry in self if entry.until > now]


class _Part(msgspec.Struct, frozen=True):
    """The open part of a shared journal.

    Attributes:
        first, number: of the oldest part that may matter, and of this one.
        until: when all that any part holds is over, in seconds since 1970.
        entries: what it holds, as JSON has it: one that is damaged must not hide the others.
    """

    first: int = 0
    number: int = 0
    until: float = 0.0
    entries: list[Any] = []


class SharedJournal:
    """A journal in a key-value store, in parts of up to `PART` entries. Thread-safe.

    Only the last part is open. One that is full is written under its number, and then the next is
    begun: who dies in between leaves both for the next to do. So what is written for a command does
    not grow with the journal.
    """

    def __init__(self, store: KeyValue, key: str, clock: Clock) -> None:
        """Read nothing yet; ``key`` is of the open part, and begins those of the others."""
        self._store = store
        self._key = key
        self._clock = clock

    def add(self, entry: Entry) -> None:
        """Add an entry unless it was added lately. Blocks for a few round trips."""
        while True:
            part, version = self._open_part()
            now = self._clock.time()
            entries = [item for item in read_entries(part.entries) if item.until > now]
            if entry.until <= now or any(item.ticket == entry.ticket for item in entries):
                return
            if len(entries) >= PART:
                self._close(part.number, entries, now)
                part = _Part(self._first(part), part.number + 1)
                entries = []
            part = msgspec.structs.replace(
                part, until=max(part.until, entry.until), entries=[*entries, entry]
            )
            value, ttl = msgspec.json.encode(part), part.until - now
            if self._store.key_set(self._key, value, ttl=ttl, version=version) is not None:
                return

    def entries(self) -> list[Entry]:
        """Return the entries that still matter, in order. Blocks for a round trip per part."""
        part, _ = self._open_part()
        found = read_entries(part.entries)
        for number in range(self._oldest(part), part.number):
            closed = self._store.key_get(self._closed(number))
            found += read_entries(_decode(closed.value) if closed else None)
        return Journal(found).alive(self._clock.time())

    def _open_part(self) -> tuple[_Part, int]:
        found = self._store.key_get(self._key)
        if found is None:
            return _Part(), 0
        try:
            return msgspec.json.decode(found.value, type=_Part), found.version
        except msgspec.MsgspecError:
            return _Part(), found.version  # somebody else's, or damaged: it is written anew

    def _close(self, number: int, entries: list[Entry], now: float) -> None:
        ttl = max(item.until for item in entries) - now
        self._store.key_set(self._closed(number), msgspec.json.encode(entries), ttl=ttl)

    def _first(self, part: _Part) -> int:
        """Return the number of the oldest part that is still there."""
        first = self._oldest(part)
        while first < part.number and self._store.key_get(self._closed(first)) is None:
            first += 1
        return first

    @staticmethod
    def _oldest(part: _Part) -> int:
        return max(part.first, part.number - MAX_ENTRIES // PART)

    def _closed(self, number: int) -> str:
        return f"{self._key}.{number}"


def _decode(value: bytes) -> object:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None
