"""The PostgreSQL store keeps the store contract: on the server's clock, and on one set by hand."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from queue_core.testing.store_put import LimitTests, PutTests
from queue_core.testing.store_races import RaceTests
from queue_core.testing.store_suite import OpenStore
from queue_core.transports.sql.postgresql import FEATURES
from queue_core.transports.sql.postgresql_dialect import PostgresDialect
from tests.databases import (
    FEW_EXAMPLES,
    ClockedStoreSuite,
    Database,
    DatabaseStoreMachine,
    DatabaseStoreSuite,
    database_at,
    open_store,
)


@pytest.fixture
def database(postgres_broker: str) -> Iterator[Database]:
    with database_at(postgres_broker) as database:
        yield database


class TestPostgres(DatabaseStoreSuite):
    features = FEATURES
    transport = "postgresql"


class TestPostgresOnAFakeClock(ClockedStoreSuite):
    features = FEATURES
    transport = "postgresql"


class TestPostgresPutInSteps(PutTests, LimitTests, RaceTests):
    """What one statement does must be what the steps do that stand in for it."""

    features = FEATURES
    transport = "postgresql"

    @pytest.fixture
    def open_store(self, postgres_broker: str, monkeypatch: pytest.MonkeyPatch) -> OpenStore:
        monkeypatch.setattr(PostgresDialect, "put_once", lambda *_: None)
        return functools.partial(open_store, postgres_broker)


class Machine(DatabaseStoreMachine):
    features = FEATURES


@pytest.mark.timeout(180)
class TestMachine(Machine.TestCase):
    settings = FEW_EXAMPLES

    @pytest.fixture(autouse=True)
    def _database(self, postgres_broker: str) -> Iterator[None]:
        with database_at(f"{postgres_broker}?options=-csynchronous_commit%3Doff") as database:
            Machine.database = database
            yield
