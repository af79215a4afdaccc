"""The Session contract on SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.transport import SessionOptions
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
