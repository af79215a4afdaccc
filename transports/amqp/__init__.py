"""The AMQP 0-9-1 transport, for RabbitMQ: ``amqp://`` and, with TLS, ``amqps://``.

The broker does by itself what `queue_core.emulation` does for stores, so this package implements
`Session` directly:

- ``session``: the contract; two connections, one for publishing
- ``io``: a connection and its one thread; ``burst``: pika's connection, faster; ``channel``
- ``publishing``, ``consuming``, ``settling``, ``administration``: what a session does on them;
  ``subscription``: one consumer's life on a queue; ``proof``: that acks took effect
- ``delaying``, ``returning``, ``arrivals``: delays and counted failures, which AMQP does not have;
  ``ladder``, ``copies``: what they declare and send, pure
- ``frames``, ``tables``, ``properties``: the bytes of the hot path, pure; ``direct_reply``: keys
  that would end the connection
- ``topology``, ``options``, ``errors``: arguments, URL options and errors translated, pure
- ``versions``, ``durability``: what differs between servers and queues, pure

URL options: ``heartbeat`` (seconds; default half the lease), ``connect_timeout``,
``blocked_timeout`` (seconds that an alarm may block publishing before the connection is given up;
300), ``frame_max`` (bytes, at least 8192), ``channel_max``; with ``amqps`` also ``cafile``,
``certfile``, ``keyfile`` and ``verify`` (``verify=false`` accepts any certificate).
"""

from __future__ import annotations

from queue_core.transport import Features, Session, SessionOptions, Transport
from queue_core.transports.amqp.topology import FEATURES, NAME
from queue_core.url import BrokerURL

__all__ = ["AmqpTransport", "transport"]


class AmqpTransport:
    """RabbitMQ over pika.

    The driver is imported when a URL is used, so that a process which only reads properties
    (`queue_core.find_reader`) need not load it.
    """

    name: str = NAME
    features: Features = FEATURES

    def check(self, url: BrokerURL) -> None:
        """Raise ConfigError if an option is unknown or out of bounds."""
        from queue_core.transports.amqp.options import check_url  # noqa: PLC0415

        check_url(url)

    def open(self, url: BrokerURL, options: SessionOptions) -> Session:
        """Connect within ``options.connect_timeout``; see `Transport.open`."""
        from queue_core.transports.amqp.options import read_settings  # noqa: PLC0415
        from queue_core.transports.amqp.session import AmqpSession  # noqa: PLC0415

        return AmqpSession(read_settings(url, options), options)


transport: Transport = AmqpTransport()
