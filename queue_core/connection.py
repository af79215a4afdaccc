"""The client's front door: one object per broker, thread-safe, connecting when first needed.

A connection opens one session at its transport, keeps it alive (`queue_core.recovery`), and hands
out producers and consumers. What it declared and subscribed to is declared and subscribed to again
after a reconnect. Closing it sends what is settled, returns what is not, and ends its threads.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Never, Self, TypeVar, overload

from queue_core.arguments import check_flags, check_kind, need_seconds, refuse_options
from queue_core.consumer import Consumer
from queue_core.errors import ConfigError, Unsupported
from queue_core.key_value import RecoveredKeyValue
from queue_core.policy import Backoff, Clock, Deadline, SystemClock
from queue_core.producer import Producer
from queue_core.recovery import Recovery, detect
from queue_core.registry import check_transport, find_transport
from queue_core.schema import Migrator, Schema
from queue_core.serialization import DEFAULT_CODECS, DEFAULT_LIMITS, Codecs, Limits
from queue_core.simple_queue import SimpleQueue
from queue_core.topology import Binding, Entity, Exchange, Queue, check_routing_key, queue_name
from queue_core.transport import (
    Durability,
    Features,
    KeyValue,
    QueueInfo,
    SessionOptions,
    Transport,
)
from queue_core.url import parse, parse_alternates

E = TypeVar("E", Exchange, Queue, Binding)


class Connection:
    """A broker, by URL. A context manager; everything it hands out is closed with it."""

    def __init__(
        self,
        url: str,
        *,
        lease: float = 30.0,
        node: str = "",
        timeout: float = 10.0,
        connect_timeout: float = 10.0,
        backoff: Backoff | None = None,
        create: bool = True,
        transport: Transport | None = None,
        codecs: Codecs = DEFAULT_CODECS,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        **unknown: Never,
    ) -> None:
        """Check the URL and load its transport; nothing is connected yet.

        Args:
            url: for example ``sqlite:///queue.db``, ``amqp://user:password@host:5672//``,
                ``memory://name``. Several, separated by ``;``, are tried in turn.
            lease: seconds after which a dead process's unacked messages return to their queues.
            node: a name for this process, or empty: connecting again under the same name returns
                the older one's messages at once. A process that is forked after that has none.
            timeout: seconds within which each call must be answered.
            connect_timeout: seconds for each attempt to connect.
            backoff: the waits between attempts to reconnect; 0.5 to 30 seconds with full jitter if
                None.
            create: False for who only looks: a database that holds nothing of queue_core, or a file
                that does not exist, is refused with ConfigError instead of being made.
            transport: use this one instead of looking the scheme up.
            codecs, limits: which serializers there are, and how large messages may be.
            clock: for tests.

        Raises:
            ConfigError: the URL or an option in it is not understood, or its driver is not
                installed; or there is no such argument.
        """
        if unknown:
            refuse_options("Connection", unknown, Connection.__init__.__kwdefaults__)
        for what, seconds in (
            ("lease", lease),
            ("timeout", timeout),
            ("connect_timeout", connect_timeout),
        ):
            need_seconds(what, seconds)
        check_kind("node", node, str, "a name")
        if backoff is not None:
            check_kind("backoff", backoff, Backoff, "a Backoff(...)")
        check_kind("codecs", codecs, Codecs, "a Codecs(...)")
        check_kind("limits", limits, Limits, "a Limits(...)")
        check_kind("clock", clock, Clock | None, "a SystemClock() or one like it")
        check_flags(create=create)
        urls = parse_alternates(url)
        endpoints = [(item, _transport_for(item.scheme, transport)) for item in urls]
        for item, found in endpoints:
            found.check(item)
        options = SessionOptions(
            lease=lease,
            node=node,
            connect_timeout=connect_timeout,
            timeout=timeout,
            create=create,
            clock=clock or SystemClock(),
        )
        self._recovery = Recovery(endpoints, options, backoff or Backoff())
        self._timeout = timeout
        self._codecs = codecs
        self._limits = limits
        self._consumers: weakref.WeakValueDictionary[int, Consumer] = weakref.WeakValueDictionary()

    # --- the connection itself --------------------------------------------------------------------

    @classmethod
    def explain(cls, url: str) -> str:
        """Say in words what a URL means: transport, host, options, password masked.

        Does not connect. Raises ConfigError.
        """
        lines = []
        for item in parse_alternates(url):
            transport = find_transport(item.scheme)
            transport.check(item)
            lacks = transport.features.lacks()
            can = [name for name in transport.features.describe() if name not in lacks]
            lines.append(f"{item}\n  transport {transport.name}")
            if item.host:
                lines.append(
                    f"  server    {item.host}{f':{item.port}' if item.port else ''}, user "
                    f"{item.user or '(none)'}"
                )
            if item.database:
                lines.append(f"  path      {item.database}")
            lines.append(f"  can       {', '.join(can)}")
            lines.append(f"  cannot    {', '.join(lacks) or '-'}")
        return "\n".join(lines)

    @classmethod
    def schema(cls, url: str, *, upgrade: bool = False, timeout: float = 10.0) -> Schema:
        """Connect to a broker that is a database, and say which version its tables have.

        With ``upgrade`` the tables are made, or get what they lack: what every connection does when
        it opens, unless its URL has ``upgrade=false``. Blocks at most about ``timeout`` seconds,
        and for as long as the database works on an upgrade. Any thread.

        Raises:
            Unsupported: this broker has no tables.
            StoreCorrupt: the tables are of another major version, or not ours.
            ConfigError, AccessRefused, ConnectionLost, ConnectTimeout: as they say.
        """
        found = parse(url)
        transport = find_transport(found.scheme)
        if not isinstance(transport, Migrator):
            raise Unsupported("schema", transport.name, "it has no tables to look at or to upgrade")
        return transport.schema(found, upgrade=upgrade, timeout=timeout)

    @property
    def url(self) -> str:
        """The URL in use, password masked."""
        return str(self._recovery.endpoint[0])

    @property
    def features(self) -> Features:
        """What the broker can do.

        As found when connected, else what its transport can do in general. Print it for a table.
        """
        session = self._recovery.session
        return session.features if session is not None else self._recovery.endpoint[1].features

    @property
    def durability(self) -> Durability:
        """How well the broker keeps what it confirmed, as detected when the connection was made.

        ``durability.survives >= Survives.POWER_CUT`` asks for enough; print it for all that was
        found, with the remedy for each weak setting. What is weak is also logged once, as a
        warning. Before the first use, `connect` included, it is unknown. On RabbitMQ it depends on
        the queue: see `durability_of`. Does not block.
        """
        return self._recovery.durability

    def durability_of(self, queue: Queue | str) -> Durability:
        """Detect now how well the broker keeps the messages of one queue.

        On stores, that is how well it keeps any. Blocks for a few round trips. Raises
        QueueNotFound.
        """
        return self._recovery.call(
            lambda session, left: detect(session, queue_name(queue)), timeout=self._timeout
        )

    @property
    def closed(self) -> bool:
        """It was closed."""
        return self._recovery.closed

    def connect(self, timeout: float | None = None) -> Self:
        """Connect now instead of at the first use; returns itself.

        Blocks at most ``timeout`` seconds (the connection's if None).

        Raises:
            ConnectionLost, ConnectTimeout, AccessRefused, StoreCorrupt: see `queue_core.errors`.
        """
        self._recovery.call(
            lambda session, left: None, timeout=self._timeout if timeout is None else timeout
        )
        return self

    def close(self) -> None:
        """End: acks are sent, unsettled messages go back uncounted, exclusive queues are deleted.

        Every consumer is closed and every thread has ended when it returns. May be called twice.
        Blocks at most about twice the connection's timeout, however many consumers there are.
        """
        deadline = Deadline.after(self._timeout, self._recovery.options.clock)

        def close(consumer: Consumer) -> None:
            consumer.close(deadline.remaining())

        def end() -> None:
            self._recovery.close(timeout=max(deadline.remaining(), self._timeout / 10))

        with ExitStack() as stack:  # each is done, even if one before it fails
            stack.callback(end)
            if not self._recovery.closed:
                for ref in self._consumers.valuerefs():  # which others may add to meanwhile
                    if (consumer := ref()) is not None:
                        stack.callback(close, consumer)

    def __enter__(self) -> Self:
        """Return itself; the connection is made when first needed."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Show the URL without its password."""
        return f"<Connection {self.url}{' closed' if self.closed else ''}>"

    # --- topology ---------------------------------------------------------------------------------

    @overload
    def declare(self, entity: E, /, *, passive: bool = False) -> E: ...

    @overload
    def declare(
        self, entity: Entity, second: Entity, /, *more: Entity, passive: bool = False
    ) -> tuple[Entity, ...]: ...

    def declare(
        self, entity: Entity, /, *more: Entity, passive: bool = False
    ) -> Entity | tuple[Entity, ...]:
        """Create exchanges, queues and bindings unless they are there, in the order given.

        They are declared again after each reconnect. Blocks at most the connection's timeout for
        each.

        Args:
            entity: what should exist. A queue brings its exchange and bindings.
            more: more of them.
            passive: create nothing, only check that they exist.

        Returns:
            The entity, or a tuple of them if several were given; a queue without a name comes back
            with one.

        Raises:
            TopologyMismatch: it exists with other arguments.
            QueueNotFound: something that it refers to does not exist.
            Unsupported: the transport cannot do what it asks for.
            ConfigError: something else than an exchange, a queue or a binding was given.
        """
        done = tuple(self._declare(item, passive) for item in (entity, *more))
        return done if more else done[0]

    def _declare(self, entity: Entity, passive: bool) -> Entity:  # noqa: FBT001 - private
        _check_entity(entity)
        if not passive:
            return self._recovery.declare(entity, timeout=self._timeout)
        self._recovery.call(
            lambda session, left: session.declare(entity, passive=True, timeout=left),
            timeout=self._timeout,
        )
        return entity

    def delete(self, entity: Entity, *, if_unused: bool = False, if_empty: bool = False) -> bool:
        """Delete an exchange, a queue with its messages, or a binding; return whether it existed.

        Blocks at most the connection's timeout, like `declare`, `inspect` and `purge`.

        Raises:
            TopologyMismatch: it is in use or not empty, and ``if_unused`` or ``if_empty`` asked to
                look.
        """
        _check_entity(entity)
        return self._recovery.delete(
            entity, if_unused=if_unused, if_empty=if_empty, timeout=self._timeout
        )

    def inspect(self, queue: Queue | str) -> QueueInfo:
        """Count a queue's messages and consumers. Raises QueueNotFound."""
        return self._recovery.call(
            lambda session, left: session.inspect(queue_name(queue), timeout=left),
            timeout=self._timeout,
        )

    def purge(self, queue: Queue | str) -> int:
        """Delete the messages that wait in a queue, not the unacked ones; return how many.

        Raises QueueNotFound.
        """
        return self._recovery.call(
            lambda session, left: session.purge(queue_name(queue), timeout=left),
            timeout=self._timeout,
        )

    # --- publishing and consuming -----------------------------------------------------------------

    def producer(
        self,
        exchange: Exchange | str = "",
        *,
        serializer: str | None = None,
        compression: str | None = None,
        **unknown: Never,
    ) -> Producer:
        """Return a producer for an exchange (the default exchange if empty).

        Does not declare or connect.
        """
        if unknown:
            refuse_options("producer", unknown, Connection.producer.__kwdefaults__)
        return Producer(
            self._recovery,
            exchange.name
            if isinstance(exchange, Exchange)
            else check_routing_key(exchange, "name of an exchange"),
            serializer=serializer,
            compression=compression,
            codecs=self._codecs,
            limits=self._limits,
            timeout=self._timeout,
        )

    def consumer(
        self,
        *queues: Queue | str,
        prefetch: int = 100,
        accept: Sequence[str] | None = None,
        decode: bool = True,
        **unknown: Never,
    ) -> Consumer:
        """Return a consumer of one or more declared queues.

        Subscribes at its first `receive`, or when entered with ``with``.

        Args:
            queues: what to consume. Given as `Queue` values, the consumer knows their dead-letter
                exchange and ``max_deliveries``.
            prefetch: how many unsettled messages of each queue may be here at once, 1 to 65535.
            accept: which serializers to decode, by name or content type; None is the safe ones (all
                but pickle).
            decode: False hands messages out undecoded; their ``payload`` then decodes, or raises,
                when asked for.
        """
        if unknown:
            refuse_options("consumer", unknown, Connection.consumer.__kwdefaults__)
        consumer = Consumer(
            self._recovery,
            queues,
            prefetch=prefetch,
            accept=accept,
            decode=decode,
            codecs=self._codecs,
            limits=self._limits,
            timeout=self._timeout,
        )
        self._consumers[id(consumer)] = consumer
        return consumer

    def simple_queue(self, name: Queue | str, **unknown: Never) -> SimpleQueue:
        """Declare a queue if needed and return a `queue.Queue` look-alike for it.

        Blocks for a round trip.
        """
        if unknown:
            refuse_options("simple_queue", unknown, ("name",))
        queue = self.declare(Queue(name) if isinstance(name, str) else name)
        return SimpleQueue(queue.name, self.producer(), self.consumer(queue, prefetch=1))

    def key_value(self, *, timeout: float | None = None) -> KeyValue:
        """Return the broker's key-value store, thread-safe and reconnecting.

        Each of its calls is repeated for ``timeout`` seconds while the broker is away (the
        connection's if None), and so is this one. A key that no broker could have, or a ttl beyond
        68 years, is a ConfigError.

        Conditional changes, counts and deletions are not repeated when a connection breaks under
        them: they raise ConnectionLost, since nobody can tell whether they happened.

        Raises Unsupported where there is none.
        """
        found = RecoveredKeyValue(self._recovery, self._timeout if timeout is None else timeout)
        found.connect()
        return found


def _check_entity(entity: object) -> None:
    if not isinstance(entity, Exchange | Queue | Binding):
        raise ConfigError(
            f"an Exchange, a Queue or a Binding is needed, not {type(entity).__name__}; "
            'write Queue("name"), and declare(*entities) for several'
        )


def _transport_for(scheme: str, given: Transport | None) -> Transport:
    return find_transport(scheme) if given is None else check_transport(scheme, given)
