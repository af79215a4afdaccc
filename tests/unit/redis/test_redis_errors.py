"""What the server's and the driver's errors mean."""

from __future__ import annotations

import pytest
from redis import exceptions

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    StoreCorrupt,
)
from queue_core.transports.redis.errors import explain
from queue_core.transports.redis.health import check

RESPONSE = exceptions.ResponseError


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (exceptions.ConnectionError("Error 111 connecting"), ConnectionLost),
        (ConnectionResetError("reset"), ConnectionLost),
        (exceptions.TimeoutError("Timeout reading"), ConnectTimeout),
        (TimeoutError("timed out"), ConnectTimeout),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), ConnectionLost),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), ConnectionLost),
        (RESPONSE("BUSY Redis is busy running a script."), ConnectionLost),
        (RESPONSE("UNBLOCKED force unblock from blocking operation"), ConnectionLost),
        (exceptions.ConnectionError("max number of clients reached"), ConnectionLost),
        (exceptions.AuthenticationError("invalid username-password pair"), AccessRefused),
        (exceptions.AuthenticationError("Authentication required."), AccessRefused),
        (RESPONSE("WRONGPASS invalid username-password pair"), AccessRefused),
        (exceptions.NoPermissionError("this user has no permissions to run 'eval'"), AccessRefused),
        (RESPONSE("The user executing the script can't run this command"), AccessRefused),
        (exceptions.OutOfMemoryError("command not allowed when used memory"), BrokerFull),
        (RESPONSE("Error running script: -OOM command not allowed"), BrokerFull),
        (RESPONSE("MISCONF Redis is configured to save RDB snapshots"), BrokerFull),
        (RESPONSE("WRONGTYPE Operation against a key"), StoreCorrupt),
        (RESPONSE("Error running script (call to f_1): WRONGTYPE Operation"), StoreCorrupt),
        (RESPONSE("DB index is out of range"), ConfigError),
        (RESPONSE("MOVED 3999 127.0.0.1:6381"), ConfigError),
    ],
)
def test_each_error_is_one_of_ours(error: Exception, meaning: type[QueueCoreError]) -> None:
    explained = explain(error, "Redis at h:1, database 0", "EVALSHA, put")
    assert type(explained) is meaning
    assert "Redis at h:1" in str(explained)


class Answers:
    """A server that answers INFO with these lines, and has nothing to hand out."""

    place = "Redis at h:1, database 0"

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    def key(self, name: str) -> bytes:
        return name.encode()

    def command(self, *words: str | bytes) -> bytes | None:
        if words[0] == "BLPOP":
            return None
        assert words == ("INFO",)
        return "\r\n".join(("# Server", *self.lines)).encode()

    def run(self, name: str, plan: bytes) -> bytes:
        assert name == "open"
        return b"1"


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "2.8"])
def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=r"6\.2 or newer"):
        check(Answers(f"redis_version:{version}"), allow_eviction=False)


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "7.4.0-rc1", "10.0.1"])
def test_newer_servers_are_taken(version: str) -> None:
    check(Answers(f"redis_version:{version}"), allow_eviction=False)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("AUTH <password> called without any password configured", "leave it out of the URL"),
        ("WRONGPASS invalid username-password pair", "redis://user:password@host"),
        ("DB index is out of range", "behind the last / of the URL"),
    ],
)
def test_what_the_url_has_wrong_is_said_with_what_to_write(text: str, advice: str) -> None:
    error = exceptions.AuthenticationError(text) if "password" in text else RESPONSE(text)
    assert advice in str(explain(error, "Redis at h:1, database 9", "connect"))
