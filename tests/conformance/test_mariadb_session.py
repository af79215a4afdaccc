"""The Session contract on MariaDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import sqlalchemy
from hypothesis import settings

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.session_machine import MACHINE_SETTINGS, SessionMachine
from queue_core.transport import Session, SessionOptions
from queue_core.transports.sql.tables import meta, metadata
from queue_core.url import parse


def engine_of(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(url.replace("mysql://", "mysql+pymysql://"))


class TestMariadbSession(SessionSuite):
    transport = "mariadb"

    @pytest.fixture
    def open_session(self, mysql_broker: str) -> OpenSession:
        self.url = mysql_broker
        transport = find_transport("mysql")
        return lambda **options: transport.open(parse(mysql_broker), SessionOptions(**options))

    def begin(self) -> tuple[object, Callable[[bool], None]]:
        engine = engine_of(self.url)
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

    transport = "mariadb"
    lease = 0.5


class MariadbMachine(SessionMachine):
    suite = Quick()
    url: ClassVar[str]

    def open_session(self, **options: Any) -> Session:
        return find_transport("mysql").open(parse(self.url), SessionOptions(**options))

    def teardown(self) -> None:
        super().teardown()
        engine = engine_of(self.url)
        with engine.begin() as connection:
            for table in metadata.sorted_tables:
                if table is not meta:
                    connection.execute(table.delete())
        engine.dispose()


class TestMariadbMachine(MariadbMachine.TestCase):
    settings = settings(MACHINE_SETTINGS, max_examples=10, stateful_step_count=25)

    @pytest.fixture(autouse=True)
    def _url(self, mysql_broker: str) -> None:
        MariadbMachine.url = mysql_broker
