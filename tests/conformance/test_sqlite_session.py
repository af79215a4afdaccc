"""The Session contract on SQLite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from queue_core.testing import SessionSuite
from queue_core.testing.session_machine import MACHINE_SETTINGS, SessionMachine
from queue_core.transport import Session
from tests.databases import Database, DatabaseSessionSuite, database_at, open_session


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with database_at(f"sqlite:///{tmp_path}/queue.db") as database:
        yield database


class TestSQLiteSession(DatabaseSessionSuite):
    transport = "sqlite"


class Quick(SessionSuite):
    """The same, with a lease so short that a crash costs an example little time."""

    transport = "sqlite"
    lease = 0.5


class SQLiteMachine(SessionMachine):
    suite = Quick()

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__()

    def open_session(self, **options: Any) -> Session:
        return open_session(f"sqlite:///{self.folder.name}/queue.db", **options)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.folder.cleanup()


TestSQLiteMachine = SQLiteMachine.TestCase
TestSQLiteMachine.settings = settings(MACHINE_SETTINGS, max_examples=10, stateful_step_count=25)
