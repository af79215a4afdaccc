"""What a declaration or deletion changes in the topology table: pure rules.

A `Draft` holds the entries that were read and collects changes; the functions here read from it and
write to it, and raise what `Session.declare` and `Session.delete` promise. An entry that the draft
has not got raises `Unread`: the caller reads it and runs the function again on a fresh draft.
`table.Table.edit` is that caller; the store refuses the changes if one of the entries was changed
by somebody else meanwhile, and then all of it is done again.

The rules: a binding and its back reference change together; a queue or exchange takes its bindings
with it; an auto-delete exchange goes with the last binding from it, and that may go on and on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from queue_core.emulation import entries
from queue_core.emulation.entries import BindingEntry, ExchangeEntry, QueueEntry, q, x
from queue_core.emulation.routing import Known
from queue_core.errors import AccessRefused, ConfigError, QueueNotFound, TopologyMismatch
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transport import Change

__all__ = [
    "Draft",
    "Unread",
    "bind",
    "declare_exchange",
    "declare_queue",
    "delete_exchange",
    "delete_queue",
    "queue_entry",
    "unbind",
]


class Unread(Exception):
    """The draft needs more entries."""

    def __init__(self, names: frozenset[str]) -> None:
        """Name them."""
        super().__init__(*sorted(names))
        self.names = names


class Draft:
    """The entries that an edit reads, and what it makes of them."""

    __slots__ = ("_changed", "_known", "dropped", "touched")

    def __init__(self, known: Mapping[str, Known]) -> None:
        """Begin with the entries in ``known``; those with version 0 are absent."""
        self._known = known
        self._changed: dict[str, ExchangeEntry | QueueEntry | None] = {}
        self.touched: set[str] = set()
        self.dropped: list[str] = []

    def exchange(self, name: str) -> ExchangeEntry | None:
        """Return the exchange, or None."""
        found = self._get(x(name))
        return found if isinstance(found, ExchangeEntry) else None

    def queue(self, name: str) -> QueueEntry | None:
        """Return the queue, or None."""
        found = self._get(q(name))
        return found if isinstance(found, QueueEntry) and not found.deleted else None

    def _get(self, name: str) -> ExchangeEntry | QueueEntry | None:
        if name in self._changed:
            return self._changed[name]
        known = self._known.get(name)
        if known is None:
            raise Unread(frozenset({name}))
        return known.exchange or known.queue

    def version(self, name: str) -> int:
        """Return the version of the entry as it was read."""
        known = self._known.get(name)
        if known is None:
            raise Unread(frozenset({name}))
        return known.version

    def need(self, names: Iterable[str]) -> None:
        """Raise Unread for those that are missing, all at once."""
        if missing := frozenset(names) - self._known.keys():
            raise Unread(missing)

    def put(self, name: str, entry: ExchangeEntry | QueueEntry | None) -> None:
        """Let the entry ``name`` be this; None removes it."""
        self._get(name)
        self._changed[name] = entry

    def touch(self, name: str) -> None:
        """Give the entry a new version, even if it stays as it is."""
        self.put(name, self._get(name))
        self.touched.add(name)

    def drop(self, queue: str) -> None:
        """Delete the messages of a queue."""
        self.dropped.append(queue)

    def changes(self) -> list[Change]:
        """Return what is different from what was read."""
        result = []
        for name, entry in self._changed.items():
            known = self._known[name]
            if entry != (known.exchange or known.queue) or (name in self.touched and entry):
                value = None if entry is None else entries.encode(entry)
                result.append(Change(name, known.version, value))
        return result


# --- declare


def declare_exchange(draft: Draft, exchange: Exchange) -> None:
    """Create the exchange, or see that it is the same."""
    found = draft.exchange(exchange.name)
    if found is None:
        entry = ExchangeEntry(exchange.type, exchange.durable, exchange.auto_delete)
        draft.put(x(exchange.name), entry)
        return
    wanted = {name: getattr(exchange, name) for name in ("type", "durable", "auto_delete")}
    _compare("exchange", exchange.name, found, wanted)


def queue_entry(queue: Queue, uid: str, owner: str) -> QueueEntry:
    """Return the entry for a new queue."""
    limited = queue.max_length is not None
    return QueueEntry(
        uid=uid,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        expires=queue.expires,
        message_ttl=queue.message_ttl,
        max_length=queue.max_length,
        overflow=queue.overflow if limited else "drop-head",
        max_priority=queue.max_priority,
        max_deliveries=queue.max_deliveries,
        dead_letter_exchange=queue.dead_letter_target,
        dead_letter_routing_key=queue.dead_letter_routing_key,
        owner=owner if queue.exclusive else "",
    )


_NOT_COMPARED = {"uid", "owner", "sources"}


def declare_queue(draft: Draft, queue: Queue, *, uid: str, session: str) -> QueueEntry:
    """Create the queue with its exchanges and bindings, or see that they are the same.

    Returns the queue's entry; its ``uid`` is the given one if it was created now. A queue that is
    there and that deletes itself (``expires``, ``auto_delete``) gets a new version, so that a
    deletion under way starts over.
    """
    bindings = queue.all_bindings()
    for exchange in (queue.exchange, queue.dead_letter_exchange):
        if isinstance(exchange, Exchange):
            declare_exchange(draft, exchange)
    target = queue.dead_letter_target
    if target and draft.exchange(target) is None:
        raise QueueNotFound(
            f"queue {queue.name!r}: its dead-letter exchange {target!r} does not exist;"
            " declare it first"
        )
    wanted = queue_entry(queue, uid, session)
    found = draft.queue(queue.name)
    if found is None:
        draft.put(q(queue.name), wanted)
        if draft.version(q(queue.name)):
            draft.drop(queue.name)  # what a deleted one has left
    else:
        check_owner(queue.name, found, session)
        fields = {
            name: getattr(wanted, name)
            for name in wanted.__struct_fields__
            if name not in _NOT_COMPARED
        }
        _compare("queue", queue.name, found, fields)
        if found.expires is not None or found.auto_delete:
            draft.touch(q(queue.name))
    for binding in bindings:
        bind(draft, binding, session=session)
    entry = draft.queue(queue.name)
    assert entry is not None
    return entry


def check_owner(name: str, entry: QueueEntry, session: str) -> None:
    """Raise AccessRefused if the queue is exclusive to another session."""
    if entry.owner and entry.owner != session:
        raise AccessRefused(
            f"queue {name!r} is exclusive to another connection, which alone may use it"
        )


def _compare(kind: str, name: str, found: object, wanted: Mapping[str, object]) -> None:
    different = [
        f"{field} is {getattr(found, field)!r} there and {value!r} here"
        for field, value in wanted.items()
        if getattr(found, field) != value
    ]
    if different:
        raise TopologyMismatch(
            f"{kind} {name!r} exists with other arguments: {'; '.join(different)}."
            " Declare it as it is, or delete it first"
        )


def bind(draft: Draft, binding: Binding, *, session: str) -> None:
    """Create a binding and its back reference."""
    item = _item(binding)
    draft.need((x(binding.source), item.target))
    source = draft.exchange(binding.source)
    if source is None:
        raise QueueNotFound(
            f"cannot bind {binding.destination!r} to exchange {binding.source!r}:"
            " that exchange does not exist"
        )
    destination: ExchangeEntry | QueueEntry | None
    if binding.destination_type == "queue":
        destination = queue = draft.queue(binding.destination)
        if queue is not None:
            check_owner(binding.destination, queue, session)
    else:
        destination = draft.exchange(binding.destination)
    if destination is None:
        raise QueueNotFound(
            f"cannot bind {binding.destination_type} {binding.destination!r} to exchange"
            f" {binding.source!r}: that {binding.destination_type} does not exist"
        )
    if item not in source.bindings:
        changed = msgspec.structs.replace(source, bindings=(*source.bindings, item))
        draft.put(x(binding.source), changed)
        if binding.destination_type == "exchange" and binding.destination == binding.source:
            destination = changed
    if binding.source not in destination.sources:
        sources = tuple(sorted((*destination.sources, binding.source)))
        draft.put(item.target, msgspec.structs.replace(destination, sources=sources))


def has_binding(draft: Draft, binding: Binding) -> bool:
    """Whether the binding exists."""
    source = draft.exchange(binding.source)
    return source is not None and _item(binding) in source.bindings


def _item(binding: Binding) -> BindingEntry:
    """The binding as the table keeps it: its arguments are as they come out of the store."""
    try:
        raw = msgspec.msgpack.encode(dict(binding.arguments))
        arguments: dict[str, Any] = msgspec.msgpack.decode(raw, type=dict[str, Any])
    except (TypeError, ValueError, OverflowError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"the arguments of the binding from {binding.source!r} to {binding.destination!r}"
            f" cannot be stored: {error}"
        ) from error
    return BindingEntry(
        binding.destination, binding.destination_type, binding.routing_key, arguments
    )


# --- delete


def unbind(draft: Draft, binding: Binding, *, session: str) -> bool:
    """Delete a binding; return whether it existed."""
    source = draft.exchange(binding.source)
    item = _item(binding)
    if source is None or item not in source.bindings:
        return False
    if binding.destination_type == "queue":
        queue = draft.queue(binding.destination)
        if queue is not None:
            check_owner(binding.destination, queue, session)
    left = tuple(other for other in source.bindings if other != item)
    _set_bindings(draft, binding.source, source, left)
    return True


def _set_bindings(
    draft: Draft, name: str, entry: ExchangeEntry, bindings: tuple[BindingEntry, ...]
) -> None:
    """Leave only ``bindings`` to an exchange; without any, an auto-delete one goes."""
    gone = {binding.target for binding in entry.bindings} - {binding.target for binding in bindings}
    draft.need(gone)
    draft.put(x(name), msgspec.structs.replace(entry, bindings=bindings))
    for target in gone:
        _forget_source(draft, target, name)
    if entry.auto_delete and entry.bindings and not bindings:
        delete_exchange(draft, name)


def _forget_source(draft: Draft, target: str, source: str) -> None:
    found = draft.queue(target[2:]) if target.startswith("q:") else draft.exchange(target[2:])
    if found is not None:
        sources = tuple(other for other in found.sources if other != source)
        draft.put(target, msgspec.structs.replace(found, sources=sources))


def delete_exchange(draft: Draft, name: str) -> bool:
    """Delete an exchange with all bindings from it and to it; return whether it existed."""
    entry = draft.exchange(name)
    if entry is None:
        return False
    draft.need([x(source) for source in entry.sources])
    draft.need([binding.target for binding in entry.bindings])
    for target in {binding.target for binding in entry.bindings} - {x(name)}:
        _forget_source(draft, target, name)
    draft.put(x(name), None)
    _detach(draft, x(name), entry.sources)
    return True


def delete_queue(draft: Draft, name: str, *, large: bool = False) -> bool:
    """Delete a queue, its messages and all bindings to it; return whether it existed.

    A ``large`` one leaves its messages, and an entry that says so.
    """
    entry = draft.queue(name)
    if entry is None:
        return False
    draft.need([x(source) for source in entry.sources])
    if large:
        draft.put(q(name), QueueEntry(entry.uid, deleted=True))
    else:
        draft.put(q(name), None)
        draft.drop(name)
    _detach(draft, q(name), entry.sources)
    return True


def _detach(draft: Draft, target: str, sources: Iterable[str]) -> None:
    """Remove all bindings to an entry that is gone."""
    for source in sources:
        entry = draft.exchange(source)
        if entry is not None:
            left = tuple(binding for binding in entry.bindings if binding.target != target)
            _set_bindings(draft, source, entry, left)
