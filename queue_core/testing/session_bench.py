"""What the tests of `SessionSuite` stand on: a bench that opens sessions and says things briefly.

A `Bench` belongs to one test. It makes names that nobody else uses, so that it does not matter
whether the broker is empty, it remembers every session that it opened, and puts everything away at
the end. A `Tap` is one consumer in a test's hand.

Where a transport's answers are immediate (``strict``), the bench looks once; a real broker gets
until ``patience``.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import pytest

from queue_core.errors import QueueCoreError, QueueNotFound, TransportError
from queue_core.message import Properties, Publication
from queue_core.testing.eventually import eventually
from queue_core.testing.session_tap import Tap
from queue_core.topology import Binding, Entity, Exchange, ExchangeType, Queue
from queue_core.transport import Features, Outcome, Session

OpenSession = Callable[..., Session]
E = TypeVar("E", Exchange, Queue, Binding)


@runtime_checkable
class _Ticking(Protocol):
    """An emulated session that was opened with ``keeper=False``."""

    def tick(self) -> object:
        """Do what the keeper thread would do now."""


class SessionTests:
    """What a transport says about itself; the base of every part of `SessionSuite`.

    Attributes:
        transport: the name that `Unsupported` errors carry.
        strict: what a session's call did is visible at once to every session. False waits for it.
        lease: seconds; of the sessions that the tests let crash.
        patience: seconds that anything may take at most.
        quiet: seconds without a message after which a test believes that none comes.
        arguments: broker arguments of a queue, for transports with `Features.arguments`.
        spared: crashes beyond ``max_deliveries`` that a message may survive, where a broker cannot
            tell a crash from a polite return and so gives up later.
    """

    transport: ClassVar[str] = ""
    strict: ClassVar[bool] = True
    lease: ClassVar[float] = 1.0
    patience: ClassVar[float] = 30.0
    quiet: ClassVar[float] = 0.05
    arguments: ClassVar[Mapping[str, object]] = {"x-max-length": 3}
    spared: ClassVar[int] = 0

    def crash(self, session: Session) -> None:
        """Make ``session`` die as with its process: nothing is returned, nothing said goodbye to.

        Nothing needs doing for an emulated session: its heartbeat, which the bench makes, has
        stopped. A session on a socket closes the socket under its feet.
        """

    def begin(self) -> tuple[object, Callable[[bool], None]]:
        """Begin a transaction of the caller's own; only with `Features.transactions`.

        Returns its handle, and a function that ends it: True commits, False rolls back.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs begin(): the transport has transactions"
        )

    @pytest.fixture
    def bench(self, open_session: OpenSession) -> Iterator[Bench]:
        """Give the test its bench, and put everything away afterwards."""
        bench = Bench(self, open_session)
        try:
            yield bench
        finally:
            bench.close()


