"""Commands that outlast their moment: nodes that start later learn of a revoke or a pause.

An entry is the command as it was sent, with its signature, and a time until which it matters.
Entries are told apart by their ticket and ordered by the logical time at which they were sent. The
journal is a value: the directory says where it is kept (`queue_core.mailbox.directory`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from queue_core.mailbox.wire import Command, Malformed, parse_command

MAX_ENTRIES: Final = 10_000


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

    def add(self, entry: Entry, now: float) -> bool:
        """Add an entry unless its ticket is there; return whether it was added.

        Forgets what is over, and beyond `MAX_ENTRIES` the oldest.
        """
        if entry.ticket in self._entries or entry.until <= now:
            return False
        self._entries[entry.ticket] = entry
        kept = [item for item in self if item.until > now][-MAX_ENTRIES:]
        self._entries = {item.ticket: item for item in kept}
        return True

    def __iter__(self) -> Iterator[Entry]:
        """Iterate in the order in which the commands were sent."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.order))

    def plain(self, now: float) -> list[dict[str, Any]]:
        """Return the entries that still matter, for JSON."""
        return [msgspec.to_builtins(entry) for entry in self if entry.until > now]
