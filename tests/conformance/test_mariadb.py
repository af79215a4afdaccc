"""The MariaDB store keeps the store contract: on the server's clock, and on one set by hand."""

from __future__ import annotations

import contextlib
import functools
import uuid
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
from queue_core.transports.sql.mariadb_dialect import MariadbDialect
from queue_core.url import parse

CLOCK = "(SELECT moment FROM test_clock)"
START = 1_700_000_000_000_000


class Place:
    """A database of this module's own, and a clock in it. Making one for each test takes long."""

    def __init__(self, admin: sqlalchemy.Connection, url: str) -> None:
        self.admin = admin
        address = sqlalchemy.make_url(url)
        self.name = f"{address.database}_{uuid.uuid4().hex[:12]}"
        admin.exec_driver_sql(f"CREATE DATABASE {self.name}")
        address = address.set(database=self.name)
        self.url = address.render_as_string(hide_password=False)
        self.engine = sqlalchemy.create_engine(address.set(drivername="mysql+pymysql"))
        _open(self.url).close()
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE test_clock (moment BIGINT NOT NULL)")
            connection.exec_driver_sql(f"INSERT INTO test_clock VALUES ({START})")

    def advance(self, seconds: float) -> None:
        with self.engine.begin() as connection:
            step = round(seconds * 1_000_000)
            connection.exec_driver_sql(f"UPDATE test_clock SET moment = moment + {step}")

    def empty(self) -> None:
        """Begin again, for the next test or example."""
        with self.engine.begin() as connection:
            for table in ("message", "session", "request", "entry", "key"):
                connection.exec_driver_sql(f"DELETE FROM queue_core_{table}")
            connection.exec_driver_sql(f"UPDATE test_clock SET moment = {START}")

    def close(self) -> None:
        self.engine.dispose()
        self.admin.exec_driver_sql(f"DROP DATABASE {self.name}")


@pytest.fixture(scope="module")
def database(mysql_admin: sqlalchemy.Connection, mysql_url: str) -> Iterator[Place]:
    place = Place(mysql_admin, mysql_url)
    yield place
    place.close()


@pytest.fixture
def place(database: Place) -> Iterator[Place]:
    yield database
    database.empty()


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


class TestMariadbPutInSteps(TestMariadb):
    """What goes in two packets must be what the steps do that stand in for it."""

    @pytest.fixture(autouse=True)
    def _steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MariadbDialect, "put_once", lambda *_: None)


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
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    @pytest.fixture(autouse=True)
    def _place(self, place: Place) -> None:
        Machine.place = place


@functools.cache
def _stores(clock: str | None) -> MariadbStores:
    return MariadbStores() if clock is None else MariadbStores(clock)


def _open(url: str, clock: str | None = None) -> Store:
    """Open a handle; other processes call this too."""
    return _stores(clock).open(parse(url), SessionOptions())
