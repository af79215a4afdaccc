"""A broker URL as connection parameters: which options there are, their defaults and bounds.

Pure but for reading certificate files. TLS verifies certificate and host name unless the URL says
``verify=false``.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

import pika

from queue_core.errors import ConfigError
from queue_core.transport import SessionOptions
from queue_core.url import TLS_OPTIONS, BrokerURL

OPTIONS: Final = (
    "blocked_timeout",
    "channel_max",
    "connect_timeout",
    "frame_max",
    "heartbeat",
    *TLS_OPTIONS,
)
_BLOCKED_TIMEOUT: Final = 300.0
_FRAME_MAX: Final = 131_072
_FRAME_MIN: Final = 8192  # RabbitMQ 4.1 refuses less


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session needs to make connections.

    Attributes:
        parameters: for pika.
        where: ``host:port``, for messages.
        connect_timeout: seconds for one connection to come up.
    """

    parameters: pika.ConnectionParameters
    where: str
    vhost: str
    user: str
    connect_timeout: float


def check_url(url: BrokerURL) -> None:
    """Raise ConfigError: an unknown option, a value out of bounds, TLS options without TLS."""
    url.check_driver()
    url.check_options(OPTIONS)
    _heartbeat(url, 30.0)
    _connect_timeout(url, 10.0)
    _blocked_timeout(url)
    _frame_max(url)
    _channel_max(url)
    url.check_tls("amqps")


def read_settings(url: BrokerURL, options: SessionOptions) -> Settings:
    """Return the settings for sessions on ``url``. Raises ConfigError; reads certificate files."""
    check_url(url)
    secure = url.transport == "amqps"
    host = url.host or "localhost"
    port = url.port or (5671 if secure else 5672)
    user = url.user if url.user is not None else "guest"
    password = url.password if url.password is not None else "guest"
    timeout = min(_connect_timeout(url, options.connect_timeout), options.connect_timeout)
    heartbeat = _heartbeat(url, options.lease)
    parameters = pika.ConnectionParameters(
        host=host,
        port=port,
        virtual_host=url.vhost,
        credentials=pika.PlainCredentials(user, password),
        channel_max=_channel_max(url),
        frame_max=_frame_max(url),
        heartbeat=heartbeat,
        ssl_options=pika.SSLOptions(_tls(url), host) if secure else None,
        connection_attempts=1,
        # pika's own limits stand behind ours, which has the better message.
        socket_timeout=timeout + 1,
        stack_timeout=timeout + 1,
        blocked_connection_timeout=_blocked_timeout(url),
        client_properties={
            "product": "queue_core",
            "connection_name": options.node or "queue_core",
        },
        tcp_options={"TCP_USER_TIMEOUT": 2000 * heartbeat} if heartbeat else None,
    )
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Settings(parameters, shown, url.vhost, user, timeout)


def _heartbeat(url: BrokerURL, lease: float) -> int:
    """Return the heartbeat in seconds: half the lease, since a broker gives up after two."""
    asked = url.seconds("heartbeat", lease / 2, low=0.0, high=3600.0)
    if asked == 0:
        return 0
    return max(1, round(asked))


def _connect_timeout(url: BrokerURL, default: float) -> float:
    return url.seconds("connect_timeout", default, low=0.1, high=600.0)


def _blocked_timeout(url: BrokerURL) -> float:
    return url.seconds("blocked_timeout", _BLOCKED_TIMEOUT, low=1.0, high=86_400.0)


def _channel_max(url: BrokerURL) -> int:
    return _count(url, "channel_max", 2047, 1, 65_535)


def _frame_max(url: BrokerURL) -> int:
    return _count(url, "frame_max", _FRAME_MAX, _FRAME_MIN, 2**31 - 1)


def _count(url: BrokerURL, name: str, default: int, low: int, high: int) -> int:
    value = url.option(name, int, default)
    if not low <= value <= high:
        raise ConfigError(f"option {name!r} of the broker URL {url} must be from {low} to {high}")
    return value


def _tls(url: BrokerURL) -> ssl.SSLContext:
    verify = url.option("verify", bool, default=True)
    try:
        context = ssl.create_default_context(cafile=url.options.get("cafile"))
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate := url.options.get("certfile"):
            context.load_cert_chain(certificate, url.options.get("keyfile"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the certificate files of the broker URL {url}: {error}"
        ) from error
    return context
