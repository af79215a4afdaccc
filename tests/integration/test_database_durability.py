"""What a database promises, detected on servers of the tests' own with weak settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy

from queue_core import Connection, Durability, Survives
from queue_core.testing.eventually import eventually
from tests.databases import engine_of


class Database:
    """A server, what to tell it, and what a new connection finds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = engine_of(url, isolation_level="AUTOCOMMIT")

    def tell(self, *statements: str) -> None:
        with self._engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def found(self) -> Durability:
        with Connection(self.url) as connection:
            connection.connect()
            return connection.durability

    def close(self) -> None:
        self._engine.dispose()


def own(start: Callable[[str, str], Any], module: str, name: str) -> Iterator[Database]:
    database = Database(start(module, name).url)
    yield database
    database.close()


@pytest.fixture(scope="module")
def postgresql(start_server: Callable[[str, str], Any], postgres_url: str) -> Iterator[Database]:
    yield from own(start_server, "postgresql", "PostgreSQL")


@pytest.fixture(scope="module")
def mariadb(start_server: Callable[[str, str], Any], mysql_url: str) -> Iterator[Database]:
    yield from own(start_server, "mariadb", "MariaDB")


def test_postgresql_as_delivered_keeps_what_it_confirmed(postgresql: Database) -> None:
    found = postgresql.found()
    assert found.survives is Survives.POWER_CUT
    assert found.warnings == ()
    assert found.broker.startswith("PostgreSQL ")


@pytest.mark.parametrize(
    ("setting", "survives"),
    [
        ("synchronous_commit = off", Survives.RESTART),
        ("full_page_writes = off", Survives.SERVER_CRASH),
        ("fsync = off", Survives.RESTART),
    ],
)
def test_weak_settings_of_postgresql_are_detected(
    postgresql: Database, setting: str, survives: Survives, caplog: pytest.LogCaptureFixture
) -> None:
    name = setting.split()[0]
    postgresql.tell(f"ALTER SYSTEM SET {setting}", "SELECT pg_reload_conf()")
    try:
        eventually(lambda: postgresql.found().survives is survives, what="the reload")
        caplog.clear()
        with caplog.at_level(logging.INFO):
            found = postgresql.found()
    finally:
        postgresql.tell(f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")
    assert [name in warning.problem for warning in found.warnings] == [True]
    said = [record for record in caplog.records if name in record.getMessage()]
    weak = survives < Survives.SERVER_CRASH
    assert [record.levelname for record in said] == ["WARNING" if weak else "INFO"]


def test_what_one_role_is_set_to_counts(
    postgres_broker: str, postgres_admin: sqlalchemy.Connection
) -> None:
    role = sqlalchemy.make_url(postgres_broker).username
    postgres_admin.exec_driver_sql(f'ALTER ROLE "{role}" SET synchronous_commit = off')
    with Connection(postgres_broker) as connection:
        connection.connect()
        assert connection.durability.survives is Survives.RESTART
        assert "ALTER ROLE" in connection.durability.warnings[0].remedy


def test_mariadb_as_delivered_keeps_what_it_confirmed(mariadb: Database) -> None:
    found = mariadb.found()
    assert found.survives is Survives.POWER_CUT
    assert found.warnings == ()
    assert found.broker.startswith("MariaDB ")


@pytest.mark.parametrize(("value", "survives"), [(2, Survives.SERVER_CRASH), (0, Survives.RESTART)])
def test_weak_settings_of_mariadb_are_detected(
    mariadb: Database, value: int, survives: Survives
) -> None:
    mariadb.tell(f"SET GLOBAL innodb_flush_log_at_trx_commit = {value}")
    try:
        found = mariadb.found()
    finally:
        mariadb.tell("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    assert found.survives is survives
    assert f"trx_commit is {value}" in found.warnings[0].problem


def test_a_table_of_another_engine_is_named(mariadb: Database) -> None:
    mariadb.found()
    mariadb.tell("ALTER TABLE queue_core_key ENGINE = Aria")
    try:
        found = mariadb.found()
    finally:
        mariadb.tell("ALTER TABLE queue_core_key ENGINE = InnoDB")
    assert found.survives is Survives.CLIENTS
    assert "Aria" in found.warnings[0].problem
