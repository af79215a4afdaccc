"""Connections to a database server: refused, given up, ended by others, inherited by a fork."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import sqlalchemy

from queue_core import Connection, Queue
from queue_core.errors import (
    AccessRefused,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    TooLarge,
)
from queue_core.testing.faults import FaultProxy
from queue_core.transport import Envelope, Limit
from queue_core.transports.sql.store import SqlStore

OpenStore = Callable[..., SqlStore]


class Kind(NamedTuple):
    """What differs between the servers."""

    scheme: str
    refuses: str
    """What it says of a wrong password."""
    one_connection: str
    """The statement that allows a user only one."""
    no_more: str
    """What it says then."""
    end: str
    """The statement that ends a connection."""
    number: Callable[[SqlStore], int]
    """The server's number of a handle's connection."""


KINDS = {
    "postgres": Kind(
        "postgresql",
        "password authentication failed",
        'ALTER ROLE "{}" CONNECTION LIMIT 1',
        "too many connections",
        "SELECT pg_terminate_backend({}, 5000)",
        lambda store: int(store._dialect._link.pgconn.backend_pid),
    ),
    "mysql": Kind(
        "mysql",
        "refused the login.*check user and password",
        "ALTER USER '{}'@'%%' WITH MAX_USER_CONNECTIONS 1",
        "accepts no more clients",
        "KILL CONNECTION {}",
        lambda store: int(store._dialect._connection.thread_id()),
    ),
}


class Server:
    """A server, a broker on it, and somebody who may do everything."""

    def __init__(self, kind: Kind, url: str, admin: sqlalchemy.Connection) -> None:
        self.kind = kind
        self.url = url
        self.run = admin.exec_driver_sql

    def changed(self, **parts: object) -> str:
        address = sqlalchemy.make_url(self.url).set(**parts)
        return address.render_as_string(hide_password=False)

    def end(self, store: SqlStore) -> None:
        self.run(self.kind.end.format(self.kind.number(store)))


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    broker, admin = (
        request.getfixturevalue(f"{request.param}_{what}") for what in ("broker", "admin")
    )
    return Server(KINDS[request.param], broker, admin)


def test_a_wrong_password_is_refused_and_not_shown(server: Server, open_store: OpenStore) -> None:
    with pytest.raises(AccessRefused, match=server.kind.refuses) as caught:
        open_store(server.changed(password="wrong-secret"))
    assert "wrong-secret" not in str(caught.value)


def test_an_unknown_user_is_refused(server: Server, open_store: OpenStore) -> None:
    with pytest.raises(AccessRefused, match="'nobody-here'"):
        open_store(server.changed(username="nobody-here"))


def test_a_server_without_a_free_connection_says_so(server: Server, open_store: OpenStore) -> None:
    server.run(server.kind.one_connection.format(sqlalchemy.make_url(server.url).username))
    open_store(server.url)
    with pytest.raises(ConnectionLost, match=server.kind.no_more):
        open_store(server.url)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_at_the_port_is_said_at_once(kind: str, open_store: OpenStore) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="no connection to") as caught:
            open_store(f"{KINDS[kind].scheme}://user:a-secret@{place}/name")
    assert time.monotonic() - started < 8.0
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_says_nothing_is_given_up_in_time(kind: str, open_store: OpenStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"{KINDS[kind].scheme}://user@127.0.0.1:{mute.getsockname()[1]}/name"
        took: list[float] = []
        while not took or (min(took) >= 1.9 and len(took) < 5):
            started = time.monotonic()
            with pytest.raises(ConnectTimeout):
                open_store(url, connect_timeout=0.4)
            took.append(time.monotonic() - started)
        assert 0.3 < min(took) < 1.9, took  # libpq itself waits for 2 s at least


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://host", "names no database"),
        ("postgresql+psycopg2://host/name", "the driver is psycopg 3"),
        ("postgresql://host/name?ssl_mode=require", "did you mean 'sslmode'"),
        ("postgresql://host/name?timeout=0", "number of seconds from 1 to 3600"),
        ("mysql://host", "names no database"),
        ("mysql+mysqldb://host/name", "the driver is PyMySQL"),
        ("mariadb+mariadbconnector://host/name", "the driver is PyMySQL"),
        ("mysql://host/name?sslmode=require", "did you mean 'ssl_mode'"),
        ("mysql://host/name?ssl_mode=sometimes", "is one of disabled, preferred"),
        ("mysql://host/name?ssl_mode=disabled&ssl_ca=x", "does not go with ssl_ca"),
        ("mysql://host/name?timeout=0", "number of seconds from 1 to 3600"),
        ("mysql://host/name?upgrade=perhaps", "true or false"),
        ("mysql://host/one/two", "is no name of a database"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_connected(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Connection(url)


@pytest.mark.parametrize(
    "scheme", ["postgresql+psycopg", "mysql+pymysql", "mariadb", "mariadb+pymysql"]
)
def test_the_other_names_of_the_scheme_are_understood(
    scheme: str, postgres_broker: str, mysql_broker: str
) -> None:
    url = postgres_broker if scheme.startswith("postgresql") else mysql_broker
    with Connection(f"{scheme}:{url.partition(':')[2]}") as connection:
        assert connection.features.transactions


def test_a_handle_whose_connection_was_ended_says_so_once_and_connects_again(
    server: Server, open_store: OpenStore
) -> None:
    store = open_store(server.url)
    store.open_session("s", 30.0)
    server.end(store)
    with pytest.raises(ConnectionLost):
        store.put([Envelope("q", "a", b"", b"")], {})
    store.put([Envelope("q", "a", b"", b"")], {})
    assert len(store.claim("s", "r", {"q": 9}, 0.0).claims) == 1


def test_what_is_wrong_with_a_connection_is_never_a_foreign_error(
    server: Server, open_store: OpenStore
) -> None:
    store = open_store(server.url)
    store.open_session("s", 30.0)
    token = (1, 2**62 + 1)
    for call in (
        lambda: store.put([], {}, settle=[token]),
        lambda: store.claim("s", "r", {"q": 1}, 0.0, settle=[token]),
        lambda: store.release([token]),
        lambda: store.key_set("k", b"v"),
        store.sessions,
    ):
        server.end(store)
        with pytest.raises(QueueCoreError):
            call()
        assert store.sessions()


def test_what_is_committed_is_done_although_the_hint_is_lost(
    server: Server, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(server.url)
    store.open_session("s", 30.0)
    notify = store._dialect.notify

    def too_late(queues: Any) -> None:
        server.end(store)
        try:
            notify(queues)
        finally:
            with contextlib.suppress(ConnectionLost):  # where hints go another way
                store.sessions()

    monkeypatch.setattr(store._dialect, "notify", too_late)
    assert not store.put([Envelope("q", "a", b"", b"")], {}, limits={"q": Limit(5)}).already
    (claim,) = store.claim("s", "r", {"q": 9}, 0.0).claims
    assert store.release([claim.token]) == []
    assert len(store.claim("s", "r2", {"q": 9}, 0.0).claims) == 1
    assert store.end_session("s")
    assert store.inspect("q").ready == 1


def test_what_failed_keeps_no_locks(server: Server, open_store: OpenStore) -> None:
    """A body that is too large for MariaDB is found out in the middle of a put."""
    store, other = open_store(server.url), open_store(f"{server.url}?timeout=4")
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    (claim,) = store.claim("s", "r", {"q": 9}, 0.0).claims
    batch = [Envelope("q", str(number), b"", b"x" * 600_000) for number in range(3)]
    batch.append(Envelope("q", "large", b"", b"x" * (17 << 20)))
    try:
        store.put(batch, {}, settle=[claim.token])
    except TooLarge:
        assert other.release([claim.token]) == []
    else:
        assert other.release([claim.token]) == [claim.token]


def test_a_stalled_server_ends_in_the_callers_deadline(server: Server) -> None:
    """It accepts, and never answers again."""
    place = sqlalchemy.make_url(server.url)
    with FaultProxy(place.host or "127.0.0.1", place.port or 0, seed=1) as proxy:
        connection = Connection(server.changed(port=proxy.port), timeout=0.5)
        connection.declare(Queue("q"))
        producer = connection.producer()
        producer.publish("before", "q")
        proxy.stall()
        for call in (lambda: producer.publish("during", "q"), lambda: connection.inspect("q")):
            begun = time.monotonic()
            with pytest.raises(QueueCoreError):
                call()
            assert time.monotonic() - begun < 8.0
        proxy.heal()
        producer.publish("after", "q", timeout=20.0)
        connection.close()


def test_a_forked_child_leaves_its_parents_connection_alone(
    server: Server, open_store: OpenStore
) -> None:
    store, number = open_store(server.url), server.kind.number
    store.open_session("s", 30.0)
    ours = number(store)
    child = os.fork()
    if child == 0:
        try:
            store.put([Envelope("q", "child", b"", b"")], {})
            ok = number(store) != ours
            store.close()
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert [claim.id for claim in store.claim("s", "r", {"q": 9}, 0.0).claims] == ["child"]
    assert number(store) == ours


def requests() -> int:
    """How many segments with data this process has sent over TCP: small requests are one each."""
    sent = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            sent += int.from_bytes(info[156:160], sys.byteorder)  # tcpi_data_segs_out
    return sent


def test_a_heartbeat_is_one_round_trip(server: Server, open_store: OpenStore) -> None:
    store = open_store(server.url)
    for name in ("one", "two"):
        store.open_session(name, 30.0)
    beats = {name: lease.beats for name, lease in store.sessions().items()}
    store.heartbeat(["one"])  # PostgreSQL prepares the statement
    sent = requests()
    assert not store.heartbeat(["one", "two"])
    assert requests() == sent + 1
    assert all(lease.beats != beats[name] for name, lease in store.sessions().items())
