"""Exchanges, queues and bindings as AMQP arguments: pure, and checked before anything is sent.

RabbitMQ accepts several combinations that lose messages in silence, and answers others with texts
that name an argument nobody wrote. Both are refused here with a message that names the queue and
the remedy.

Queue type ``auto``: quorum if the queue is durable, named by the user, shared, not auto-delete,
without priorities and without ``overflow="reject-publish"``; classic otherwise. (A quorum queue
refuses only some time after it became full. With ``max_deliveries`` that is put up with, since a
classic queue cannot count at all.)

A quorum queue always gets ``x-delivery-limit``, since without it a requeued message goes to the
tail. Where nobody asked for a limit it is set out of reach: a message is never dropped because it
came back often. With ``max_deliveries`` the failures are counted in a header (see ``returning``).
The broker counts polite returns too, so its own limit is `BACKSTOP` higher: it stops only what
crashes its consumers again and again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec.structs import replace

from queue_core.errors import ConfigError, Unsupported
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transport import Features, require
from queue_core.transports.amqp.properties import milliseconds

NAME: Final = "amqp"
UNREACHABLE_LIMIT: Final = 2**31 - 1
BACKSTOP: Final = 20
GENERATED_PREFIX: Final = "qc.gen-"

FEATURES: Final = Features(
    durable=True,
    shared=True,
    priority=True,
    delay=True,
    requeue_in_place=True,
    message_ttl=True,
    queue_expiry=True,
    max_length=True,
    dead_letter=True,
    max_deliveries=True,
    exclusive=True,
    auto_delete=True,
    exchange_bindings=True,
    arguments=True,
)

_ONLY_QUORUM: Final = ("x-delivery-limit", "x-dead-letter-strategy")


def need(feature: str) -> None:
    """Raise Unsupported unless the transport has ``feature``."""
    require(FEATURES, feature, NAME)


def named(queue: Queue) -> Queue:
    """Return the queue itself, or a copy with a generated name."""
    return queue if queue.name else replace(queue, name=f"{GENERATED_PREFIX}{uuid.uuid4()}")


def queue_type(queue: Queue) -> Literal["classic", "quorum"]:
    """Return which type the queue gets."""
    explicit = queue.arguments.get("x-queue-type")
    if explicit in ("classic", "quorum"):
        return "quorum" if explicit == "quorum" else "classic"
    if queue.queue_type != "auto":
        return queue.queue_type
    if "x-dead-letter-strategy" in queue.arguments:
        return "quorum"
    shared = queue.durable and not _owned(queue)
    exact = queue.overflow == "drop-head" and queue.arguments.get("x-overflow") is None
    exact = exact or queue.max_deliveries is not None
    plain = queue.max_priority is None and "x-max-priority" not in queue.arguments
    user_named = bool(queue.name) and not queue.name.startswith(GENERATED_PREFIX)
    return "quorum" if shared and plain and exact and user_named else "classic"


def _owned(queue: Queue) -> bool:
    return queue.exclusive or queue.auto_delete


def queue_arguments(queue: Queue) -> dict[str, Any]:
    """Return the ``x-`` arguments of a named queue; the user's own win over derived ones.

    Raises:
        Unsupported: it asks for ``max_deliveries`` and is a classic queue.
        ConfigError: the arguments contradict one another or would lose messages in silence.
    """
    kind = queue_type(queue)
    if queue.max_deliveries is not None and kind == "classic":
        raise Unsupported(
            "max_deliveries",
            NAME,
            f"queue {queue.name!r} is a classic queue, which cannot count; give it a name, "
            "durable=True, and no priorities, exclusive, auto_delete or queue_type='classic', so "
            "that it becomes a quorum queue",
        )
    arguments: dict[str, Any] = {}
    if kind == "quorum":
        arguments["x-queue-type"] = "quorum"
        limit = queue.max_deliveries
        arguments["x-delivery-limit"] = UNREACHABLE_LIMIT if limit is None else limit + BACKSTOP
    elif queue.queue_type == "classic" or (queue.durable and not _owned(queue)):
        # A virtual host may have another default.
        arguments["x-queue-type"] = "classic"
    if queue.message_ttl is not None:
        arguments["x-message-ttl"] = milliseconds(queue.message_ttl)
    if queue.expires is not None:
        arguments["x-expires"] = max(1, milliseconds(queue.expires))
    if queue.max_length is not None:
        arguments["x-max-length"] = queue.max_length
        if queue.overflow != "drop-head":
            arguments["x-overflow"] = queue.overflow
    if queue.max_priority is not None:
        arguments["x-max-priority"] = queue.max_priority
    if queue.dead_letter_target is not None:
        arguments["x-dead-letter-exchange"] = queue.dead_letter_target
    if queue.dead_letter_routing_key is not None:
        arguments["x-dead-letter-routing-key"] = queue.dead_letter_routing_key
    arguments.update(queue.arguments)
    _check(queue, kind, arguments)
    return arguments


def _check(queue: Queue, kind: str, arguments: Mapping[str, Any]) -> None:
    label = f"queue {queue.name!r}"
    if kind == "quorum":
        for wrong, what in (
            (not queue.durable, "durable=False"),
            (queue.exclusive, "exclusive=True"),
            (queue.auto_delete, "auto_delete=True"),
            ("x-max-priority" in arguments, "max_priority"),
        ):
            if wrong:
                raise ConfigError(
                    f"{label}: a quorum queue cannot have {what}; use queue_type='classic'"
                )
    elif kind == "classic":
        for name in _ONLY_QUORUM:
            if name in arguments:
                raise ConfigError(
                    f"{label}: {name} works on quorum queues only; use queue_type='quorum'"
                )
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        if "x-dead-letter-exchange" not in arguments:
            raise ConfigError(f"{label}: at-least-once dead-lettering needs a dead_letter_exchange")
        if arguments.get("x-overflow") != "reject-publish":
            raise ConfigError(
                f"{label}: at-least-once dead-lettering needs overflow='reject-publish' and a "
                "max_length; otherwise RabbitMQ falls back to at-most-once in silence"
            )


def dead_letters_of(queue: Queue) -> tuple[str, str | None] | None:
    """Return exchange and key (None: the message's own) for the queue's dead letters, or None."""
    exchange = queue.arguments.get("x-dead-letter-exchange", queue.dead_letter_target)
    key = queue.arguments.get("x-dead-letter-routing-key", queue.dead_letter_routing_key)
    if exchange is None:
        return None
    return str(exchange), None if key is None else str(key)


def exchanges_of(queue: Queue) -> tuple[list[Exchange], list[str]]:
    """Return the exchanges to declare with a queue, and the names of those that must exist."""
    given = [queue.exchange, queue.dead_letter_exchange]
    own = {item.name: item for item in given if isinstance(item, Exchange)}
    names = [binding.source for binding in queue.all_bindings()]
    dead = queue.arguments.get("x-dead-letter-exchange", queue.dead_letter_target)
    if dead:
        names.append(str(dead))
    others = dict.fromkeys(name for name in names if name not in own)
    return list(own.values()), list(others)


def described(entity: Exchange | Queue | Binding) -> str:
    """Name an entity for messages."""
    if isinstance(entity, Exchange):
        return f"exchange {entity.name!r}"
    if isinstance(entity, Queue):
        return f"queue {entity.name!r}"
    return (
        f"binding of {entity.destination_type} {entity.destination!r} to "
        f"exchange {entity.source!r} with key {entity.routing_key!r}"
    )
