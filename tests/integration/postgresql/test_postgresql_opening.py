"""Opening a connection: what is wrong is said at once, and names what is missing."""

from __future__ import annotations

import socket
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy

from queue_core.errors import (
    AccessRefused,
    ConfigError,
    ConnectionLost,
)
from queue_core.transports.sql.store import SqlStore

OpenStore = Callable[..., SqlStore]


def changed(url: str, **parts: object) -> str:
    address = sqlalchemy.make_url(url).set(**parts)
    return address.render_as_string(hide_password=False)


def test_a_missing_database_is_named(postgres_broker: str, open_store: OpenStore) -> None:
    with pytest.raises(AccessRefused, match='database "not-there" does not exist'):
        open_store(changed(postgres_broker, database="not-there"))


def test_without_a_place_for_tables_the_missing_privilege_is_named(
    postgres_restricted: str, postgres_admin: sqlalchemy.Connection, open_store: OpenStore
) -> None:
    user = sqlalchemy.make_url(postgres_restricted).username
    postgres_admin.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS others")
    postgres_admin.exec_driver_sql(f'ALTER ROLE "{user}" SET search_path = others')
    postgres_admin.exec_driver_sql(f'GRANT USAGE ON SCHEMA others TO "{user}"')
    with pytest.raises(
        AccessRefused, match="permission denied for schema others.*CREATE ON SCHEMA"
    ):
        open_store(postgres_restricted)
    postgres_admin.exec_driver_sql(f'ALTER ROLE "{user}" SET search_path = nowhere')
    with pytest.raises(AccessRefused, match="no schema has been selected.*GRANT CREATE ON SCHEMA"):
        open_store(postgres_restricted)


def test_a_server_that_accepts_no_writes_is_refused(
    postgres_broker: str, postgres_admin: sqlalchemy.Connection, open_store: OpenStore
) -> None:
    user = sqlalchemy.make_url(postgres_broker).username
    postgres_admin.exec_driver_sql(f'ALTER ROLE "{user}" SET default_transaction_read_only = on')
    with pytest.raises(ConnectionLost, match="accepts no writes"):
        open_store(postgres_broker)


def test_a_database_that_cannot_hold_every_name_is_refused(
    postgres_url: str, postgres_admin: sqlalchemy.Connection, open_store: OpenStore
) -> None:
    name = f"{sqlalchemy.make_url(postgres_url).database}_ascii"
    postgres_admin.exec_driver_sql(
        f"CREATE DATABASE \"{name}\" ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(ConfigError, match="encoding SQL_ASCII.*ENCODING 'UTF8'"):
            open_store(changed(postgres_url, database=name))
    finally:
        postgres_admin.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_an_old_server_is_refused(
    postgres_broker: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda _: 110_022))
    with pytest.raises(ConfigError, match="runs PostgreSQL 11; queue_core needs 12"):
        open_store(postgres_broker)


def test_a_host_that_says_nothing_leaves_time_for_the_others(
    postgres_broker: str, open_store: OpenStore
) -> None:
    """Both have the same port."""
    port = sqlalchemy.make_url(postgres_broker).port
    with socket.create_server(("127.0.0.9", port)):
        url = f"{changed(postgres_broker, host=None)}?host=127.0.0.9,127.0.0.1"
        assert open_store(url, connect_timeout=4.0).sessions() == {}


def test_tls_can_be_demanded(postgres_broker: str, open_store: OpenStore) -> None:
    """The tests' server has none, which ``prefer`` accepts."""
    open_store(f"{postgres_broker}?sslmode=prefer")
    with pytest.raises(ConnectionLost, match="SSL"):
        open_store(f"{postgres_broker}?sslmode=require")
