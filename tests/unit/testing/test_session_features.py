"""The checks of features, checked: each "cannot" is tested, and each check can fail."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from queue_core.errors import Unsupported
from queue_core.message import Publication, Settlement
from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import Bench, OpenSession
from queue_core.testing.session_features import CAN, CANNOT
from queue_core.topology import Binding, Entity, Exchange, Queue
from queue_core.transport import Features, Session, SessionOptions
from queue_core.url import parse

NOBODY_ASKS = {"durable", "shared", "deduplicate", "atomic_settle", "requeue_in_place", "attempts"}
FEATURES = list(Features.__struct_fields__)


class Declaring:
    """A session that declares other features than it has."""

    def __init__(self, session: Session, features: Features) -> None:
        self.session = session
        self.features = features

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


class Modest(Declaring):
    """A session that can do nothing optional, and says so."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, Features())

    def refuse(self, feature: str, asked: object) -> None:
        if asked:
            raise Unsupported(feature, "modest", "take another transport")

    def declare(self, entity: Entity, **options: Any) -> str:
        if isinstance(entity, Binding):
            self.refuse("exchange_bindings", entity.destination_type == "exchange")
        else:
            self.refuse("auto_delete", entity.auto_delete)
            self.refuse("arguments", entity.arguments)
        if isinstance(entity, Queue):
            self.refuse("priority", entity.max_priority)
            self.refuse("message_ttl", entity.message_ttl is not None)
            self.refuse("queue_expiry", entity.expires)
            self.refuse("max_length", entity.max_length is not None)
            self.refuse("max_deliveries", entity.max_deliveries)
            self.refuse("exclusive", entity.exclusive)
            self.refuse("dead_letter", entity.dead_letter_exchange is not None)
        return self.session.declare(entity, **options)

    def publish(
        self, publications: Sequence[Publication], *, transaction: object = None, **options: Any
    ) -> Any:
        self.refuse("transactions", transaction)
        for publication in publications:
            self.refuse("delay", publication.delay)
            self.refuse("message_ttl", publication.properties.expiration is not None)
        return self.session.publish(publications, **options)

    def receive(self, *args: Any, **options: Any) -> Any:
        deliveries = self.session.receive(*args, **options)
        for delivery in deliveries:
            delivery.attempts = 0
        return deliveries

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self.refuse("delay", any(settlement.delay for settlement in settlements))
        self.session.settle(settlements)

    def key_value(self) -> Any:
        self.refuse("key_value", True)


class TestModestSession(SessionSuite):
    """The whole suite on a transport without any feature: what needs one is refused instead."""

    transport = "modest"

    @pytest.fixture
    def open_session(self) -> OpenSession:
        opened = opener()
        return lambda **options: Modest(opened(**options))


def opener() -> OpenSession:
    url = parse(f"memory://{uuid.uuid4().hex}")
    return lambda **options: find_transport("memory").open(url, SessionOptions(**options))


def bench_of(features: Features) -> Bench:
    """A bench on a memory session that declares ``features``."""
    opened = opener()
    return Bench(SessionSuite(), lambda **options: Declaring(opened(**options), features))


@pytest.mark.parametrize(
    "feature", sorted(set(FEATURES) - NOBODY_ASKS - {"transactions", "arguments"})
)
def test_a_transport_that_does_what_it_declares_not_to_do_is_caught(feature):
    bench = bench_of(Features())
    try:
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            CANNOT[feature](bench)
    finally:
        bench.close()


@pytest.mark.parametrize("feature", ["transactions", "arguments"])
def test_a_transport_that_does_not_do_what_it_declares_is_caught(feature):
    """Memory has neither."""
    bench = bench_of(Features(**dict.fromkeys(FEATURES, True)))
    bench.suite.begin = lambda: (object(), lambda commit: None)
    try:
        with pytest.raises((Unsupported, AssertionError)):
            CAN[feature](bench)
    finally:
        bench.close()


class Forgetful(Declaring):
    """Declares everything and drops what was asked for: degrades in silence."""

    def declare(self, entity: Entity, **options: Any) -> str:
        if isinstance(entity, Queue):
            plain = Queue(entity.name, exchange=entity.exchange, bindings=entity.bindings)
            return self.session.declare(plain, **options)
        if isinstance(entity, Exchange):
            return self.session.declare(Exchange(entity.name, entity.type), **options)
        if entity.destination_type == "exchange":
            return ""
        return self.session.declare(entity, **options)

    def publish(self, publications: Sequence[Publication], **options: Any) -> Any:
        for publication in publications:
            publication.delay = 0.0
            publication.id = uuid.uuid4().hex
            publication.properties.expiration = None
        return self.session.publish(publications, **options)

    def receive(self, *args: Any, **options: Any) -> Any:
        deliveries = self.session.receive(*args, **options)
        for delivery in deliveries:
            delivery.attempts = 1
        return deliveries


@pytest.mark.parametrize(
    "feature",
    sorted(
        set(FEATURES)
        - {"durable", "shared", "key_value", "atomic_settle", "requeue_in_place", "transactions"}
    ),
)
def test_a_transport_that_degrades_in_silence_is_caught(feature):
    opened = opener()
    every = Features(**dict.fromkeys(FEATURES, True))
    suite = SessionSuite()
    suite.patience = 1.0
    bench = Bench(suite, lambda **options: Forgetful(opened(**options), every))
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            CAN[feature](bench)
    finally:
        bench.close()
