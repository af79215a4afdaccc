"""A mailbox: asking and telling the nodes of a namespace, from anywhere.

A call to a few names goes straight to their queues, and a name that nobody has is known at once. A
call to all goes through the namespace's exchange; it ends when every node that is known to be there
has answered, and at the deadline at the latest. Who does not answer is looked for while we wait:
a node whose queue is gone is not waited for.

Timeouts are total, on the monotonic clock: from the call to its return, whatever came in between.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

from queue_core import (
    Clock,
    ConfigError,
    Connection,
    Deadline,
    Exchange,
    KeyValue,
    Message,
    PerProcess,
    Queue,
    SystemClock,
    check_count,
    check_kind,
    need_seconds,
)
from queue_core.mailbox.answers import Answers
from queue_core.mailbox.arguments import address_of, check_command, labels_of, names_of
from queue_core.mailbox.asking import Asking
from queue_core.mailbox.clock import LamportClock
from queue_core.mailbox.directory import (
    Directory,
    Labels,
    PeerDirectory,
    SharedDirectory,
    put_away,
)
from queue_core.mailbox.inbox import private_queue
from queue_core.mailbox.node import Node
from queue_core.mailbox.outbox import Outbox
from queue_core.mailbox.panel import Panel
from queue_core.mailbox.replies import Replies
from queue_core.mailbox.sending import Sender
from queue_core.mailbox.signing import Guard, SigningKey
from queue_core.mailbox.wire import (
    Address,
    Reply,
    ReplyAddress,
    read_reply,
    reply_exchange,
    reply_queue,
)
from queue_core.mailbox.wiring import Wiring

Callback = Callable[[str, Any], object]


class Mailbox:
    """Remote control of the nodes of one namespace. Thread-safe."""

    def __init__(
        self,
        namespace: str,
        connection: Connection,
        *,
        type: Literal["fanout", "direct"] = "fanout",  # noqa: A002 - as in kombu
        clock: LamportClock | None = None,
        accept: Sequence[str] = ("json",),
        store: KeyValue | None = None,
        key: SigningKey | None = None,
        keys: Iterable[SigningKey] = (),
        mixed: bool | None = None,
        time: Clock | None = None,
    ) -> None:
        """Connect and declare nothing yet.

        Args:
            namespace: nodes of one namespace hear one another; ``celery`` is celery's.
            connection: stays the caller's; it may serve other things too.
            type: of the exchange for commands.
            clock: the process's logical clock; a new one if None.
            accept: the serializers that commands and answers may come in.
            store: where names and journal are kept; the broker's own key-value store if None, and
                the nodes' memories where it has none. Its own timeout counts, also within calls
                that have less: pass ``connection.key_value(timeout=1)``.
            key: signs what this mailbox sends.
            keys: what nodes made by this mailbox obey: commands of the kinds control and admin that
                one of these signed. None given: everybody.
            mixed: programs of celery or kombu may be nodes too, of which nobody knows: a call to
                all waits until its deadline. None is True for the namespace ``celery``.
            time: for tests.
        """
        if not namespace or not isinstance(namespace, str) or type not in ("fanout", "direct"):
            raise ConfigError(
                f"a mailbox needs a namespace and a type, fanout or direct, not {namespace!r} and "
                f"{type!r}"
            )
        check_kind("connection", connection, Connection, "a Connection(...)")
        check_kind("clock", clock, LamportClock | None, "a LamportClock(...)")
        check_kind("accept", accept, list | tuple, "a list of serializers")
        check_kind("key", key, SigningKey | None, "a SigningKey(...)")
        check_kind("keys", keys, Iterable, "a list of SigningKey(...)")
        self.namespace = namespace
        self.clock = clock or LamportClock()
        self._connection = connection
        self._time = time or SystemClock()
        self._exchange = Exchange(f"{namespace}.pidbox", type, durable=False)
        self._peers = Exchange(f"{namespace}.pidbox.peers", "fanout", durable=False)
        self._accept = tuple(accept)
        self._store = store
        self._keys: dict[str, SigningKey] = {}
        for item in keys:
            check_kind("each of keys", item, SigningKey, "a SigningKey(...)")
            self._keys[item.name] = item.within(namespace)
        self._mixed = namespace == "celery" if mixed is None else mixed
        self._sender = Sender(
            connection,
            namespace,
            self._exchange,
            self._peers,
            self.clock,
            self._time,
            None if key is None else key.within(namespace),
        )
        self._replies: Replies[Reply] = Replies(
            connection,
            self._reply_queue,
            ticket=lambda message: message.headers.get("ticket"),
            read=self._read_reply,
            accept=self._accept,
        )
        self._directory: Directory | None = None
        self._outbox = PerProcess(lambda: Outbox(connection))
        self._nodes: list[Node] = []

    # --- nodes ------------------------------------------------------------------------------------

    def node(
        self,
        name: str | None = None,
        state: Any = None,
        *,
        panel: Panel | None = None,
        labels: Labels | None = None,
        on_duplicate: Literal["takeover", "refuse"] = "takeover",
    ) -> Node:
        """Return a node; `Node.start` makes it known. Blocks for a round trip the first time.

        Args:
            name: unique in the namespace; the machine's name if None.
            state: what handlers get as their first argument.
            panel: its commands; more are added with `Node.handler`.
            labels: what it can be addressed by, such as ``{"role": "web"}``.
            on_duplicate: what happens to an older node of the same name: it leaves (``takeover``),
                or this one does not start (``refuse``).
        """
        name = name or socket.gethostname()
        check_kind("name", name, str, "a string")
        check_kind("panel", panel, Panel | None, "a Panel(...)")
        if on_duplicate not in ("takeover", "refuse"):
            raise ConfigError(f"on_duplicate is takeover or refuse, not {on_duplicate!r:.60}")
        node = Node(
            name,
            self._wiring(),
            Guard(self._keys, self._time),
            state=state,
            panel=panel,
            labels=labels_of(labels),
            on_duplicate=on_duplicate,
        )
        self._nodes.append(node)
        return node

    def nodes(self, timeout: float = 1.0) -> dict[str, dict[str, str]]:
        """Return the names and labels of the nodes that are there.

        Where names are kept in a store nothing is broadcast; each node's queue is looked at. Else
        (RabbitMQ) the nodes are asked: one that does not answer in time, since it stands still, is
        there without its labels if another one, which answers, knows its name. Blocks at most about
        ``timeout`` seconds.
        """
        need_seconds("timeout", timeout, zero=True)
        directory = self._who()
        deadline = Deadline.after(timeout, self._time)
        known = directory.names(timeout)
        if known is None:
            answers = self.multi_call("qc.who", timeout=timeout)
            silent: dict[str, dict[str, str]] = {name: {} for name in answers.missing}
            return silent | {name: dict(labels) for name, labels in answers.items()}
        gone = self._sender.gone(known, deadline)
        if gone:
            put_away(directory, gone, lambda names: self._sender.gone(names, deadline))
        return {name: dict(labels) for name, labels in known.items() if name not in gone}

    # --- asking and telling -----------------------------------------------------------------------

    def call(
        self,
        destinations: Sequence[str],
        method: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: float = 1.0,
        callback: Callback | None = None,
    ) -> Answers:
        """Ask these nodes and wait for their answers; see `Answers` for what comes back.

        Args:
            destinations: names.
            method: the command.
            arguments: by name.
            timeout: seconds in all; the nodes do not run it after that.
            callback: called with node and value as each answer comes, on this thread.

        Blocks until each of them answered or is known not to exist, at most ``timeout``.

        Raises:
            TransportError: the command could not be sent.
        """
        names = names_of(destinations)
        return self._ask(method, arguments, Address(names), timeout, None, callback)

    def multi_call(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callback | None = None,
        *,
        match: str | None = None,
        regex: str | None = None,
        labels: Labels | None = None,
    ) -> Answers:
        """Ask all nodes, or those that match, and wait for their answers.

        Args:
            method, arguments, timeout, callback: as in `call`.
            limit: return after so many answers.
            match: only names that match this glob.
            regex: only names that match this regular expression from their beginning; not all
                that `re` knows is allowed, see `queue_core.mailbox.matching`.
            labels: only nodes that carry all of these.
        """
        address = address_of(match, regex, labels)
        return self._ask(method, arguments, address, timeout, limit, callback)

    def stream(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: float = 1.0,
        *,
        destinations: Sequence[str] | None = None,
        match: str | None = None,
        regex: str | None = None,
        labels: Labels | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Ask like `call` or `multi_call`, and yield node and value as they come.

        A handler that yields is seen item by item. Ends with the last answer, or at the timeout.
        """
        address = address_of(match, regex, labels)
        if destinations is not None:
            address = msgspec.structs.replace(address, names=names_of(destinations))
        yield from self._asking(method, arguments, address, timeout)

    def cast(
        self,
        destinations: Sequence[str],
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        ttl: float | None = 60.0,
    ) -> None:
        """Tell these nodes to do something; nobody answers.

        ``ttl``: seconds after which it is not worth doing. Blocks for round trips.

        Raises:
            Unroutable: no node has this name (of up to four that are named); the others are told.
        """
        address = Address(names_of(destinations))
        _check_told(method, arguments, ttl)
        self._sender.send(self._sender.command(method, arguments, address, ttl), mandatory=True)

    def abcast(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        ttl: float | None = 60.0,
        match: str | None = None,
        regex: str | None = None,
        labels: Labels | None = None,
    ) -> None:
        """Tell all nodes, or those that match, to do something; nobody answers."""
        address = address_of(match, regex, labels)
        _check_told(method, arguments, ttl)
        self._sender.send(self._sender.command(method, arguments, address, ttl))

    def close(self, timeout: float = 10.0) -> None:
        """Stop the nodes that are left and delete the reply queue. May be called twice.

        Blocks at most about ``timeout`` seconds for handlers that run, of however many nodes.
        """
        deadline = Deadline.after(timeout, SystemClock())
        for node in self._nodes:
            node.stop(0.0)  # so that they leave side by side
        for node in self._nodes:
            node.stop(deadline.remaining())
        self._replies.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    @property
    def unclaimed(self) -> int:
        """How many answers came that nobody waited for (any more)."""
        return self._replies.dropped

    @property
    def reply_queue(self) -> str:
        """The queue in which this process hears its answers; empty before its first call."""
        return self._replies.queue

    # --- inside -----------------------------------------------------------------------------------

    def _who(self) -> Directory:
        if self._directory is None:
            if (given := self._store) is not None:
                self._directory = SharedDirectory(lambda timeout: given, self.namespace, self._time)
            elif self._connection.connect().features.key_value:
                self._directory = SharedDirectory(
                    lambda timeout: self._connection.key_value(timeout=timeout),
                    self.namespace,
                    self._time,
                )
            else:
                self._directory = PeerDirectory(self._time, self._sender.tell_peers)
        return self._directory

    def _reply_queue(self, own: str) -> Queue:
        return private_queue(self._connection, reply_queue(self.namespace, own))

    def _read_reply(self, message: Message) -> Reply:
        reply = read_reply(message)
        self.clock.adjust(reply.clock)
        return reply

    def _wiring(self) -> Wiring:
        directory = self._who()
        return Wiring(
            self._connection,
            self.namespace,
            self._exchange,
            self._peers if isinstance(directory, PeerDirectory) else None,
            Exchange(reply_exchange(self.namespace), "direct", durable=False),
            self.clock,
            self._time,
            directory,
            self._accept,
            self._sender.tell,
            self._outbox.get(),
        )

    def _ask(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        address: Address,
        timeout: float,
        limit: int | None,
        callback: Callback | None,
    ) -> Answers:
        check_count("limit", limit, 1)
        if callback is not None and not callable(callback):
            raise ConfigError(f"callback is a function or None, not {callback!r:.60}")
        asking = self._asking(method, arguments, address, timeout, limit)
        for node, value in asking:
            if callback is not None:
                callback(node, value)
        return asking.answers

    def _asking(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        address: Address,
        timeout: float,
        limit: int | None = None,
    ) -> Asking:
        need_seconds("timeout", timeout, zero=True)
        check_command(method, arguments)
        deadline = Deadline.after(timeout, self._time)
        queue = self._replies.open(deadline)
        directory = self._who()
        command = self._sender.command(
            method,
            arguments,
            address,
            timeout,
            reply_to=ReplyAddress("", queue.name),
            peers=address.names is None and isinstance(directory, PeerDirectory),
        )
        return Asking(
            command,
            deadline,
            self._sender,
            self._replies,
            directory,
            limit=limit,
            mixed=self._mixed,
        )


def _check_told(method: str, arguments: Mapping[str, Any] | None, ttl: float | None) -> None:
    check_command(method, arguments)
    if ttl is not None:
        need_seconds("ttl", ttl, zero=True)
