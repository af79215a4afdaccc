"""Exchanges, queues and bindings: plain values that describe what should exist on a broker.

They are frozen, validated when made, and never bound to a connection, so one definition can be
shared by every program and thread. Declaring is `Connection.declare`. Names follow one rule on
every transport, so that a program that works on one broker works on the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from queue_core.arguments import (
    MAX_PRIORITY,
    check_count,
    check_flags,
    check_kind,
    check_seconds,
    refuse_options,
)
from queue_core.errors import ConfigError

ExchangeType = Literal["direct", "topic", "fanout", "headers"]
Overflow = Literal["drop-head", "reject-publish"]
QueueType = Literal["auto", "classic", "quorum"]

EXCHANGE_TYPES: tuple[ExchangeType, ...] = ("direct", "topic", "fanout", "headers")
MAX_NAME_BYTES = 255
MAX_COUNT = 2**31 - 1
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f{}*?\[\]]")


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if every transport can carry it as the name of a ``kind``.

    Raises:
        ConfigError: it is empty, longer than 255 bytes in UTF-8, begins with ``amq.`` (reserved by
            AMQP 0-9-1, section 3.1.3.1), or holds control characters, braces or glob characters.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the {kind} needs a name: a non-empty string, not {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{kind} name {name!r} is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise ConfigError(f"{kind} name {name[:40]!r}... has {size} bytes; 255 is the limit")
    if name.startswith("amq."):
        raise ConfigError(
            f"{kind} name {name!r}: names that begin with 'amq.' belong to the broker"
        )
    if found := _FORBIDDEN.search(name):
        raise ConfigError(
            f"{kind} name {name!r} holds {found.group()!r}; control characters and {{}}*?[] "
            "cannot be used in names"
        )
    return name


def check_routing_key(key: str, what: str = "routing key") -> str:
    """Return ``key`` if every transport can carry it as a routing key.

    Raises:
        ConfigError: it is no string, longer than 255 bytes, or holds control characters.
    """
    if isinstance(key, str) and len(key) <= MAX_NAME_BYTES and key.isascii() and key.isprintable():
        return key
    if not isinstance(key, str):
        raise ConfigError(f"a {what} is a string, not {type(key).__name__}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{what} {key!r} is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise ConfigError(f"{what} {key[:40]!r}... has {size} bytes; 255 is the limit")
    if key and min(key) < " ":
        raise ConfigError(f"{what} {key!r} holds a control character")
    return key


class _Described(msgspec.StructMeta):
    """Makes values whose unknown fields are refused with a hint, not by a bare TypeError."""

    def __call__(cls, *values: Any, **fields: Any) -> Any:
        """Make one. Raises ConfigError."""
        if unknown := fields.keys() - set(cls.__struct_fields__):
            refuse_options(cls.__name__, unknown, cls.__struct_fields__)
        return super().__call__(*values, **fields)


class Exchange(msgspec.Struct, frozen=True, repr_omit_defaults=True, metaclass=_Described):
    """Where messages are published to; it copies each to the queues and exchanges bound to it.

    Args:
        name: up to 255 bytes.
        type: ``direct`` (equal keys), ``topic`` (``*`` one word, ``#`` any number), ``fanout``
            (everything) or ``headers`` (binding arguments with ``x-match`` ``all`` or ``any``).
        durable: survives a restart of the broker.
        auto_delete: removed when the last binding from it goes.
        arguments: passed to an AMQP broker as they are; other transports accept none.
    """

    name: str
    type: ExchangeType = "direct"
    durable: bool = True
    auto_delete: bool = False
    arguments: Mapping[str, object] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check name and type."""
        check_name("exchange", self.name)
        if self.type not in EXCHANGE_TYPES:
            raise ConfigError(
                f"exchange {self.name!r}: type {self.type!r} is not one of "
                f"{', '.join(EXCHANGE_TYPES)}"
            )
        label = f"exchange {self.name!r}: "
        check_flags(label, durable=self.durable, auto_delete=self.auto_delete)
        _check_arguments(label, self.arguments)

    def __hash__(self) -> int:
        """Leave ``arguments`` out, which have no hash."""
        return hash(self.name)


class Queue(msgspec.Struct, frozen=True, repr_omit_defaults=True, metaclass=_Described):
    """Where messages wait.

    Args:
        name: up to 255 bytes; empty asks for a generated name (``declare`` returns the named copy).
        exchange: bound to this exchange with ``routing_key`` when declared; an `Exchange` is
            declared too, a string names one that must exist. Without it the queue is reached
            through the default exchange, by its name.
        routing_key: of that binding.
        bindings: more bindings to declare with the queue; their destination must be this queue.
        durable: survives a restart of the broker.
        exclusive: only this connection may consume; deleted when the connection ends.
        auto_delete: deleted when its last consumer goes.
        expires: deleted after this many seconds without consumer or declaration.
        message_ttl: messages expire after this many seconds.
        max_length: messages that may wait (not counting unacked ones).
        overflow: what happens beyond it: ``drop-head`` dead-letters the oldest, ``reject-publish``
            refuses.
        max_priority: 1 to 9: higher priorities are delivered first; None: priorities have no
            effect.
        max_deliveries: deliveries of one message before it is dead-lettered as ``delivery_limit``.
        dead_letter_exchange: where rejected, expired, overflowing and exhausted messages go; it
            must exist when the queue is declared. ``""`` is the default exchange; None: they are
            dropped.
        dead_letter_routing_key: their new routing key; None keeps the old one.
        queue_type: AMQP only: ``quorum``, ``classic`` or ``auto`` (quorum where the other arguments
            allow it).
        arguments: passed to an AMQP broker as they are; other transports accept none.
    """

    name: str = ""
    exchange: Exchange | str | None = None
    routing_key: str = ""
    bindings: tuple[Binding, ...] = ()
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    overflow: Overflow = "drop-head"
    max_priority: int | None = None
    max_deliveries: int | None = None
    dead_letter_exchange: Exchange | str | None = None
    dead_letter_routing_key: str | None = None
    queue_type: QueueType = "auto"
    arguments: Mapping[str, object] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field; nothing is sent."""
        if self.name != "":
            check_name("queue", self.name)
        check_routing_key(self.routing_key)
        label = f"queue {self.name!r}: "
        for what, exchange in (
            ("exchange", self.exchange),
            ("dead_letter_exchange", self.dead_letter_exchange),
        ):
            if exchange is not None and not isinstance(exchange, Exchange | str):
                raise ConfigError(f"{label}{what} is an Exchange or its name, not {exchange!r:.60}")
        check_flags(
            label, durable=self.durable, exclusive=self.exclusive, auto_delete=self.auto_delete
        )
        _check_arguments(label, self.arguments)
        check_seconds(f"{label}expires", self.expires)
        check_seconds(f"{label}message_ttl", self.message_ttl, zero=True)
        check_count(f"{label}max_length", self.max_length, 0, MAX_COUNT)
        check_count(f"{label}max_priority", self.max_priority, 1, MAX_PRIORITY)
        check_count(f"{label}max_deliveries", self.max_deliveries, 1, MAX_COUNT)
        if self.overflow not in ("drop-head", "reject-publish"):
            raise ConfigError(
                f"{label}overflow is 'drop-head' or 'reject-publish', not {self.overflow!r}"
            )
        if self.queue_type not in ("auto", "classic", "quorum"):
            raise ConfigError(
                f"{label}queue_type is 'auto', 'classic' or 'quorum', not {self.queue_type!r:.60}"
            )
        if self.dead_letter_routing_key is not None and self.dead_letter_exchange is None:
            raise ConfigError(
                f"{label}dead_letter_routing_key needs a dead_letter_exchange ('' is the "
                "default one)"
            )
        check_kind(f"{label}bindings", self.bindings, tuple | list, "a tuple of Binding(...)")
        for binding in self.bindings:
            if not isinstance(binding, Binding):
                raise ConfigError(f"{label}bindings are Binding(...) values, not {binding!r}")
            if binding.destination != self.name or binding.destination_type != "queue":
                raise ConfigError(
                    f"{label}its binding leads to {binding.destination!r}, not to this queue"
                )

    def __hash__(self) -> int:
        """Leave ``arguments`` out, which have no hash."""
        return hash(self.name)

    @property
    def dead_letter_target(self) -> str | None:
        """The name of the dead-letter exchange, or None."""
        target = self.dead_letter_exchange
        return target.name if isinstance(target, Exchange) else target

    def all_bindings(self) -> tuple[Binding, ...]:
        """Every binding to declare with this (named) queue: the one of ``exchange`` first."""
        if self.exchange is None:
            return self.bindings
        source = self.exchange.name if isinstance(self.exchange, Exchange) else self.exchange
        return (Binding(source, self.name, self.routing_key), *self.bindings)


def queue_name(queue: Queue | str) -> str:
    """Return the name of a queue that should be there already, whoever has made it.

    Raises:
        ConfigError: it has none, or no transport has a queue of that name.
    """
    name = queue.name if isinstance(queue, Queue) else queue
    if not name:
        raise ConfigError(
            "the queue needs a name; declare() returns the named copy of a queue without one"
        )
    return check_routing_key(name, "queue name")


class Binding(msgspec.Struct, frozen=True, repr_omit_defaults=True, metaclass=_Described):
    """Messages from ``source`` that match go to ``destination``.

    Args:
        source: name of an exchange.
        destination: name of a queue, or of an exchange with ``destination_type="exchange"``.
        routing_key: the key (direct) or pattern (topic); ignored by fanout and headers.
        destination_type: ``queue`` or ``exchange``.
        arguments: for headers exchanges: the headers to match, and ``x-match``: ``all`` (default)
            or ``any``.
    """

    source: str
    destination: str
    routing_key: str = ""
    destination_type: Literal["queue", "exchange"] = "queue"
    arguments: Mapping[str, object] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and key."""
        check_kind("source of a binding", self.source, str, "the name of the exchange")
        check_name("exchange", self.source)
        check_name(self.destination_type, self.destination)
        check_routing_key(self.routing_key)
        _check_arguments(f"binding of {self.source!r}: ", self.arguments)
        if self.arguments.get("x-match", "all") not in ("all", "any"):
            raise ConfigError(
                f"binding of {self.source!r}: x-match is 'all' or 'any', not "
                f"{self.arguments['x-match']!r}"
            )

    def __hash__(self) -> int:
        """Leave ``arguments`` out, which have no hash."""
        return hash((self.source, self.destination, self.routing_key))


def _check_arguments(label: str, arguments: object) -> None:
    check_kind(f"{label}arguments", arguments, Mapping, "a mapping")


Entity = Exchange | Queue | Binding
