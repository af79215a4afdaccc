"""Opening a connection: what is wrong is said at once, and names what is missing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_core import Connection, Queue
from queue_core.errors import (
    AccessRefused,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    StoreCorrupt,
)
from queue_core.testing.eventually import eventually
from queue_core.transports.redis.store import RedisStore
from tests.ports import free_port

MakeServer = Callable[..., Any]
OpenStore = Callable[..., RedisStore]


def test_a_socket_in_the_file_system_is_a_broker(make_server: MakeServer) -> None:
    server = make_server()
    with Connection(f"{server.url}?db=3&prefix=here") as connection:
        connection.declare(Queue("q"))
        connection.producer().publish("hello", "q")
        with connection.consumer("q") as consumer:
            message = consumer.receive(timeout=20)
            assert message is not None and message.payload == "hello"
            message.ack()
    assert not server.client.keys("*")
    server.client.select(3)
    server.client.connection_pool.disconnect()
    keys = [line for line in server.client.execute_command("INFO", "keyspace")]
    assert keys == ["db3"]


def test_brokers_with_different_prefixes_know_nothing_of_one_another(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    url = make_server().url
    one, two = open_store(f"{url}?prefix=one"), open_store(f"{url}?prefix=two")
    one.open_session("s", 1.0)
    assert "s" not in two.sessions()


def test_a_wrong_password_is_refused_and_not_shown(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    server.client.config_set("requirepass", "right")
    with pytest.raises(AccessRefused, match="user and password") as caught:
        open_store(_with_password(server.url, "wr0ng"))
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(AccessRefused):
        open_store(server.url)
    open_store(_with_password(server.url, "right"))


def _with_password(url: str, password: str) -> str:
    return url.replace("unix://", f"unix://:{password}@")


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (["-eval", "-evalsha"], "EVAL"),
        (["-info"], "INFO"),
        (["-hset"], "HSET"),
        (["-zmscore"], "ZMSCORE"),
        (["-blpop"], "BLPOP"),
        (["-time"], "TIME"),
        (["resetkeys", "~other:*"], "one of the keys"),
    ],
)
def test_a_missing_permission_is_named(
    make_server: MakeServer, open_store: OpenStore, rules: list[str], missing: str
) -> None:
    server = make_server()
    server.client.execute_command("ACL", "SETUSER", "worker", "on", ">pass", "~*", "+@all", *rules)
    url = server.url.replace("unix://", "unix://worker:pass@")
    with pytest.raises(AccessRefused, match=missing):
        open_store(url)
    assert server.client.keys("*") == []


def test_the_permissions_that_the_error_names_are_enough(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    named = ["+@read", "+@write", "+eval", "+evalsha", "+time", "+info", "+blpop"]
    server.client.execute_command("ACL", "SETUSER", "worker", "on", ">pass", "~{qc}:*", *named)
    store = open_store(server.url.replace("unix://", "unix://worker:pass@"))
    store.open_session("s", 30.0)
    store.claim("s", "r", {"q": 1}, 0.05)
    store.key_set("k", b"v", ttl=1.0)
    assert store.collect("s", 1) == []


def test_a_replica_that_may_not_be_written_is_refused_at_once(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server("--replicaof", "127.0.0.1", "1")
    with pytest.raises(ConnectionLost, match="(?i)read.only replica"):
        open_store(server.url)
    server.client.replicaof("NO", "ONE")
    open_store(server.url).open_session("s", 30.0)


def test_a_cluster_and_a_sentinel_are_refused_with_a_reason(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    with pytest.raises(ConfigError, match="cluster mode, which is not supported"):
        open_store(make_server("--cluster-enabled", "yes").url)
    with pytest.raises(ConfigError, match="sentinel mode, which is not supported"):
        open_store(make_server("--sentinel").url)
    for url in ("redis+sentinel://localhost/name", "redis+cluster://localhost"):
        with pytest.raises(ConfigError, match="redis://"):
            Connection(url)


def test_nobody_there_is_a_lost_connection(tmp_path: Path, open_store: OpenStore) -> None:
    with pytest.raises(ConnectionLost, match="nowhere"):
        open_store(f"unix://{tmp_path}/nowhere")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionLost, match=str(taken.getsockname()[1])):
            open_store(f"redis://127.0.0.1:{taken.getsockname()[1]}")


def test_a_server_that_never_answers_is_given_up(open_store: OpenStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        with pytest.raises(ConnectTimeout):
            open_store(f"redis://127.0.0.1:{silent.getsockname()[1]}?timeout=2s")
        assert time.monotonic() - before < 8


def test_a_database_that_is_not_there_is_named(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server("--databases", "2")
    with pytest.raises(ConfigError, match="database 7"):
        open_store(f"{server.url}?db=7")


def test_a_server_that_evicts_is_refused_unless_that_is_accepted(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigError, match="allkeys-lru"):
        open_store(server.url)
    open_store(f"{server.url}?allow_eviction=true")


def test_data_of_another_format_is_left_alone(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    server.client.set("{qc}:format", "99")
    with pytest.raises(StoreCorrupt, match="'99'"):
        open_store(server.url)


def test_tls_verifies_the_server_unless_told_not_to(
    make_server: MakeServer, open_store: OpenStore, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "this test makes a certificate; next: apt-get install openssl"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    request += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    request += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    port = free_port()
    make_server(
        *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file"),
        *(str(certificate), "--tls-key-file", str(key)),
    )
    with pytest.raises(ConnectionLost, match="certificate"):
        open_store(f"rediss://localhost:{port}")
    with pytest.raises(ConnectionLost, match="(?i)mismatch|doesn't match|not valid"):
        open_store(f"rediss://127.0.0.1:{port}?cafile={certificate}")
    open_store(f"rediss://localhost:{port}?cafile={certificate}").open_session("s", 1.0)
    open_store(f"rediss://127.0.0.1:{port}?verify=false").open_session("s", 1.0)


def test_an_idle_second_costs_two_round_trips(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    server.client.config_resetstat()
    for number in range(2):
        assert not store.claim("s", f"r{number}", {"q": 9, "other": 9}, 1.0).claims
    stats = server.client.info("commandstats")
    asked = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "blpop"))
    # each of the two may come back a little early, and the last look is then made again
    assert 4 <= asked <= 6


def test_a_waiting_consumer_is_woken_within_milliseconds(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    with Connection(server.url) as connection:
        connection.declare(Queue("q"))
        producer = connection.producer()
        with connection.consumer("q") as consumer:
            waits = []
            for _ in range(5):
                assert consumer.receive(timeout=0.05) is None
                before = time.monotonic()
                producer.publish("x", "q")
                message = eventually(lambda: consumer.receive(timeout=1), what="the message")
                waits.append(time.monotonic() - before)
                message.ack()
    assert min(waits) < 0.2
