"""The PostgreSQL store keeps the store contract: on the server's clock, and on one set by hand."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from sqlalchemy.orm import Session

from queue_core.testing.machine import StoreMachine
from queue_core.testing.store_put import LimitTests, PutTests
from queue_core.testing.store_races import RaceTests
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import SessionOptions, Store
from queue_core.transports.sql.postgresql import FEATURES, PostgresStores
from queue_core.transports.sql.postgresql_dialect import PostgresDialect
from queue_core.transports.sql.tables import meta, metadata
from queue_core.url import parse

CLOCK = "(SELECT micros FROM clock)"


def engine_of(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


class Clock:
    """A clock in the test's own schema."""

    def __init__(self, url: str) -> None:
        self.engine = engine_of(url)
        with self.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS clock (micros bigint)")
            connection.exec_driver_sql("TRUNCATE clock")
            connection.exec_driver_sql("INSERT INTO clock VALUES (1700000000000000)")

    def advance(self, seconds: float) -> None:
        with self.engine.begin() as connection:
            step = f"UPDATE clock SET micros = micros + {round(seconds * 1_000_000)}"
            connection.exec_driver_sql(step)


class Postgres(StoreSuite):
    features = FEATURES
    transport = "postgresql"
    url: str

    @contextlib.contextmanager
    def user_transaction(self) -> Iterator[object]:
        engine = engine_of(self.url)
        try:
            with Session(engine) as session, session.begin():
                yield session
        finally:
            engine.dispose()


class TestPostgres(Postgres):
    @pytest.fixture
    def open_store(self, postgres_broker: str) -> OpenStore:
        self.url = postgres_broker
        return functools.partial(_open, postgres_broker)


class TestPostgresOnAFakeClock(Postgres):
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self, postgres_broker: str) -> Iterator[OpenStore]:
        self.url = postgres_broker
        self.clock = Clock(postgres_broker)
        yield functools.partial(_open, postgres_broker, CLOCK)
        self.clock.engine.dispose()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestPostgresPutInSteps(PutTests, LimitTests, RaceTests):
    """What one statement does must be what the steps do that stand in for it."""

    features = FEATURES
    transport = "postgresql"

    @pytest.fixture
    def open_store(self, postgres_broker: str, monkeypatch: pytest.MonkeyPatch) -> OpenStore:
        monkeypatch.setattr(PostgresDialect, "put_once", lambda *_: None)
        return functools.partial(_open, postgres_broker)


class Machine(StoreMachine):
    features = FEATURES
    exact = True
    url: ClassVar[str]

    def open_store(self) -> OpenStore:
        self.clock = Clock(self.url)
        _open(self.url).close()
        with self.clock.engine.begin() as connection:
            for table in metadata.sorted_tables:
                if table is not meta:
                    connection.execute(table.delete())
        return functools.partial(_open, self.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.clock.engine.dispose()


@pytest.mark.timeout(180)
class TestMachine(Machine.TestCase):
    settings = settings(
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    @pytest.fixture(autouse=True)
    def _url(self, postgres_broker: str) -> None:
        Machine.url = f"{postgres_broker}?options=-csynchronous_commit%3Doff"


def _open(url: str, *clock: str, **_: Any) -> Store:
    """Open a handle; other processes call this too."""
    return PostgresStores(*clock).open(parse(url), SessionOptions())
