"""Declaring, deleting and counting: each call on a throw-away channel of the consuming connection.

Throw-away, since the broker answers a wrong request by closing the channel, and consumers must not notice. The
consuming connection, since an exclusive queue belongs to the connection that declared it.

What a declaration refers to is looked at first, so that a missing exchange leaves nothing half declared. AMQP cannot
look at a binding: a passive declaration of one is refused, and deleting one says True whenever both ends exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from queue_core.errors import QueueNotFound, Unsupported
from queue_core.topology import Binding, Entity, Exchange, Queue
from queue_core.transport import QueueInfo
from queue_core.transports.amqp.io import Channel, Link
from queue_core.transports.amqp.topology import (
    NAME,
    described,
    exchanges_of,
    named,
    queue_arguments,
)

Ask = Callable[..., Any]
"""``ask(method, doing, **arguments)``: one request on the throw-away channel."""


class Administration:
    """The declaring side of a session. Thread-safe; calls block at most ``timeout`` seconds."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def declare(self, entity: Entity, *, passive: bool, timeout: float) -> str:
        """Create or look; see `Session.declare`."""
        if isinstance(entity, Binding):
            if passive:
                raise Unsupported(
                    "passive declaration of a binding",
                    NAME,
                    "declare it: that changes nothing if it is there",
                )
            with self._channel(described(entity), timeout) as ask:
                _bind(ask, entity)
            return entity.destination
        if passive:
            with self._channel(described(entity), timeout) as ask:
                _look(ask, entity)
            return entity.name
        if isinstance(entity, Exchange):
            with self._channel(described(entity), timeout) as ask:
                _declare_exchange(ask, entity)
            return entity.name
        return self._declare_queue(named(entity), timeout)

    def _declare_queue(self, queue: Queue, timeout: float) -> str:
        arguments = queue_arguments(queue)
        own, others = exchanges_of(queue)
        with self._channel(described(queue), timeout) as ask:
            for exchange in own:
                _declare_exchange(ask, exchange)
            for name in others:
                ask(
                    "exchange_declare",
                    f"declare {described(queue)}, which needs an exchange",
                    exchange=name,
                    passive=True,
                )
            ask(
                "queue_declare",
                f"declare {described(queue)}",
                queue=queue.name,
                durable=queue.durable,
                exclusive=queue.exclusive,
                auto_delete=queue.auto_delete,
                arguments=arguments,
            )
            for binding in queue.all_bindings():
                _bind(ask, binding)
        return queue.name

    def delete(self, entity: Entity, *, if_unused: bool, if_empty: bool, timeout: float) -> bool:
        """Delete; see `Session.delete`."""
        doing = f"delete {described(entity)}"
        try:
            with self._channel(described(entity), timeout) as ask:
                if isinstance(entity, Binding):
                    _look(ask, Exchange(entity.source))
                    _look(ask, _destination(entity))
                    _unbind(ask, entity)
                    return True
                _look(ask, entity)
                if isinstance(entity, Queue):
                    ask(
                        "queue_delete",
                        doing,
                        queue=entity.name,
                        if_unused=if_unused,
                        if_empty=if_empty,
                    )
                else:
                    ask("exchange_delete", doing, exchange=entity.name, if_unused=if_unused)
                return True
        except QueueNotFound:
            return False

    def inspect(self, queue: str, *, timeout: float) -> QueueInfo:
        """Count; see `Session.inspect`."""
        doing = f"inspect queue {queue!r}"
        with self._channel(doing, timeout) as ask:
            answer = ask("queue_declare", doing, queue=queue, passive=True)
        return QueueInfo(queue, ready=answer.message_count, consumers=answer.consumer_count)

    def purge(self, queue: str, *, timeout: float) -> int:
        """Delete what waits; see `Session.purge`."""
        doing = f"purge queue {queue!r}"
        with self._channel(doing, timeout) as ask:
            return int(ask("queue_purge", doing, queue=queue).message_count)

    @contextmanager
    def _channel(self, what: str, timeout: float) -> Iterator[Ask]:
        deadline = monotonic() + timeout
        channel = Channel.open(self._link, deadline, f"open a channel for {what}")

        def ask(method: str, doing: str, **arguments: Any) -> Any:
            return channel.rpc(method, deadline, doing, **arguments)

        try:
            yield ask
        finally:
            channel.close()


def _look(ask: Ask, entity: Exchange | Queue) -> Any:
    doing = f"look for {described(entity)}"
    if isinstance(entity, Queue):
        return ask("queue_declare", doing, queue=entity.name, passive=True)
    return ask("exchange_declare", doing, exchange=entity.name, passive=True)


def _declare_exchange(ask: Ask, exchange: Exchange) -> None:
    ask(
        "exchange_declare",
        f"declare {described(exchange)}",
        exchange=exchange.name,
        exchange_type=exchange.type,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        arguments=dict(exchange.arguments),
    )


def _bind(ask: Ask, binding: Binding) -> None:
    doing = f"declare {described(binding)}"
    arguments = dict(binding.arguments)
    if binding.destination_type == "queue":
        ask(
            "queue_bind",
            doing,
            queue=binding.destination,
            exchange=binding.source,
            routing_key=binding.routing_key,
            arguments=arguments,
        )
    else:
        ask(
            "exchange_bind",
            doing,
            destination=binding.destination,
            source=binding.source,
            routing_key=binding.routing_key,
            arguments=arguments,
        )


def _unbind(ask: Ask, binding: Binding) -> None:
    doing = f"delete {described(binding)}"
    arguments = dict(binding.arguments)
    if binding.destination_type == "queue":
        ask(
            "queue_unbind",
            doing,
            queue=binding.destination,
            exchange=binding.source,
            routing_key=binding.routing_key,
            arguments=arguments,
        )
    else:
        ask(
            "exchange_unbind",
            doing,
            destination=binding.destination,
            source=binding.source,
            routing_key=binding.routing_key,
            arguments=arguments,
        )


def _destination(binding: Binding) -> Exchange | Queue:
    if binding.destination_type == "queue":
        return Queue(binding.destination)
    return Exchange(binding.destination)