class Bench:
    """Sessions, names and shorthands for one test."""

    def __init__(self, suite: SessionTests, open_session: OpenSession) -> None:
        self.suite = suite
        self.strict = suite.strict
        self.lease = suite.lease
        self.patience = suite.patience
        self._open = open_session
        self._sessions: list[Session] = []
        self._hearts: dict[int, _Heart] = {}
        self._made: dict[tuple[type[Entity], str], Entity] = {}
        self._main: Session | None = None

    # sessions

    def open(self, **options: Any) -> Session:
        """Open one more session to the same broker; ``options`` are fields of `SessionOptions`."""
        options.setdefault("lease", self.lease)
        session = self._open(**options)
        self._sessions.append(session)
        return session

    def open_mortal(self, **options: Any) -> Session:
        """Open a session that `crash` can kill: its heartbeat is made by the bench."""
        session = self.open(keeper=False, **options)
        if isinstance(session, _Ticking):
            self._hearts[id(session)] = _Heart(session.tick, self.lease / 5)
        return session

    def crash(self, session: Session) -> None:
        """Let a session of `open_mortal` die."""
        if heart := self._hearts.pop(id(session), None):
            heart.stop()
        self.suite.crash(session)

    @property
    def session(self) -> Session:
        """The session that most of a test happens in; opened at the first use."""
        if self._main is None:
            self._main = self.open(lease=30.0)
        return self._main

    @property
    def features(self) -> Features:
        """What the broker can do."""
        return self.session.features

    def close(self) -> None:
        """Stop heartbeats, delete what was made, close every session."""
        for heart in self._hearts.values():
            heart.stop()
        if not self.strict and self._made:
            self._delete_all()
        for session in self._sessions:
            try:
                session.close(timeout=5.0)
            except QueueCoreError:
                if not session.closed:
                    raise

    def _delete_all(self) -> None:
        """Leave a broker that outlives the test as it was."""
        if self.session.closed:
            self._main = self.open()
        for entity in self._made.values():
            try:
                self.session.delete(entity)
            except QueueCoreError:
                if self.session.closed:
                    self._main = self.open()

    # names and entities

    def name(self, stem: str) -> str:
        """Return a name that begins with ``stem`` and that nobody else uses."""
        return f"{stem}-{uuid.uuid4().hex[:10]}"

    def exchange(
        self,
        kind: ExchangeType = "direct",
        *,
        declare: bool = True,
        **fields: Any,
    ) -> Exchange:
        """Return a new exchange, declared unless told otherwise."""
        exchange = Exchange(fields.pop("name", None) or self.name(kind), kind, **fields)
        return self.declare(exchange) if declare else self._remember(exchange)

    def queue(
        self,
        *bound: tuple[Exchange, str],
        declare: bool = True,
        session: Session | None = None,
        **fields: Any,
    ) -> Queue:
        """Return a new queue, bound to ``(exchange, key)`` pairs; declared unless told not to."""
        name = fields.pop("name", None) or self.name("queue")
        bindings = tuple(Binding(exchange.name, name, key) for exchange, key in bound)
        queue = Queue(name, bindings=bindings, **fields)
        return self.declare(queue, session=session) if declare else self._remember(queue)

    def bind(
        self, source: Exchange, target: Queue | Exchange, key: str = "", **arguments: object
    ) -> Binding:
        """Declare and return a binding."""
        to_exchange = isinstance(target, Exchange)
        binding = Binding(
            source.name, target.name, key, "exchange" if to_exchange else "queue", arguments
        )
        self.session.declare(binding)
        return binding

    def idle(self, queue: Queue) -> bool:
        """Return whether the queue holds nothing that could be delivered."""
        return self.session.inspect(queue.name).ready == 0

    def declare(self, entity: E, *, session: Session | None = None) -> E:
        """Declare ``entity`` and return it; it is deleted after the test."""
        (session or self.session).declare(entity)
        return self._remember(entity)

    def _remember(self, entity: E) -> E:
        if not isinstance(entity, Binding):
            self._made[type(entity), entity.name] = type(entity)(entity.name)
        return entity

    # publishing

    def publication(
        self,
        target: Queue | Exchange | str,
        body: bytes,
        key: str | None = None,
        *,
        mandatory: bool = True,
        delay: float = 0.0,
        id: str = "",  # noqa: A002 - as in Publication
        **properties: Any,
    ) -> Publication:
        """Make a publication to a queue (through the default exchange) or to an exchange."""
        exchange = target.name if isinstance(target, Exchange) else ""
        if key is None:
            key = (
                ""
                if isinstance(target, Exchange)
                else target
                if isinstance(target, str)
                else target.name
            )
        return Publication(
            exchange, key, body, Properties(**properties), id or uuid.uuid4().hex, mandatory, delay
        )

    def publish(
        self, *publications: Publication, session: Session | None = None
    ) -> Sequence[Outcome]:
        """Publish and return the outcomes."""
        return (session or self.session).publish(publications, timeout=self.patience)

    def send(
        self,
        target: Queue | Exchange | str,
        *bodies: bytes,
        key: str | None = None,
        session: Session | None = None,
        **fields: Any,
    ) -> None:
        """Publish one message for each body; each must be confirmed."""
        outcomes = self.publish(
            *(self.publication(target, body, key, **fields) for body in bodies), session=session
        )
        assert [outcome.status for outcome in outcomes] == ["confirmed"] * len(bodies), outcomes

    def fill(self, queue: Queue, limit: int) -> list[bytes]:
        """Publish to a ``reject-publish`` queue until it refuses; return the bodies that it took.

        Where answers are immediate it must refuse at its limit; a broker may let some more pass.
        """
        stored: list[bytes] = []
        while True:
            body = b"filling %d" % len(stored)
            status = self.publish(self.publication(queue, body))[0].status
            if status == "refused":
                assert len(stored) >= limit
                return stored
            assert status == "confirmed"
            stored.append(body)
            assert len(stored) <= (limit if self.strict else limit + 10), "it never refuses"

    # consuming

    def tap(
        self,
        *queues: Queue | str,
        prefetch: int = 100,
        session: Session | None = None,
        name: str = "",
    ) -> Tap:
        """Subscribe a new consumer to ``queues``."""
        return Tap(
            session or self.session,
            name or self.name("consumer"),
            queues,
            prefetch,
            patience=self.patience,
            quiet=self.suite.quiet,
        )

    def expect(self, queue: Queue | str, bodies: Iterable[bytes], *, ordered: bool = True) -> None:
        """Consume and ack the whole queue; it must hold exactly these."""
        tap = self.tap(queue)
        bodies = list(bodies)
        got = [delivery.body for delivery in tap.take(len(bodies))]
        if ordered:
            assert got == bodies
        else:
            assert Counter(got) == Counter(bodies)
        tap.none()
        tap.ack_all()
        tap.cancel()

    def expect_each(self, expected: Mapping[str, Iterable[bytes]]) -> None:
        """Consume several queues with one consumer; each must hold exactly these, in any order."""
        tap = self.tap(*expected)
        want = {queue: Counter(bodies) for queue, bodies in expected.items()}
        deliveries = tap.take(sum(sum(bodies.values()) for bodies in want.values()), exactly=False)
        got = {queue: Counter(d.body for d in deliveries if d.queue == queue) for queue in want}
        assert got == want
        tap.none()
        tap.ack_all()
        tap.cancel()

    # looking

    def soon(self, condition: Callable[[], object], what: str = "") -> None:
        """Look once where answers are immediate; wait for it elsewhere."""
        eventually(condition, 0.0 if self.strict else self.patience, what=what)

    def late(self, condition: Callable[[], object], within: float, what: str = "") -> None:
        """Wait for what takes time everywhere: a lease, a ttl, an expiry."""
        eventually(condition, within, interval=0.02, what=what)

    def holds(self, queue: Queue | str, ready: int) -> None:
        """Check how many messages of a queue can be delivered now."""
        name = queue if isinstance(queue, str) else queue.name
        self.soon(lambda: self.session.inspect(name).ready == ready, f"{ready} ready in {name}")

    def unroutable(self, target: Queue | Exchange) -> bool:
        """Return whether a queue is gone, without using it, which would keep it alive.

        ``target`` is the queue, or an exchange that leads to no other.
        """
        try:
            (outcome,) = self.publish(self.publication(target, b"", expiration=0.0))
        except QueueNotFound:
            return True
        except TransportError:
            return False  # RabbitMQ 3.10 ends the connection (541) if the queue goes just then
        return outcome.status == "unroutable"

    def exists(self, entity: Entity) -> bool:
        """Return whether the exchange or queue is there."""
        return exists(self.session, entity)


class _Heart:
    """Ticks an emulated session on a thread, so that the bench can stop its heart."""

    def __init__(self, tick: Callable[[], object], interval: float) -> None:
        self._tick = tick
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session-bench-heart", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._tick()
            except QueueCoreError:
                return

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def exists(session: Session, entity: Entity) -> bool:
    """Return whether ``session`` finds the exchange or queue."""
    try:
        session.declare(entity, passive=True)
    except QueueNotFound:
        return False
    return True


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds ``call()`` took."""
    begun = time.monotonic()
    call()
    return time.monotonic() - begun
