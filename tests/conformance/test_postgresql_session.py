"""The Session contract on PostgreSQL."""

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
def database(postgres_broker: str) -> Iterator[Database]:
    with database_at(postgres_broker) as database:
        yield database


class TestPostgresSession(DatabaseSessionSuite):
    transport = "postgresql"


class Quick(DatabaseSessionSuite):
    """The same, with a lease so short that a crash costs an example little time."""

    transport = "postgresql"
    lease = 0.5


class PostgresMachine(DatabaseSessionMachine):
    suite = Quick()


class TestPostgresMachine(PostgresMachine.TestCase):
    settings = settings(MACHINE_SETTINGS, max_examples=10, stateful_step_count=25)

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> None:
        PostgresMachine.database = database
