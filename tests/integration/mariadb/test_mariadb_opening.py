"""Opening a connection: what is wrong is said at once, and names what is missing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
import sqlalchemy

from queue_core.errors import AccessRefused, ConfigError, ConnectionLost, ConnectTimeout, TooLarge
from queue_core.transport import Envelope
from queue_core.transports.sql.store import SqlStore

OpenStore = Callable[..., SqlStore]


def changed(url: str, **parts: object) -> str:
    address = sqlalchemy.make_url(url).set(**parts)
    return address.render_as_string(hide_password=False)


def test_a_missing_database_is_named(
    mysql_url: str, mysql_broker: str, open_store: OpenStore
) -> None:
    name = f"{sqlalchemy.make_url(mysql_url).database}_not_there"
    with pytest.raises(AccessRefused, match="Unknown database.*CREATE DATABASE"):
        open_store(changed(mysql_url, database=name))
    with pytest.raises(AccessRefused, match="GRANT .* on that database to this user"):
        open_store(changed(mysql_broker, database=name))


def test_the_missing_privilege_is_named(mysql_restricted: str, open_store: OpenStore) -> None:
    with pytest.raises(AccessRefused, match="CREATE command denied.*GRANT CREATE on that database"):
        open_store(mysql_restricted)


def test_who_may_not_make_tables_may_use_those_that_are_there(
    mysql_restricted: str, mysql_url: str, open_store: OpenStore
) -> None:
    name = sqlalchemy.make_url(mysql_restricted).database
    open_store(changed(mysql_url, database=name)).close()
    store = open_store(mysql_restricted)
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    assert len(store.claim("s", "r", {"q": 9}, 0.0).claims) == 1


def test_a_server_that_accepts_no_writes_says_so(own_server: Any, open_store: OpenStore) -> None:
    own_server.run("CREATE OR REPLACE USER plain IDENTIFIED BY 'word'")
    own_server.run("GRANT ALL ON queue_core.* TO plain")
    url = changed(own_server.url, username="plain", password="word")
    store = open_store(url)
    own_server.run("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(AccessRefused, match="accepts no writes.*primary"):
            store.open_session("s", 30.0)
    finally:
        own_server.run("SET GLOBAL read_only = 0")
    store.open_session("s", 30.0)


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ("5.5.5-10.6.12-MariaDB-log", "runs MariaDB 10.6.12; queue_core needs 10.8"),
        ("8.0.36", "is MySQL 8.0.36, which .* does not support; use MariaDB"),
    ],
)
def test_an_old_server_and_another_one_are_refused(
    mysql_broker: str, open_store: OpenStore, monkeypatch: Any, info: str, problem: str
) -> None:
    monkeypatch.setattr(pymysql.connections.Connection, "get_server_info", lambda _: info)
    with pytest.raises(ConfigError, match=problem):
        open_store(mysql_broker)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR what?\r\n"])
def test_a_server_that_is_none_is_given_up_in_time(open_store: OpenStore, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        clients = []
        mute.settimeout(10.0)
        started = time.monotonic()

        def answer() -> None:
            client, _ = mute.accept()
            clients.append(client)
            client.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises((ConnectTimeout, ConnectionLost)):
            open_store(f"mysql://user@127.0.0.1:{port}/name", connect_timeout=1.0)
        assert time.monotonic() - started < 5.0
        thread.join(30)
        for client in clients:
            client.close()


def test_tls_can_be_demanded(mysql_broker: str, open_store: OpenStore) -> None:
    """The tests' server has none, which ``preferred`` accepts."""
    open_store(f"{mysql_broker}?ssl_mode=preferred")
    with pytest.raises(ConnectionLost, match="SSL"):
        open_store(f"{mysql_broker}?ssl_mode=required")
    with pytest.raises(ConfigError, match="certificates cannot be read"):
        open_store(f"{mysql_broker}?ssl_ca=/not/there.pem")


def test_a_body_that_the_server_would_not_take_is_refused_before_it_is_sent(
    own_server: Any, open_store: OpenStore
) -> None:
    own_server.run("SET GLOBAL max_allowed_packet = 1048576")
    try:
        store = open_store(own_server.url)
        store.open_session("large", 30.0)
        with pytest.raises(TooLarge, match="max_allowed_packet"):
            store.put([Envelope("large", "a", b"'" * 600_000, b"")], {})
        batch = [Envelope("large", str(i), bytes(range(256)) * 200, b"") for i in range(100)]
        store.put(batch, {})
        claims = store.claim("large", "r", {"large": 100}, 0.0).claims
        assert [claim.body for claim in claims] == [one.body for one in batch]
    finally:
        own_server.run("SET GLOBAL max_allowed_packet = 16777216")
