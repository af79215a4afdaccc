"""A Redis URL as a connection: which options there are, their defaults and bounds.

``redis://[user[:password]@]host[:port][/number]``, ``rediss://`` for TLS, and
``unix:///path/to/socket?db=number``. Pure but for looking at certificate files. TLS verifies
certificate and host name unless the URL says ``verify=false``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from queue_core.errors import ConfigError
from queue_core.transport import SessionOptions
from queue_core.transports.redis.keys import DEFAULT_PREFIX, root_of
from queue_core.transports.redis.server import Wire
from queue_core.url import TLS_OPTIONS, BrokerURL

OPTIONS: Final = ("allow_eviction", "connect_timeout", "db", "prefix", "timeout", *TLS_OPTIONS)

_LONGEST_WAIT: Final = 1.0
_KINDS: Final[Mapping[str, Callable[..., Wire]]] = MappingProxyType(
    {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
)


def check_url(url: BrokerURL) -> None:
    """Raise ConfigError: an unknown option, a value out of bounds, TLS options without TLS."""
    url.check_driver()
    url.check_options(OPTIONS)
    if url.transport == "unix":
        if url.host or url.port or url.database == "":
            raise ConfigError(
                f"the broker URL {url} must name a socket: unix:///path/to/redis.sock, with three "
                "slashes"
            )
    elif "db" in url.options:
        raise ConfigError(
            f"option 'db' of the broker URL {url} is for unix://; here the number follows the "
            "host: redis://host:6379/0"
        )
    if url.user is not None and url.password is None:
        raise ConfigError(
            f"the broker URL {url} has a user and no password; a password alone is written "
            "redis://:password@host"
        )
    database_of(url)
    root_of(url.option("prefix", str, DEFAULT_PREFIX))
    url.option("allow_eviction", bool, default=False)
    _connect_timeout(url, 10.0)
    _timeout(url, 10.0)
    url.check_tls("rediss")


def database_of(url: BrokerURL) -> int:
    """Return the number of the database. Raises ConfigError if it is no number."""
    text = url.options.get("db", "") if url.transport == "unix" else url.database.strip("/")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            f"the broker URL {url} must name a database by its number, as in redis://host:6379/0"
        )
    return int(text)


def place_of(url: BrokerURL) -> str:
    """Return which server and database, for errors."""
    if url.transport == "unix":
        return f"Redis at the socket /{url.database}, database {database_of(url)}"
    host = f"[{url.host}]" if ":" in url.host else url.host or "localhost"
    return f"Redis at {host}:{url.port or 6379}, database {database_of(url)}"


def make_connection(url: BrokerURL, options: SessionOptions) -> Wire:
    """Return a connection that is not connected yet, without redis-py's retries.

    Raises ConfigError if a certificate file cannot be read.
    """
    connecting = _connect_timeout(url, options.connect_timeout)
    settings: dict[str, Any] = {
        "db": database_of(url),
        "username": url.user,
        "password": url.password,
        # a wait of one second must not look like silence
        "socket_timeout": max(_timeout(url, options.timeout), 2 * _LONGEST_WAIT),
        "socket_connect_timeout": min(connecting, options.connect_timeout),
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "protocol": 2,
        "decode_responses": False,
    }
    if url.transport == "unix":
        settings["path"] = f"/{url.database}"
    else:
        settings["host"] = url.host or "localhost"
        settings["port"] = url.port or 6379
        settings["socket_keepalive"] = True
    if url.transport == "rediss":
        settings |= _tls(url)
    return _KINDS[url.transport](**settings)


def _connect_timeout(url: BrokerURL, default: float) -> float:
    return url.seconds("connect_timeout", default, low=0.1, high=600.0)


def _timeout(url: BrokerURL, default: float) -> float:
    return url.seconds("timeout", default, low=2.0, high=600.0)


def _tls(url: BrokerURL) -> Mapping[str, Any]:
    verify = url.option("verify", bool, default=True)
    for name in ("cafile", "certfile", "keyfile"):
        path = url.options.get(name)
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"cannot read the file of option {name!r} of the broker URL {url}")
    return {
        "ssl_cert_reqs": "required" if verify else "none",
        "ssl_check_hostname": verify,
        "ssl_ca_certs": url.options.get("cafile"),
        "ssl_certfile": url.options.get("certfile"),
        "ssl_keyfile": url.options.get("keyfile"),
    }
