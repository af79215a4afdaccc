"""Keeping one session alive: connect, repeat, reopen, replay.

This is the only place that reconnects. `Recovery.call` runs an operation on the current session;
when the broker went away it waits with full jitter and runs it again, until the caller's deadline.
A session that is over is replaced by a new one, on which everything that this connection declared
and subscribed to is declared and subscribed to again.

The rules:

- The first connect is tried once per URL and raises; an application that starts with a wrong URL
  must hear it. Later ones go on as long as callers wait.
- An error that waiting cannot mend (wrong password, other arguments) passes through at once.
- What was lost while the connection was down - a queue that somebody deleted, or declared with
  other arguments - is logged, and reported by each consumer of that queue, once. It is not declared
  or subscribed to again, and everything else goes on.
- A forked child abandons the parent's session without touching its sockets, and opens its own. What
  the parent consumed from, its exclusive queues and the node's name, if the parent has connected
  under it, are not the child's.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from queue_core.errors import (
    AccessRefused,
    Closed,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    QueueNotFound,
    SessionLost,
    TransportError,
)
from queue_core.policy import Backoff, Deadline, retry
from queue_core.process import process_id
from queue_core.topology import Binding, Entity, Exchange, Queue
from queue_core.transport import (
    Detector,
    Durability,
    Session,
    SessionOptions,
    Survives,
    Transport,
)
from queue_core.url import BrokerURL

T = TypeVar("T")

logger = logging.getLogger(__name__)

Endpoint = tuple[BrokerURL, Transport]

PATIENCE = 2
"""Leases for which an exclusive queue may be held for our earlier connection, at most."""


LEAST = 0.1
"""Seconds that each step of opening a session may take, however little time its caller has.

