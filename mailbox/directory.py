"""Which nodes there are, and what they should remember.

Whether a node lives is known to the broker alone: its queue belongs to its connection and goes with
it, at the latest one lease after the process died or froze. What is missing is the names, and there
are two ways to find them:

- A broker with a key-value store (or ``Mailbox(store=...)``) keeps them in one small document. A
  node changes it when it comes and when it goes, and nobody at any other time. A caller learns whom
  to wait for with one read.
- Without one (RabbitMQ) nodes ask one another: who comes tells all the others, and learns from the
  first few that answer whom they know. A caller learns whom to wait for from the first answer.

The journal is kept in the same two places.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from queue_core import Clock, KeyValue
from queue_core.mailbox.journal import Entry, Journal, SharedJournal, read_entries
from queue_core.mailbox.wire import Address

Labels = Mapping[str, str]

ASKED: Final = 3
"""How many nodes tell one that comes all they know: more than one, since one of them may have just
come itself, or may die before it answers."""


class Directory(Protocol):
    """Where names and journal are kept. Thread-safe; methods may block for round trips."""

    def names(self, timeout: float | None = None) -> dict[str, Labels] | None:
        """Return the nodes that came and did not go, with their labels; some may have died.

        None where only the nodes themselves know. Blocks at most ``timeout`` seconds, or as long as
        the store's own timeout lets it.
        """

    def join(self, name: str, labels: Labels, *, again: bool = False) -> None:
        """A node came, or says ``again`` that it is there, should it have been forgotten."""

    def leave(self, *names: str) -> dict[str, Labels]:
        """Nodes went, or were found dead; return those that were known."""

    def record(self, entry: Entry) -> None:
        """Keep a command for nodes that come later."""

    def journal(self) -> list[Entry]:
        """Return the commands to learn, in their order."""


class SharedDirectory:
    """Names and journal in a key-value store."""

    def __init__(
        self, store: Callable[[float | None], KeyValue], namespace: str, clock: Clock
    ) -> None:
        """Read nothing yet. ``store`` returns the store, given how many seconds a call may take."""
        self._within = store
        self._store = store(None)
        self._names = f"qc.mailbox.{namespace}.nodes"
        self._journal = SharedJournal(self._store, f"qc.mailbox.{namespace}.journal", clock)

    def names(self, timeout: float | None = None) -> dict[str, Labels]:
        """See `Directory.names`."""
        return self._read_names(self._store if timeout is None else self._within(timeout))[0]

    def join(self, name: str, labels: Labels, *, again: bool = False) -> None:
        """See `Directory.join`. With ``again`` it is one read, as a rule."""
        self._change_names(lambda names: names.get(name) != labels and {**names, name: labels})

    def leave(self, *names: str) -> dict[str, Labels]:
        """See `Directory.leave`."""
        gone: dict[str, Labels] = {}

        def without(known: dict[str, Labels]) -> dict[str, Labels] | bool:
            gone.clear()
            gone.update({name: known[name] for name in names if name in known})
            return bool(gone) and {n: v for n, v in known.items() if n not in gone}

        self._change_names(without)
        return gone

    def record(self, entry: Entry) -> None:
        """See `Directory.record`."""
        self._journal.add(entry)

    def journal(self) -> list[Entry]:
        """See `Directory.journal`."""
        return self._journal.entries()

    def _read_names(self, store: KeyValue) -> tuple[dict[str, Labels], int]:
        found = store.key_get(self._names)
        names = _decode(found.value) if found else None
        return _read_labels(names), found.version if found else 0

    def _change_names(
        self, change: Callable[[dict[str, Labels]], dict[str, Labels] | bool]
    ) -> None:
        """Replace the document by what ``change`` makes of it, unless that is nothing new."""
        while True:
            names, version = self._read_names(self._store)
            changed = change(names)
            if isinstance(changed, bool):
                return
            value = msgspec.json.encode(changed)
            if self._store.key_set(self._names, value, version=version) is not None:
                return


class PeerDirectory:
    """What the nodes of this process heard from others. Who has no node knows nothing by itself."""

    def __init__(self, clock: Clock, tell_all: Callable[[str, Mapping[str, Any]], None]) -> None:
        """Know nobody yet. ``tell_all`` sends a command, with arguments, to every node."""
        self._clock = clock
        self._tell_all = tell_all
        self._lock = threading.Lock()
        self._names: dict[str, Labels] = {}
        self._journal = Journal()
        self._to_ask = 0

    def names(self, timeout: float | None = None) -> None:
        """See `Directory.names`: the nodes are asked."""
        return

    def join(self, name: str, labels: Labels, *, again: bool = False) -> None:
        """See `Directory.join`. The others say that they are there, unless ``again``."""
        self.note(name, labels)
        if not again:
            with self._lock:
                self._to_ask = ASKED
        self._tell_all("qc.hello", {"name": name, "labels": labels, "again": again})

    def leave(self, *names: str) -> dict[str, Labels]:
        """See `Directory.leave`."""
        gone = self.drop(names)
        self._tell_all("qc.bye", {"names": names})
        return gone

    def record(self, entry: Entry) -> None:
        """See `Directory.record`."""
        with self._lock:
            self._journal.add(entry, self._clock.time())

    def journal(self) -> list[Entry]:
        """See `Directory.journal`."""
        with self._lock:
            return self._journal.alive(self._clock.time())

    # between nodes

    def note(self, name: str, labels: Labels) -> None:
        """Somebody is there."""
        with self._lock:
            self._names[name] = labels

    def asks(self) -> bool:
        """Whether a node that says it is there should tell all it knows: the first few."""
        with self._lock:
            self._to_ask -= 1
            return self._to_ask >= 0

    def drop(self, names: Iterable[str]) -> dict[str, Labels]:
        """Some are not there any more; return those that were known."""
        with self._lock:
            return {name: self._names.pop(name) for name in names if name in self._names}

    def peers(self, address: Address) -> tuple[str, ...]:
        """The names that this node knows, its own among them, as far as they are meant."""
        with self._lock:
            known = list(self._names.items())
        return tuple(name for name, labels in known if address.includes(name, labels))

    def tell(self) -> dict[str, Any]:
        """What this node knows, for one that comes."""
        with self._lock:
            return {
                "nodes": {name: dict(labels) for name, labels in self._names.items()},
                "journal": msgspec.to_builtins(self._journal.alive(self._clock.time())),
            }

    def learn(self, told: object, believes: Callable[[Entry], bool]) -> None:
        """Take over what another node told, and of its journal what ``believes`` says is true.

        What is not of the expected shape is left out.
        """
        if not isinstance(told, dict):
            return
        entries = read_entries(told.get("journal"))
        with self._lock:
            entries = [entry for entry in entries if entry.ticket not in self._journal]
        entries = [entry for entry in entries if believes(entry)]
        with self._lock:
            for name, labels in _read_labels(told.get("nodes")).items():
                self._names.setdefault(name, labels)
            for entry in entries:
                self._journal.add(entry, self._clock.time())


def put_away(directory: Directory, names: set[str], gone: Callable[[set[str]], set[str]]) -> None:
    """Forget nodes that were found gone, but for those that have come again meanwhile.

    A node has its queue before it says that it is there. So one that says it before we forget it is
    found by ``gone``, which says who is not there, and one that says it later is not forgotten.
    """
    known = directory.leave(*names)
    for name in names - gone(names):
        directory.join(name, known.get(name, {}), again=True)


def _decode(value: bytes) -> object:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None  # somebody else's, or damaged: it is written anew


def _read_labels(raw: object) -> dict[str, Labels]:
    """Return names and their labels; a name with other labels than nodes have has none."""
    names = raw.items() if isinstance(raw, dict) else ()
    return {name: _labels(found) for name, found in names if isinstance(name, str)}


def _labels(raw: object) -> Labels:
    try:
        return msgspec.convert(raw, dict[str, str])
    except msgspec.ValidationError:
        return {}
