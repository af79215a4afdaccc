"""Broker URLs as connection parameters."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from queue_core.errors import ConfigError
from queue_core.registry import find_transport
from queue_core.transport import SessionOptions
from queue_core.transports.amqp.options import check_url, read_settings
from queue_core.url import parse


def test_defaults_are_those_of_rabbitmq() -> None:
    settings = read_settings(parse("amqp://localhost"), SessionOptions(lease=30.0))
    parameters = settings.parameters
    assert (parameters.host, parameters.port, parameters.virtual_host) == ("localhost", 5672, "/")
    assert (parameters.credentials.username, parameters.credentials.password) == ("guest", "guest")
    assert parameters.heartbeat == 15
    assert parameters.ssl_options is None
    assert settings.where == "localhost:5672"


def test_everything_in_the_url_arrives() -> None:
    url = parse(
        "amqp://us%40er:p%2Fw@[::1]:1234/v%2Fh?heartbeat=7&connect_timeout=2&blocked_timeout=1m"
        "&frame_max=8192&channel_max=10"
    )
    settings = read_settings(url, SessionOptions())
    parameters = settings.parameters
    assert (parameters.host, parameters.port, parameters.virtual_host) == ("::1", 1234, "v/h")
    assert (parameters.credentials.username, parameters.credentials.password) == ("us@er", "p/w")
    assert parameters.heartbeat == 7
    assert parameters.blocked_connection_timeout == 60.0
    assert (parameters.frame_max, parameters.channel_max) == (8192, 10)
    assert settings.connect_timeout == 2.0
    assert settings.where == "[::1]:1234"


@pytest.mark.parametrize(("lease", "heartbeat"), [(30.0, 15), (3.0, 2), (0.5, 1)])
def test_the_heartbeat_is_half_the_lease(lease: float, heartbeat: int) -> None:
    settings = read_settings(parse("amqp://h"), SessionOptions(lease=lease))
    assert settings.parameters.heartbeat == heartbeat


def test_a_heartbeat_of_zero_switches_it_off() -> None:
    settings = read_settings(parse("amqp://h?heartbeat=0"), SessionOptions())
    assert settings.parameters.heartbeat == 0
    assert settings.parameters.tcp_options is None


def test_the_shorter_connect_timeout_counts() -> None:
    options = SessionOptions(connect_timeout=3.0)
    assert read_settings(parse("amqp://h"), options).connect_timeout == 3.0
    assert read_settings(parse("amqp://h?connect_timeout=60"), options).connect_timeout == 3.0
    assert read_settings(parse("amqp://h?connect_timeout=1"), options).connect_timeout == 1.0


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("hartbeat=3", "'heartbeat'"),
        ("heartbeat=-1", "from 0 to 3600"),
        ("heartbeat=often", "must be a number"),
        ("connect_timeout=0", "from 0.1"),
        ("frame_max=100", "from 8192"),
        ("channel_max=0", "from 1"),
        ("cafile=/x", "amqps://"),
        ("verify=false", "amqps://"),
    ],
)
def test_wrong_options_are_refused_by_name(query: str, says: str) -> None:
    url = parse(f"amqp://user:secret@h?{query}")
    for check in (check_url, find_transport("amqp").check):
        with pytest.raises(ConfigError, match=says) as caught:
            check(url)
        assert "secret" not in str(caught.value)


def test_tls_verifies_certificate_and_host_unless_told_otherwise() -> None:
    strict = read_settings(parse("amqps://h"), SessionOptions()).parameters
    assert strict.port == 5671
    assert strict.ssl_options.server_hostname == "h"
    assert strict.ssl_options.context.verify_mode is ssl.CERT_REQUIRED
    assert strict.ssl_options.context.check_hostname
    lax = read_settings(parse("amqps://h?verify=false"), SessionOptions()).parameters
    assert lax.ssl_options.context.verify_mode is ssl.CERT_NONE
    assert not lax.ssl_options.context.check_hostname


def test_a_missing_certificate_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certificate files"):
        read_settings(parse(f"amqps://h?cafile={tmp_path}/none.pem"), SessionOptions())
    with pytest.raises(ConfigError, match="certfile"):
        check_url(parse("amqps://h?keyfile=/k"))


def test_amqps_is_the_same_transport() -> None:
    assert find_transport("amqps").name == find_transport("amqp").name == "amqp"