Else who polls would give up each new session half-way, and never have one. A broker that stands
still makes its caller late by one such step.
"""


class Recovery:
    """The session of one `Connection`, replaced when it is lost. Thread-safe."""

    def __init__(
        self, endpoints: Sequence[Endpoint], options: SessionOptions, backoff: Backoff
    ) -> None:
        """Prepare; nothing is connected before the first call.

        ``endpoints`` are tried in order, from the last good one on.
        """
        self._endpoints = list(endpoints)
        self._options = options
        self._backoff = backoff
        self._closing = threading.Event()
        self._entities: dict[tuple[str, ...], Entity] = {}
        self._subscriptions: dict[tuple[str, str], int] = {}
        self._lost: dict[tuple[str, str], QueueCoreError] = {}
        self._durability = Durability(found="not connected yet: call connect() first")
        self._warned: set[str] = set()
        self._start_process()

    def _start_process(self) -> None:
        self._opening = threading.Lock()  # held by the one thread that opens a session
        self._swapping = threading.Lock()  # held while self._session changes, a moment
        self._session: Session | None = None
        self._connected_before = False
        self._origin = os.urandom(6).hex()
        self._down = False
        self._held_since: float | None = None
        self._pid = process_id()  # last: who finds it relies on the rest

    @property
    def options(self) -> SessionOptions:
        """What is asked of each session."""
        return self._options

    @property
    def endpoint(self) -> Endpoint:
        """The URL and transport of the current session, or those that will be tried first."""
        return self._endpoints[0]

    @property
    def session(self) -> Session | None:
        """The session if one is open. Does not connect."""
        self._check_process()
        session = self._session
        return None if session is None or session.closed else session

    @property
    def durability(self) -> Durability:
        """What was detected when the last session opened."""
        return self._durability

    def call(
        self, operation: Callable[[Session, float], T], *, timeout: float | Deadline | None
    ) -> T:
        """Return ``operation(session, seconds left)``, repeated across lost connections.

        ``operation`` must be safe to repeat. Blocks at most for ``timeout`` seconds or until that
        deadline (None: for ever), and the time that the operation itself overstays; also for
        what a broker needs that answers each step of opening a session within `LEAST` seconds.

        Raises:
            Closed: the connection is closed, also while waiting.
            ConnectionLost, ConnectTimeout: the broker stayed away until the deadline, or the first
                connect failed.
            QueueCoreError: whatever the operation raises that waiting cannot mend.
        """
        deadline = (
            timeout
            if isinstance(timeout, Deadline)
            else Deadline.after(timeout, self._options.clock)
        )

        try:
            return self._attempt(operation, deadline)
        except TransportError as error:
            return self._again(operation, deadline, error)

    def _attempt(self, operation: Callable[[Session, float], T], deadline: Deadline) -> T:
        session = self.session or self._open(deadline)
        try:
            result = operation(session, deadline.remaining())
        except (ConnectionLost, SessionLost) as error:
            self._abandon(session, error)
            raise
        except Closed as error:
            if self._closing.is_set() or not session.closed:
                raise
            raise SessionLost("another thread has given the session up meanwhile") from error
        if self._down:
            self._note_up()
        return result

    def _again(
        self,
        operation: Callable[[Session, float], T],
        deadline: Deadline,
        failed: TransportError,
    ) -> T:
        """Go on after a first attempt that failed."""
        try:
            return retry(
                partial(self._attempt, operation, deadline),
                backoff=self._backoff,
                deadline=deadline,
                clock=self._options.clock,
                wait=self._closing.wait,
                retryable=self._worth_waiting,
                on_retry=self._note_down,
                failed=failed,
            )
        except TransportError as error:
            if self._closing.is_set():
                raise Closed(
                    "the connection was closed while the call waited for the broker"
                ) from error
            raise

    # --- what to replay ---------------------------------------------------------------------------

    def declare(self, entity: Entity, *, timeout: float) -> Entity:
        """Declare now and on each later session; return the entity, named if it had no name."""
        deadline = Deadline.after(timeout, self._options.clock)

        def declare(session: Session, left: float) -> tuple[Session, str]:
            return session, session.declare(entity, timeout=left)

        while True:
            session, name = self.call(declare, timeout=deadline)
            if isinstance(entity, Queue) and not entity.name:
                entity = replace(entity, name=name)
            self._entities[_key(entity)] = entity
            if self.session is session:
                return entity  # else it was replaced, and its successor may not have heard of this

    def delete(self, entity: Entity, *, if_unused: bool, if_empty: bool, timeout: float) -> bool:
        """Delete now, and declare it on no later session; return whether it existed."""
        deadline = Deadline.after(timeout, self._options.clock)
        existed = False

        def delete(session: Session, left: float) -> tuple[Session, bool]:
            return session, session.delete(
                entity, if_unused=if_unused, if_empty=if_empty, timeout=left
            )

        while True:
            session, found = self.call(delete, timeout=deadline)
            existed |= found
            self.forget(entity)
            if self.session is session:
                return existed  # else it was replaced, and its successor may have declared this

    def forget(self, entity: Entity) -> None:
        """Stop declaring this, and the bindings that lead to or from it."""
        self._entities.pop(_key(entity), None)
        if isinstance(entity, Exchange | Queue):
            name = entity.name
            for key, known in list(self._entities.items()):
                if isinstance(known, Binding) and name in (known.source, known.destination):
                    self._entities.pop(key, None)

    def subscribe(self, consumer: str, queue: str, prefetch: int, *, timeout: float) -> None:
        """Subscribe now and on each later session; nothing happens if it is subscribed."""
        self._check_process()
        if (consumer, queue) in self._subscriptions:
            return
        deadline = Deadline.after(timeout, self._options.clock)

        def subscribe(session: Session, left: float) -> Session:
            session.subscribe(consumer, queue, prefetch=prefetch, timeout=left)
            return session

        while True:
            session = self.call(subscribe, timeout=deadline)
            self._subscriptions[(consumer, queue)] = prefetch
            if self.session is session:
                return  # else it was replaced, and its successor may not have heard of this

    def unsubscribe(self, consumer: str, queue: str | None) -> None:
        """Do not subscribe again. The session itself is told by the caller."""
        for key in list(self._subscriptions):
            if key[0] == consumer and queue in (None, key[1]):
                self._subscriptions.pop(key, None)

    def take_lost(self, consumer: str) -> QueueCoreError | None:
        """Return, once for each, the error of a subscription that could not be replayed."""
        if not self._lost:
            return None
        found = next((key for key in list(self._lost) if key[0] == consumer), None)
        return None if found is None else self._lost.pop(found, None)

    # --- opening ----------------------------------------------------------------------------------

    def _open(self, deadline: Deadline) -> Session:
        if not self._opening.acquire(timeout=min(deadline.remaining(), threading.TIMEOUT_MAX)):
            raise ConnectTimeout(
                f"{self._endpoints[0][0]} is still being connected by another thread"
            )
        try:
            if self._closing.is_set():
                raise Closed("the connection is closed; open a new Connection")
            if (session := self.session) is not None:
                return session
            session = self._try_endpoints(deadline)
            try:
                self._durability = detect(session)
                replayed = self._replay(session, deadline)
            except BaseException:
                _close_quietly(session)
                raise
            self._connected_before = True  # before anybody finds the session, and loses it
            self._held_since = None
            with self._swapping:
                self._session = session
            self._end_forgotten(session, replayed)
            if self._closing.is_set():  # `close` may have looked before there was a session
                _close_quietly(session)
                raise Closed("the connection is closed; open a new Connection")
            self._warn()
            return session
        finally:
            self._opening.release()

    def _try_endpoints(self, deadline: Deadline) -> Session:
        error: TransportError | None = None
        for _ in range(len(self._endpoints)):
            url, transport = self._endpoints[0]
            seconds = max(LEAST, deadline.bound(self._options.connect_timeout))
            try:
                options = replace(
                    self._options,
                    connect_timeout=seconds,
                    origin=self._origin,
                    again=self._connected_before,
                )
                return transport.open(url, options)
            except TransportError as failed:
                error = failed
                self._endpoints.append(self._endpoints.pop(0))
        assert error is not None, "there is at least one endpoint"
        raise error

    def _replay(self, session: Session, deadline: Deadline) -> list[tuple[str, str]]:
        """Declare and subscribe again; return the subscriptions."""
        for entity in list(self._entities.values()):
            try:
                session.declare(entity, timeout=max(LEAST, deadline.bound(self._options.timeout)))
            except AccessRefused as error:
                if isinstance(entity, Queue) and entity.exclusive:
                    if error.retryable and self._patient():
                        raise ConnectionLost(
                            f"the broker still holds the exclusive queue {entity.name!r} for our "
                            "earlier connection; it has not noticed yet that that one ended"
                        ) from error
                    self._entities.pop(_key(entity), None)  # another process has it now
                self._give_up(entity, error)
            except (ConnectionLost, SessionLost, Closed):
                raise
            except QueueCoreError as error:
                self._give_up(entity, error)
        subscribed = []
        for (consumer, queue), prefetch in list(self._subscriptions.items()):
            try:
                session.subscribe(
                    consumer,
                    queue,
                    prefetch=prefetch,
                    timeout=max(LEAST, deadline.bound(self._options.timeout)),
                )
            except (ConnectionLost, SessionLost, Closed):
                raise
            except QueueCoreError as error:
                self.unsubscribe(consumer, queue)
                self._lost.setdefault((consumer, queue), error)
            else:
                subscribed.append((consumer, queue))
        return subscribed

    def _end_forgotten(self, session: Session, replayed: Sequence[tuple[str, str]]) -> None:
        """End what was unsubscribed by threads that did not find this session yet."""
        for consumer, queue in replayed:
            if (consumer, queue) not in self._subscriptions:
                try:
                    session.cancel(consumer, queue, timeout=self._options.timeout)
                except QueueCoreError as error:
                    logger.debug("cancelling consumer %s failed: %s", consumer, error)

    def _patient(self) -> bool:
        """Whether what the broker holds may be held for our earlier connection, which it keeps."""
        now = self._options.clock.monotonic()
        if self._held_since is None:
            self._held_since = now
        return now - self._held_since < PATIENCE * self._options.lease

    def _give_up(self, entity: Entity, error: QueueCoreError) -> None:
        """Do without a declaration that failed, and see to it that its users hear of it."""
        if not isinstance(error, TransportError) or isinstance(error, QueueNotFound):
            self._entities.pop(_key(entity), None)  # else a later reconnect may succeed
        what = " ".join(repr(part) if index else part for index, part in enumerate(_key(entity)))
        logger.error("the %s could not be declared again after a reconnect: %s", what, error)
        error.add_note(f"It came up after a reconnect, when the {what} was declared again.")
        name = entity.destination if isinstance(entity, Binding) else entity.name
        if not isinstance(entity, Exchange):
            for consumer, queue in list(self._subscriptions):
                if queue == name:
                    self._lost[consumer, queue] = error

    def _warn(self) -> None:
        """Log what weakens the broker's promise, once for each connection."""
        weak = self._durability.survives < Survives.SERVER_CRASH
        for warning in self._durability.warnings:
            if (text := str(warning)) not in self._warned:
                self._warned.add(text)
                level = logging.WARNING if weak else logging.INFO
                logger.log(level, "broker %s: %s", self._endpoints[0][0], text)

    def _abandon(self, session: Session, error: TransportError) -> None:
        if not session.closed and not isinstance(error, SessionLost):
            return  # the session survives this: its next call reconnects
        with self._swapping:
            if self._session is session:
                self._session = None
        _close_quietly(session)

    def _worth_waiting(self, error: Exception) -> bool:
        return (
            self._connected_before
            and isinstance(error, ConnectionLost | SessionLost)
            and not self._closing.is_set()
        )

    def _note_down(self, error: Exception, attempt: int, delay: float) -> None:
        level = logging.DEBUG if self._down else logging.WARNING
        self._down = True
        logger.log(
            level,
            "broker %s lost (%s); attempt %d in %.1f s",
            self._endpoints[0][0],
            error,
            attempt + 1,
            delay,
        )

    def _note_up(self) -> None:
        self._down = False
        logger.info("broker %s is back", self._endpoints[0][0])

    def _check_process(self) -> None:
        if process_id() != self._pid:
            # The sockets and locks belong to the parent: using or closing them would disturb it.
            self._subscriptions.clear()
            if self._connected_before or self._opening.locked():
                self._options = replace(self._options, node="")  # that is the parent's name
            for entity in list(self._entities.values()):
                if isinstance(entity, Queue) and entity.exclusive:
                    self.forget(entity)
            self._start_process()

    def close(self, *, timeout: float) -> None:
        """End the session and refuse further calls; may be called twice.

        Blocks at most ``timeout`` seconds, about.
        """
        self._closing.set()
        self._check_process()
        with self._swapping:
            session, self._session = self._session, None
        if session is not None:
            _close_quietly(session, timeout)

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._closing.is_set()


def detect(session: Session, queue: str = "") -> Durability:
    """Return what the session's broker promises; unknown if the session cannot tell."""
    return session.durability(queue) if isinstance(session, Detector) else Durability()


def _key(entity: Entity) -> tuple[str, ...]:
    if isinstance(entity, Binding):
        arguments = repr(sorted(entity.arguments.items()))
        return (
            "binding",
            entity.source,
            entity.destination_type,
            entity.destination,
            entity.routing_key,
            arguments,
        )
    return (type(entity).__name__.lower(), entity.name)


def _close_quietly(session: Session, timeout: float = 1.0) -> None:
    try:
        session.close(timeout=timeout)
    except TransportError as error:
        logger.debug("closing a session failed: %s", error)
