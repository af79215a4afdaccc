"""The Session contract on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from queue_core.testing.session_machine import MACHINE_SETTINGS
from tests.databases import (
    Database,
    DatabaseSessionMachine,
    DatabaseSessionSuite,
    database_at,
)


@pytest.fixture
def database(mysql_broker: str) -> Iterator[Database]:
    with database_at(mysql_broker) as database:
        yield database


class TestMariadbSession(DatabaseSessionSuite):
    transport = "mariadb"


class Quick(DatabaseSessionSuite):
    """The same, with a lease so short that a crash costs an example little time."""

    transport = "mariadb"
    lease = 0.5


class MariadbMachine(DatabaseSessionMachine):
    suite = Quick()


class TestMariadbMachine(MariadbMachine.TestCase):
    settings = settings(MACHINE_SETTINGS, max_examples=10, stateful_step_count=25)

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        MariadbMachine.database = database
