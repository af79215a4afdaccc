"""Sending commands: to a few names straight, to all through the namespace's exchange.

A command to up to `FEW` names is published to their queues, and a name that nobody has is known at
once; beyond that, or to all, one message to the exchange is cheaper.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from queue_core import (
    Clock,
    Connection,
    Deadline,
    Exchange,
    PublishError,
    QueueNotFound,
    TransportError,
    Unroutable,
    fresh_uuid,
)
from queue_core.mailbox.clock import LamportClock
from queue_core.mailbox.signing import SigningKey
from queue_core.mailbox.wire import CALL, Address, Command, node_queue

logger = logging.getLogger(__name__)

FEW: Final = 4
"""Up to so many names are written to one by one."""
TALK_TTL: Final = 300.0
"""Seconds that what nodes say among themselves is worth hearing."""


class Sender:
    """Makes commands of one namespace and sends them. Thread-safe."""

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        exchange: Exchange,
        peers: Exchange,
        clock: LamportClock,
        time: Clock,
        key: SigningKey | None,
    ) -> None:
        """Declare nothing yet.

        Args:
            connection: stays the caller's.
            namespace: part of the names of the nodes' queues.
            exchange: reaches all nodes.
            peers: reaches all nodes of ours where they talk among themselves.
            clock: stamps the commands.
            time: for their signatures.
            key: signs them, if there is one.
        """
        self._connection = connection
        self._namespace = namespace
        self._exchange = exchange
        self._peers = peers
        self._clock = clock
        self._time = time
        self._key = key
        self._producer = connection.producer()
        self._declared = False

    def command(
        self,
        method: str,
        arguments: Mapping[str, Any] | None,
        address: Address,
        ttl: float | None,
        **more: Any,
    ) -> Command:
        """Return a new command, stamped, and signed if there is a key; see `Command`."""
        command = Command(
            method,
            arguments or {},
            fresh_uuid(),
            address,
            ttl=ttl,
            expires=None if ttl is None else self._time.time() + ttl,
            clock=self._clock.forward(),
            **more,
        )
        return command if self._key is None else self._key.sign(command, self._time)

    def send(
        self, command: Command, *, mandatory: bool = False, timeout: float | None = None
    ) -> set[str]:
        """Send a command; return the names that nobody has, where that is known.

        Blocks at most ``timeout`` seconds in all; None is the connection's timeout for each name.

        Raises:
            Unroutable: nobody has a name, and it is ``mandatory`` that somebody has; the others
                have the command.
            NotConfirmed, TransportError: it could not be sent, or nobody can tell whether it was.
        """
        names = command.address.names
        if names is None or len(names) > FEW:
            self._publish(command, self._exchange.name, "", mandatory=False, timeout=timeout)
            return set()
        alone = timeout is None or len(names) == 1
        deadline = None if alone else Deadline.after(timeout, self._time)
        unknown = set()
        for name in names:
            left = timeout if deadline is None else deadline.remaining()
            queue = node_queue(self._namespace, name)
            try:
                self._publish(command, "", queue, mandatory=True, timeout=left)
            except Unroutable:
                unknown.add(name)
        if mandatory and unknown:
            missing = ", ".join(repr(name) for name in names if name in unknown)
            raise Unroutable(f"there is no node {missing} in the namespace {self._namespace!r}")
        return unknown

    def _publish(
        self,
        command: Command,
        exchange: str,
        key: str,
        *,
        mandatory: bool,
        timeout: float | None = None,
    ) -> None:
        if exchange and not self._declared:
            self._connection.declare(self._exchange)
            self._declared = True
        self._producer.publish(
            command.body(),
            key,
            exchange=exchange,
            headers=command.headers(),
            serializer="json",
            ttl=command.ttl,
            priority=0 if command.reply_to is None else CALL,
            mandatory=mandatory,
            timeout=timeout,
        )

    def tell(self, node: str, method: str, arguments: Mapping[str, Any]) -> None:
        """Send a command of nodes among themselves; that nobody is there is no error."""
        self.send(self.command(method, arguments, Address((node,)), TALK_TTL))

    def tell_peers(self, method: str, arguments: Mapping[str, Any]) -> None:
        """Send a command of nodes among themselves to all of them."""
        self._connection.declare(self._peers)
        command = self.command(method, arguments, Address(), TALK_TTL)
        self._publish(command, self._peers.name, "", mandatory=False)

    def gone(self, names: Iterable[str], deadline: Deadline) -> set[str]:
        """Return those whose queue does not exist: an empty message finds nobody there.

        Of whom nothing can be learned, because the broker is away or the deadline near, is taken
        for being there. Blocks until the deadline at most.
        """
        gone = set()
        for name in names:
            if deadline.expired:
                break
            try:
                self._producer.publish(
                    b"",
                    node_queue(self._namespace, name),
                    content_type="application/octet-stream",
                    ttl=0,
                    durable=False,
                    timeout=max(0.05, deadline.remaining()),
                )
            except (Unroutable, QueueNotFound):
                gone.add(name)
            except (PublishError, TransportError) as error:
                logger.debug("whether node %s is there cannot be told: %s", name, error)
                break
        return gone
