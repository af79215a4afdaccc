"""Redis URLs: what they mean, and which are refused."""

from __future__ import annotations

import pytest

from queue_core.errors import ConfigError
from queue_core.registry import find_transport
from queue_core.transport import SessionOptions
from queue_core.transports.redis.keys import root_of
from queue_core.transports.redis.options import (
    check_url,
    database_of,
    make_connection,
    place_of,
)
from queue_core.url import parse


def connection(text: str, **options: float) -> object:
    return make_connection(parse(text), SessionOptions(**options))


def test_everything_in_the_url_arrives() -> None:
    made = connection("redis://us%40er:p%2Fw@example:1234/5?timeout=7s&connect_timeout=3")
    assert (made.host, made.port, made.db) == ("example", 1234, 5)
    assert (made.username, made.password) == ("us@er", "p/w")
    assert (made.socket_timeout, made.socket_connect_timeout) == (7.0, 3.0)


def test_the_driver_neither_retries_nor_asks_for_another_protocol() -> None:
    made = connection("redis://h")
    assert made.retry.get_retries() == 0
    assert (made.health_check_interval, made.protocol) == (0, 2)
    assert made.retry_on_timeout is False


def test_silence_is_noticed_later_than_the_longest_wait() -> None:
    assert connection("redis://h", timeout=0.5).socket_timeout == 2.0
    assert connection("redis://h", timeout=30.0).socket_timeout == 30.0


def test_the_shorter_connect_timeout_counts() -> None:
    made = connection("redis://h?connect_timeout=60", connect_timeout=4.0)
    assert made.socket_connect_timeout == 4.0


def test_a_socket_is_a_path_and_its_database_an_option() -> None:
    made = connection("unix:///run/redis/redis.sock?db=2")
    assert (made.path, made.db) == ("/run/redis/redis.sock", 2)
    assert place_of(parse("unix:///run/r.sock")) == "Redis at the socket /run/r.sock, database 0"


def test_tls_verifies_unless_told_not_to() -> None:
    made = connection("rediss://h")
    assert made.cert_reqs.name == "CERT_REQUIRED"
    assert made.check_hostname is True
    made = connection("rediss://h?verify=false")
    assert made.cert_reqs.name == "CERT_NONE"


def test_the_place_says_server_and_database_but_no_password() -> None:
    place = place_of(parse("redis://u:secret@[::1]/3"))
    assert place == "Redis at [::1]:6379, database 3"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("redis://h?prefx=a", "'prefix'"),
        ("redis://h?prefix=a%7Db", "letters"),
        ("redis://h?prefix=", "letters"),
        ("redis://h/queue", "by its number"),
        ("redis://h/-1", "by its number"),
        ("redis://h?db=1", "unix://"),
        ("redis://user@h", "no password"),
        ("redis://h?timeout=1", "from 2 to 600"),
        ("redis://h?allow_eviction=maybe", "true or false"),
        ("redis://h?verify=false", "rediss://"),
        ("rediss://h?keyfile=/k", "certfile"),
        ("unix://host/path", "three slashes"),
        ("unix:///", "three slashes"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check_url(parse(text))


def test_a_certificate_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match="cafile"):
        connection("rediss://h?cafile=/nowhere/at/all")


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_the_schemes_are_entry_points(scheme: str) -> None:
    assert find_transport(scheme).name == "redis"


def test_keys_share_one_hash_tag() -> None:
    assert root_of("qc") == b"{qc}:"
    assert database_of(parse("redis://h")) == 0
