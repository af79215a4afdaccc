"""The SQL transport on MariaDB 10.8 or newer, with PyMySQL.

``mysql://[user[:password]@]host[:port]/database``, or ``mariadb://``, which means the same;
`mariadb_server.check` describes the options, and what a URL without ``ssl_mode`` does about TLS.
The tables can live in an application's own database, so that a publish can join its transaction.
MySQL itself is refused; see `mariadb_server`.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from queue_core.transport import Features, SessionOptions
from queue_core.transports.sql.mariadb_dialect import NOW, MariadbDialect, MariadbLanguage
from queue_core.transports.sql.mariadb_once import Once
from queue_core.transports.sql.mariadb_server import MariadbServer, check
from queue_core.transports.sql.schema import Catalog
from queue_core.transports.sql.statements import Statements
from queue_core.transports.sql.store import SqlStore
from queue_core.transports.sql.transport import SqlTransport
from queue_core.url import BrokerURL

__all__ = ["FEATURES", "MariadbStores", "check", "transport"]

FEATURES = Features(
    durable=True, shared=True, priority=True, delay=True, transactions=True, key_value=True
)
"""What the MariaDB store can do by itself."""


class MariadbStores:
    """What the store handles of one process share: compiled statements. Thread-safe."""

    def __init__(self, now: str = NOW) -> None:
        """``now`` is the present in microseconds as SQL."""
        self._now = now

    @functools.cached_property
    def _compiled(self) -> tuple[MariadbLanguage, Statements, Once]:
        language = MariadbLanguage(self._now)
        return language, Statements(language), Once(self._now)

    def open(self, url: BrokerURL, options: SessionOptions) -> SqlStore:
        """Return a connected handle on the database that ``url`` names, tables included.

        Raises:
            ConfigError: the URL is wrong, or the server is too old.
            AccessRefused, ConnectionLost, ConnectTimeout, BrokerFull, StoreCorrupt: as they say.
        """
        check(url)
        language, statements, once = self._compiled
        store = SqlStore(MariadbDialect(MariadbServer(url, options), language, once), statements)
        store.connect()
        return store


def _catalog(url: BrokerURL, options: SessionOptions) -> AbstractContextManager[Catalog]:
    return MariadbServer(url, options).catalog(MariadbLanguage().compiler)


transport = SqlTransport("mariadb", FEATURES, MariadbStores().open, check, _catalog)
"""What the entry points ``mysql`` and ``mariadb`` name."""
