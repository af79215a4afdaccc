"""The values in a store's topology table, and their msgpack form.

There are two kinds of entries. ``x:<name>`` is an exchange with its outgoing bindings; ``q:<name>``
is a queue. Both note in ``sources`` which exchanges are bound to them, so that a deletion finds
every binding and removes them all in one `Store.write_table`.

An entry is never changed in place: an edit makes a new one. Fields are stored by name and have
defaults, so that versions of this package can live side by side.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from queue_core.errors import StoreCorrupt
from queue_core.topology import ExchangeType, Overflow

__all__ = ["BindingEntry", "ExchangeEntry", "QueueEntry", "decode", "encode", "x", "q"]


class BindingEntry(msgspec.Struct, frozen=True, array_like=True):
    """One binding, as its exchange keeps it."""

    destination: str
    destination_type: Literal["queue", "exchange"] = "queue"
    routing_key: str = ""
    arguments: dict[str, Any] = {}

    @property
    def target(self) -> str:
        """The name of the destination's entry."""
        return q(self.destination) if self.destination_type == "queue" else x(self.destination)


class ExchangeEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exchange, the bindings from it, and the names of the exchanges that are bound to it."""

    type: ExchangeType
    durable: bool = True
    auto_delete: bool = False
    bindings: tuple[BindingEntry, ...] = ()
    sources: tuple[str, ...] = ()


class QueueEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue and the names of the exchanges that are bound to it.

    ``uid`` tells two queues apart that had the same name one after the other. ``owner`` is the
    session that an exclusive queue belongs to. A ``deleted`` queue does not exist; its entry stands
    until its messages, which were too many for one step, are deleted too.
    """

    uid: str
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    overflow: Overflow = "drop-head"
    max_priority: int | None = None
    max_deliveries: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    owner: str = ""
    sources: tuple[str, ...] = ()
    deleted: bool = False


AnyEntry = ExchangeEntry | QueueEntry

_encoder = msgspec.msgpack.Encoder()
_exchange = msgspec.msgpack.Decoder(ExchangeEntry)
_queue = msgspec.msgpack.Decoder(QueueEntry)


def x(exchange: str) -> str:
    """Return the name of an exchange's entry."""
    return f"x:{exchange}"


def q(queue: str) -> str:
    """Return the name of a queue's entry."""
    return f"q:{queue}"


def encode(entry: AnyEntry) -> bytes:
    """Return the bytes for the table."""
    return _encoder.encode(entry)


def decode(name: str, value: bytes) -> AnyEntry:
    """Return the entry that the table holds under ``name``. Raises StoreCorrupt."""
    try:
        return _exchange.decode(value) if name.startswith("x:") else _queue.decode(value)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreCorrupt(
            f"the entry {name!r} of the topology table cannot be read: {error}; a newer version of "
            "queue_core may have written it: upgrade this program"
        ) from error
