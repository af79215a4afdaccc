"""The Session contract on SQLite."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import settings

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.session_machine import MACHINE_SETTINGS, SessionMachine
from queue_core.transport import Session, SessionOptions
from queue_core.url import parse


class TestSQLiteSession(SessionSuite):
    transport = "sqlite"

    @pytest.fixture
    def open_session(self, tmp_path: Path) -> OpenSession:
        self.path = tmp_path / "queue.db"
        url = parse(f"sqlite:///{self.path}")
        transport = find_transport("sqlite")
        return lambda **options: transport.open(url, SessionOptions(**options))

    def begin(self) -> tuple[object, Callable[[bool], None]]:
        engine = sqlalchemy.create_engine(f"sqlite:///{self.path}")
        connection = engine.connect()
        transaction = connection.begin()

        def end(commit: bool) -> None:
            if commit:
                transaction.commit()
            else:
                transaction.rollback()
            connection.close()
            engine.dispose()

        return connection, end


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
        url = parse(f"sqlite:///{self.folder.name}/queue.db")
        return find_transport("sqlite").open(url, SessionOptions(**options))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.folder.cleanup()


TestSQLiteMachine = SQLiteMachine.TestCase
TestSQLiteMachine.settings = settings(MACHINE_SETTINGS, max_examples=10, stateful_step_count=25)
