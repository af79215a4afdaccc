"""Declaring, deleting and counting: each call on a throw-away channel of the consuming connection.

Throw-away, since the broker answers a wrong request by closing the channel, and consumers must not
notice. The consuming connection, since an exclusive queue belongs to the connection that declared
it.

What a declaration refers to is looked at first, so that a missing exchange leaves nothing half
declared. AMQP cannot look at a binding: a passive declaration of one is refused, and deleting one
says True whenever both ends exist.

A queue is led away from before it is deleted: delayed messages that come to a queue as it vanishes
would be waited for by the broker, for three minutes, while everybody's delays stand still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any, Final, Literal

from queue_core.errors import AccessRefused, QueueNotFound, TopologyMismatch, Unsupported, counted
from queue_core.topology import Binding, Entity, Exchange, Queue
from queue_core.transport import QueueInfo
from queue_core.transports.amqp.channel import Channel
from queue_core.transports.amqp.durability import NO_TYPE, Kind, kind_told_by
from queue_core.transports.amqp.io import Link
from queue_core.transports.amqp.ladder import Step, way_to
from queue_core.transports.amqp.topology import (
    NAME,
    described,
    exchanges_of,
    named,
    queue_arguments,
)
from queue_core.transports.amqp.versions import may_refuse_transient

_ARRIVING: Final = 0.05
"""Seconds in which a queue stores, and confirms, the delayed messages that it was just handed."""

Ask = Callable[..., Any]
"""``ask(method, doing, **arguments)``: one request on the throw-away channel."""


class Administration:
    """The declaring side of a session. Thread-safe; calls block at most ``timeout`` seconds."""

    def __init__(self, link: Link, make_link: Callable[[], Link]) -> None:
        """``make_link()`` makes one more, unopened link, for questions that may cost it."""
        self._link = link
        self._make_link = make_link

    def declare(self, entity: Entity, *, passive: bool, timeout: float) -> str:
        """Create or look; see `Session.declare`."""
        if isinstance(entity, Binding):
            if passive:
                raise Unsupported(
                    "passive declaration of a binding",
                    NAME,
                    "declare it: that changes nothing if it is there",
                )
            with self._channel(self._link, described(entity), monotonic() + timeout) as ask:
                _bind(ask, entity)
            return entity.destination
        if passive:
            with self._channel(self._link, described(entity), monotonic() + timeout) as ask:
                _look(ask, entity)
            return entity.name
        if isinstance(entity, Exchange):
            with self._channel(self._link, described(entity), monotonic() + timeout) as ask:
                _declare_exchange(ask, entity)
            return entity.name
        return self._declare_queue(named(entity), timeout)

    def _declare_queue(self, queue: Queue, timeout: float) -> str:
        arguments = queue_arguments(queue)
        own, others = exchanges_of(queue)
        deadline = monotonic() + timeout
        with (
            self._place(queue, deadline) as link,
            self._channel(link, described(queue), deadline) as ask,
        ):
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

    @contextmanager
    def _place(self, queue: Queue, deadline: float) -> Iterator[Link]:
        """Give the connection to declare ``queue`` on: its own, if the answer may end that."""
        shared = queue.durable or queue.exclusive
        if shared or not may_refuse_transient(self._link.connection.server_properties):
            yield self._link
            return
        link = self._make_link()
        try:
            link.open(max(0.0, deadline - monotonic()))
            yield link
        finally:
            link.close(1.0)

    def delete(self, entity: Entity, *, if_unused: bool, if_empty: bool, timeout: float) -> bool:
        """Delete; see `Session.delete`."""
        deadline = monotonic() + timeout
        try:
            if isinstance(entity, Queue) and (if_unused or if_empty):
                self._delete_conditionally(entity, if_unused, if_empty, deadline)
            elif isinstance(entity, Queue):
                self._delete_queue(entity, deadline)
            else:
                with self._channel(self._link, described(entity), deadline) as ask:
                    _delete(ask, entity, if_unused)
        except QueueNotFound:
            return False
        return True

    def _delete_queue(self, queue: Queue, deadline: float) -> None:
        """Lead delayed messages away from a queue, then delete it; see the module's docstring.

        Whoever may do the one and not the other leaves everything as it was.
        """
        what = described(queue)
        bind, unbind = way_to(queue.name)
        led_away = True
        try:
            self.perform([unbind], f"delete {what}", deadline)
        except AccessRefused:
            led_away = False
        try:
            with self._channel(self._link, what, deadline) as ask:
                found = _look(ask, queue)
                if led_away and (found.message_count or found.consumer_count):
                    sleep(max(0.0, min(_ARRIVING, deadline - monotonic())))
                ask("queue_delete", f"delete {what}", queue=queue.name)
        except AccessRefused:
            if led_away:
                with suppress(QueueNotFound):
                    self.perform([bind], f"delete {what}", deadline)
            raise

    def _delete_conditionally(
        self, queue: Queue, if_unused: bool, if_empty: bool, deadline: float
    ) -> None:
        """Delete a queue if the broker agrees; it has three ways to answer.

        A quorum queue knows no conditions and ends the whole connection (540), so the question is
        asked on a connection of its own. An exclusive queue refuses strangers (405), but is never a
        quorum queue and may be asked here. Quorum queues are looked at first and deleted then,
        which is two steps: a message that comes between them is lost.
        """
        what = described(queue)
        arguments = {"queue": queue.name, "if_unused": if_unused, "if_empty": if_empty}
        link = self._make_link()
        try:
            link.open(max(0.0, deadline - monotonic()))
            with self._channel(link, what, deadline) as ask:
                _look(ask, queue)
                ask("queue_delete", f"delete {what}", **arguments)
                return
        except AccessRefused:
            with self._channel(self._link, what, deadline) as ask:
                _look(ask, queue)
                ask("queue_delete", f"delete {what}", **arguments)
                return
        except Unsupported:
            pass
        finally:
            link.close(1.0)
        with self._channel(self._link, what, deadline) as ask:
            found = _look(ask, queue)
            if if_unused and found.consumer_count:
                count = counted(found.consumer_count, "consumer")
                raise TopologyMismatch(f"delete {what}: it has {count}")
            if if_empty and found.message_count:
                count = counted(found.message_count, "message")
                raise TopologyMismatch(f"delete {what}: it holds {count}")
            ask("queue_delete", f"delete {what}", queue=queue.name)

    def inspect(self, queue: str, *, timeout: float) -> QueueInfo:
        """Count; see `Session.inspect`."""
        doing = f"inspect queue {queue!r}"
        with self._channel(self._link, doing, monotonic() + timeout) as ask:
            answer = ask("queue_declare", doing, queue=queue, passive=True)
        return QueueInfo(queue, ready=answer.message_count, consumers=answer.consumer_count)

    def kind_of(self, queue: str, *, timeout: float) -> Kind:
        """Return of what kind a queue is, on a connection of its own; see `durability`.

        A queue that is deleted between the two questions is not made again: its type is refused.
        """
        deadline = monotonic() + timeout
        doing = f"ask for the type of queue {queue!r}"
        link = self._make_link()
        try:
            link.open(max(0.0, deadline - monotonic()))
            with self._channel(link, doing, deadline) as ask:
                ask("queue_declare", doing, queue=queue, passive=True)
            arguments: dict[str, Any] = {"x-queue-type": NO_TYPE}
            while True:
                try:
                    with self._channel(link, doing, deadline) as ask:
                        ask("queue_declare", doing, queue=queue, durable=True, arguments=arguments)
                except TopologyMismatch as refusal:
                    kind = kind_told_by(str(refusal), arguments)
                    if kind is not None:
                        return kind
                else:
                    return "unknown"
        except AccessRefused as refusal:
            return "exclusive" if "RESOURCE_LOCKED" in str(refusal) else "unknown"
        finally:
            link.close(1.0)

    def purge(self, queue: str, *, timeout: float) -> int:
        """Delete what waits; see `Session.purge`."""
        doing = f"purge queue {queue!r}"
        with self._channel(self._link, doing, monotonic() + timeout) as ask:
            return int(ask("queue_purge", doing, queue=queue).message_count)

    def perform(self, steps: Sequence[Step], doing: str, deadline: float) -> None:
        """Make these requests one after another; the first that is refused raises."""
        with self._channel(self._link, doing, deadline) as ask:
            for step in steps:
                ask(step.method, doing, **step.arguments)

    @contextmanager
    def _channel(self, link: Link, what: str, deadline: float) -> Iterator[Ask]:
        channel = Channel.open(link, deadline, f"open a channel for {what}")

        def ask(method: str, doing: str, **arguments: Any) -> Any:
            return channel.rpc(method, deadline, doing, **arguments)

        try:
            yield ask
        finally:
            channel.close()


def _delete(ask: Ask, entity: Exchange | Binding, if_unused: bool) -> None:
    doing = f"delete {described(entity)}"
    if isinstance(entity, Binding):
        _look(ask, Exchange(entity.source))
        _look(ask, _destination(entity))
        _bind(ask, entity, "unbind")
        return
    _look(ask, entity)
    ask("exchange_delete", doing, exchange=entity.name, if_unused=if_unused)


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


def _bind(ask: Ask, binding: Binding, verb: Literal["bind", "unbind"] = "bind") -> None:
    ends = (
        {"queue": binding.destination, "exchange": binding.source}
        if binding.destination_type == "queue"
        else {"destination": binding.destination, "source": binding.source}
    )
    ask(
        f"{binding.destination_type}_{verb}",
        f"{'declare' if verb == 'bind' else 'delete'} {described(binding)}",
        routing_key=binding.routing_key,
        arguments=dict(binding.arguments),
        **ends,
    )


def _destination(binding: Binding) -> Exchange | Queue:
    if binding.destination_type == "queue":
        return Queue(binding.destination)
    return Exchange(binding.destination)
