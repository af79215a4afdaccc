"""What this process knows of the topology table, and how it changes it.

`Table` is a cache shared by the threads of one session. Its content may be out of date; that is
safe, because everything concluded from it carries the versions that it was concluded from, and the
store refuses a put whose versions are not right any more. A conclusion that needs no put ("nobody
wants this message") is checked with the versions in the same way.

Routes are cached per exchange and key, until any entry changes. Nothing grows without bound: a
cache that is full is emptied.

The methods with a ``store`` argument do I/O on that handle; the caller owns it. No lock is held
meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

from queue_core.emulation import entries
from queue_core.emulation.edits import Draft, Unread
from queue_core.emulation.entries import ExchangeEntry, q
from queue_core.emulation.routing import Known, Route, compile_matcher, route
from queue_core.errors import ConnectTimeout, StoreCorrupt
from queue_core.policy import Deadline
from queue_core.transport import Entry, Store

__all__ = ["Table"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ENTRIES: Final = 20_000
MAX_ROUTES: Final = 20_000


class Table:
    """The cached topology of one session. Thread-safe."""

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._unreadable: set[str] = set()  # said already

    def queue(self, store: Store, name: str) -> Known:
        """Return what is known of a queue, reading it if it never was."""
        found = self._known.get(q(name))
        if found is None:
            found = self.refresh(store, [q(name)])[q(name)]
        return found

    def refresh(self, store: Store, names: Collection[str]) -> Mapping[str, Known]:
        """Read these entries from the store, absent ones too."""
        read = read_entries(store, names)
        self._note(read)
        return read

    def _note(self, read: Mapping[str, Known]) -> None:
        with self._lock:
            if len(self._known) > MAX_ENTRIES:
                self._known = {}
            if any(
                (before := self._known.get(name)) is None or before.version != known.version
                for name, known in read.items()
            ):
                self._known.update(read)
                self._routes = {}

    def readable(self, store: Store, names: Collection[str]) -> Mapping[str, Known]:
        """Do what `refresh` does for those that can be read, and leave out the others.

        For who looks after many queues at once: one that is damaged must not stop the rest.
        """
        found = store.read_table(list(names)) if names else {}
        read: dict[str, Known] = {}
        for name in names:
            try:
                read[name] = _known(name, found.get(name))
            except StoreCorrupt as error:
                self._complain(name, error)
        self._note(read)
        return read

    def _complain(self, name: str, error: StoreCorrupt) -> None:
        with self._lock:
            known = name in self._unreadable
            self._unreadable.add(name)
        logger.log(logging.DEBUG if known else logging.ERROR, "%s", error)

    def forget(self, names: Iterable[str]) -> None:
        """Have these entries read again before they are used."""
        with self._lock:
            for name in names:
                self._known.pop(name, None)
            self._routes = {}

    def route(self, store: Store, exchange: str, key: str, headers: Mapping[str, Any]) -> Route:
        """Return where a message goes, by what is known; entries never read before are read."""
        found = self._routes.get((exchange, key))
        if found is not None:
            return found
        while True:
            routes = self._routes
            found = route(self._known.get, exchange, key, headers)
            if not found.unread:
                break
            self.refresh(store, found.unread)
        if not found.by_headers:
            # ``refresh`` replaces the dict, so a route from before never gets into the new one.
            if len(routes) >= MAX_ROUTES:
                routes.clear()
            routes[exchange, key] = found
        return found

    def edit(
        self,
        store: Store,
        change: Callable[[Draft], T],
        *,
        hint: Collection[str],
        deadline: Deadline,
    ) -> T:
        """Run ``change`` on the entries that it needs and write the result.

        Args:
            store: the handle to use.
            change: a function of `edits`; it runs several times. What it raises ends the edit.
            hint: entries that it will need; more are read when it asks.
            deadline: until when to go on against others.

        Raises:
            ConnectTimeout: others changed the same entries all the time.
        """
        names = set(hint)
        while True:
            draft = Draft(read_entries(store, names))
            try:
                result = change(draft)
            except Unread as error:
                names |= error.names
                continue
            changes = draft.changes()
            if not changes and not draft.dropped:
                return result
            self.forget([item.name for item in changes])
            written = store.write_table(changes, draft.dropped)
            self.forget([item.name for item in changes])
            if written:
                return result
            if deadline.expired:
                raise ConnectTimeout(
                    f"the topology entries {', '.join(sorted(names))} were changed by others"
                    " again and again"
                )


def read_entries(store: Store, names: Collection[str]) -> dict[str, Known]:
    """Read these entries; those that do not exist have version 0."""
    found = store.read_table(list(names))
    return {name: _known(name, found.get(name)) for name in names}


def _known(name: str, entry: Entry | None) -> Known:
    if entry is None:
        return Known(0)
    value = entries.decode(name, entry.value)
    if isinstance(value, ExchangeEntry):
        return Known(entry.version, exchange=value, matcher=compile_matcher(value))
    if value.deleted:
        return Known(entry.version, deleted=value.uid)
    return Known(entry.version, queue=value)
