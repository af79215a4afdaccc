"""The Redis transport: queues in one Redis server, 6.2 or newer.

``redis://[user[:password]@]host[:port][/number]``, ``rediss://`` for TLS, and
``unix:///path/to/socket?db=number``. Options: ``prefix`` (default ``qc``) keeps brokers on one
server apart, ``allow_eviction=true`` accepts a server that evicts, ``timeout`` and
``connect_timeout`` are seconds, and ``cafile``, ``certfile``, ``keyfile`` and ``verify`` are for
TLS.

- ``store``: the contract, on Lua ``scripts``; ``plans``: between its values and theirs
- ``server``: a connection; ``spin``: how it waits for an answer
- ``keys``: where everything is in Redis
- ``health``, ``durability``: whether a server can be used, and what it keeps
- ``options``, ``errors``: URL options and errors translated
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from queue_core.emulation import StoreTransport
from queue_core.transport import Features, SessionOptions
from queue_core.transports.redis.health import check
from queue_core.transports.redis.keys import DEFAULT_PREFIX, root_of
from queue_core.transports.redis.options import check_url, make_connection, place_of
from queue_core.transports.redis.scripts import Script, load_scripts
from queue_core.transports.redis.server import Server
from queue_core.transports.redis.store import RedisStore
from queue_core.url import BrokerURL

__all__ = ["FEATURES", "RedisStores", "transport"]

FEATURES = Features(durable=True, shared=True, priority=True, delay=True, key_value=True)
"""What the Redis store can do by itself. How durable it is depends on the server's settings."""


class RedisStores:
    """Opens handles. Thread-safe.

    Args:
        clock: the Lua text of another clock for the scripts; for tests.
    """

    def __init__(self, clock: str | None = None) -> None:
        self._clock = clock

    @functools.cached_property
    def _scripts(self) -> Mapping[str, Script]:
        return load_scripts(self._clock)

    def open(self, url: BrokerURL, options: SessionOptions) -> RedisStore:
        """Return a connected handle on the server that ``url`` names; see `StoreTransport`.

        Raises:
            ConfigError: the URL is wrong, or the server's settings are.
            AccessRefused, ConnectionLost, ConnectTimeout, StoreCorrupt: as they say.
        """
        check_url(url)
        health = functools.partial(
            check, allow_eviction=url.option("allow_eviction", bool, default=False)
        )
        root = root_of(url.option("prefix", str, DEFAULT_PREFIX))
        server, second = (
            Server(make_connection(url, options), place_of(url), root, self._scripts, health)
            for _ in range(2)
        )
        store = RedisStore(server, second)
        store.connect()
        return store


transport = StoreTransport("redis", FEATURES, RedisStores().open, check_url)
"""What the entry points ``redis``, ``rediss`` and ``unix`` name."""
