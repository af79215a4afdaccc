"""The MariaDB store keeps the store contract: on the server's clock, and on one set by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy

from queue_core.transports.sql.mariadb import FEATURES
from queue_core.transports.sql.mariadb_dialect import MariadbDialect
from tests.databases import (
    FEW_EXAMPLES,
    MYSQL,
    ClockedStoreSuite,
    Database,
    DatabaseStoreMachine,
    DatabaseStoreSuite,
    database_at,
    open_store,
)


@pytest.fixture(scope="module")
def shared(mysql_admin: sqlalchemy.Connection, mysql_url: str) -> Iterator[Database]:
    """A database of this module's own: making one for each test takes long."""
    with MYSQL.account(mysql_admin, mysql_url, room=True) as url, database_at(url) as database:
        open_store(url).close()
        yield database


@pytest.fixture
def database(shared: Database) -> Iterator[Database]:
    yield shared
    shared.empty()


class TestMariadb(DatabaseStoreSuite):
    features = FEATURES
    transport = "mariadb"


class TestMariadbPutInSteps(TestMariadb):
    """What goes in two packets must be what the steps do that stand in for it."""

    @pytest.fixture(autouse=True)
    def _steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MariadbDialect, "put_once", lambda *_: None)


class TestMariadbOnAFakeClock(ClockedStoreSuite):
    features = FEATURES
    transport = "mariadb"


class Machine(DatabaseStoreMachine):
    features = FEATURES


class TestMachine(Machine.TestCase):
    settings = FEW_EXAMPLES

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        Machine.database = database
