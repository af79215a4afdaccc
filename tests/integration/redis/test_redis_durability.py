"""What a Redis server promises, detected on servers with each of the settings."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from queue_core import Connection, Survives
from queue_core.testing.eventually import eventually

MakeServer = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "survives", "warns"),
    [
        (["--appendonly", "yes", "--appendfsync", "always"], Survives.POWER_CUT, False),
        (["--appendonly", "yes", "--appendfsync", "everysec"], Survives.SERVER_CRASH, False),
        (["--appendonly", "yes", "--appendfsync", "no"], Survives.SERVER_CRASH, False),
        (["--save", "3600", "1"], Survives.RESTART, True),
        ([], Survives.CLIENTS, True),
    ],
)
def test_each_way_to_keep_things_is_detected(
    make_server: MakeServer,
    caplog: pytest.LogCaptureFixture,
    options: list[str],
    survives: Survives,
    warns: bool,
) -> None:
    url = make_server(*options).url
    with caplog.at_level(logging.WARNING), Connection(url) as connection:
        connection.connect()
        assert connection.durability.survives is survives
        assert connection.durability.broker.split()[0] in ("Redis", "Valkey")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns
    if warns:
        assert "set appendonly yes" in caplog.text


def test_a_change_of_the_settings_is_seen_by_who_asks_again(make_server: MakeServer) -> None:
    server = make_server()
    with Connection(server.url) as connection:
        queue = connection.simple_queue("q").name
        assert connection.durability_of(queue).survives is Survives.CLIENTS
        server.client.config_set("appendonly", "yes")
        assert connection.durability_of(queue).survives is Survives.SERVER_CRASH
        assert connection.durability.survives is Survives.CLIENTS, "as it was when connected"


@pytest.mark.parametrize(
    ("appendonly", "survives"), [("no", Survives.UNKNOWN), ("yes", Survives.SERVER_CRASH)]
)
def test_where_config_is_forbidden_the_rest_is_said_to_be_unknown(
    make_server: MakeServer, appendonly: str, survives: Survives
) -> None:
    server = make_server("--appendonly", appendonly)
    server.client.execute_command(
        "ACL", "SETUSER", "worker", "on", ">pass", "~*", "+@all", "-config"
    )
    with Connection(server.url.replace("unix://", "unix://worker:pass@")) as connection:
        connection.connect()
        assert connection.durability.survives is survives
        assert "CONFIG is not permitted" in connection.durability.found


def test_a_server_without_the_command_is_no_error(make_server: MakeServer) -> None:
    server = make_server("--rename-command", "CONFIG", "")
    with Connection(server.url) as connection:
        connection.connect()
        assert connection.durability.survives is Survives.UNKNOWN


def test_a_server_that_evicts_is_said_to_keep_nothing_for_sure(make_server: MakeServer) -> None:
    server = make_server("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru")
    with Connection(f"{server.url}?allow_eviction=true") as connection:
        connection.connect()
        assert connection.durability.survives is Survives.CLIENTS
        assert "allkeys-lru" in str(connection.durability)


def test_a_replica_is_seen(make_server: MakeServer) -> None:
    leader = make_server("--appendonly", "yes", "--port", "0")
    follower = make_server()
    port = _open_port(leader)
    follower.client.execute_command("REPLICAOF", "127.0.0.1", port)
    eventually(
        lambda: leader.client.info()["connected_slaves"] == 1, what="the replica", deadline=30
    )
    with Connection(leader.url) as connection:
        connection.connect()
        assert "1 asynchronous replica," in connection.durability.found
        assert any("failover" in warning.problem for warning in connection.durability.warnings)


def _open_port(server: Any) -> int:
    """Let the server listen on a free port too; return it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    server.client.config_set("port", port)
    return port
