"""The MariaDB store keeps the store contract: on the server's clock, and on one set by hand."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import ClassVar

import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from sqlalchemy.orm import Session

from queue_core.testing.machine import StoreMachine
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import SessionOptions, Store
from queue_core.transports.sql.mariadb import FEATURES, MariadbStores
from queue_core.url import parse

CLOCK = "(SELECT moment FROM test_clock)"
START = 1_700_000_000_000_000


class Place:
    """A database of our own, and a clock in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        address = sqlalchemy.make_url(url).set(drivername="mysql+pymysql")
        self.engine = sqlalchemy.create_engine(address)
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE test_clock (moment BIGINT NOT NULL)")
            connection.exec_driver_sql(f"INSERT INTO test_clock VALUES ({START})")

    def advance(self, seconds: float) -> None:
        with self.engine.begin() as connection:
            step = round(seconds * 1_000_000)
            connection.exec_driver_sql(f"UPDATE test_clock SET moment = moment + {step}")

    def empty(self) -> None:
        """Begin again, for the next example."""
        with self.engine.begin() as connection:
            for table in ("message", "session", "request", "entry", "key"):
                connection.exec_driver_sql(f"DELETE FROM queue_core_{table}")
            connection.exec_driver_sql(f"UPDATE test_clock SET moment = {START}")

    def close(self) -> None:
        self.engine.dispose()


@pytest.fixture
def place(mysql_broker: str) -> Iterator[Place]:
    place = Place(mysql_broker)
    yield place
    place.close()


class TestMariadb(StoreSuite):
    features = FEATURES
    transport = "mariadb"

    @pytest.fixture
    def open_store(self, place: Place) -> OpenStore:
        self.place = place
        return functools.partial(_open, place.url)

    @contextlib.contextmanager
    def user_transaction(self) -> Iterator[object]:
        with self.place.engine.begin() as connection:
            yield connection


class TestMariadbOnAFakeClock(StoreSuite):
    features = FEATURES
    transport = "mariadb"
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self, place: Place) -> OpenStore:
        self.place = place
        return functools.partial(_open, place.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.place.advance(seconds)

    @contextlib.contextmanager
    def user_transaction(self) -> Iterator[object]:
        with Session(self.place.engine) as session, session.begin():
            yield session


class Machine(StoreMachine):
    features = FEATURES
    exact = True
    place: ClassVar[Place]

    def open_store(self) -> OpenStore:
        return functools.partial(_open, self.place.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.place.advance(seconds)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.place.empty()


class TestMachine(Machine.TestCase):
    settings = settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    @pytest.fixture(autouse=True)
    def _place(self, place: Place) -> None:
        Machine.place = place
        _open(place.url, CLOCK).close()


@functools.cache
def _stores(clock: str | None) -> MariadbStores:
    return MariadbStores() if clock is None else MariadbStores(clock)


def _open(url: str, clock: str | None = None) -> Store:
    """Open a handle; other processes call this too."""
    return _stores(clock).open(parse(url), SessionOptions())
