"""The SQL transport on PostgreSQL 12 or newer, with psycopg 3.

``postgresql://[user[:password]@]host[:port]/database``; `postgresql_server.check` describes the
options, and what a URL without ``sslmode`` does about TLS. The tables are made where the user's
``search_path`` leads, and can live in an application's own database, so that a publish can join its
transaction.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from queue_core.transport import Features, SessionOptions
from queue_core.transports.sql.postgresql_dialect import NOW, PostgresDialect, PostgresLanguage
from queue_core.transports.sql.postgresql_once import Once
from queue_core.transports.sql.postgresql_server import PostgresServer, check
from queue_core.transports.sql.postgresql_wakeup import Throttle
from queue_core.transports.sql.schema import Catalog
from queue_core.transports.sql.statements import Statements
from queue_core.transports.sql.store import SqlStore
from queue_core.transports.sql.transport import SqlTransport
from queue_core.url import BrokerURL

__all__ = ["FEATURES", "PostgresStores", "check", "transport"]

FEATURES = Features(
    durable=True, shared=True, priority=True, delay=True, transactions=True, key_value=True
)
"""What the PostgreSQL store can do by itself."""


class PostgresStores:
    """What the store handles of one process share: compiled statements, and when it has notified.

    Thread-safe.
    """

    def __init__(self, now: str = NOW) -> None:
        """``now`` is the present in microseconds as SQL."""
        self._now = now
        self._throttle = Throttle()

    @functools.cached_property
    def _compiled(self) -> tuple[PostgresLanguage, Statements, Once]:
        language = PostgresLanguage(self._now)
        return language, Statements(language), Once(self._now)

    def open(self, url: BrokerURL, options: SessionOptions) -> SqlStore:
        """Return a connected handle on the database that ``url`` names, tables included.

        Raises:
            ConfigError: the URL is wrong, or the server is too old.
            AccessRefused, ConnectionLost, ConnectTimeout, BrokerFull, StoreCorrupt: as they say.
        """
        check(url)
        language, statements, once = self._compiled
        dialect = PostgresDialect(PostgresServer(url, options), language, once, self._throttle)
        store = SqlStore(dialect, statements)
        store.connect()
        return store


def _catalog(url: BrokerURL, options: SessionOptions) -> AbstractContextManager[Catalog]:
    return PostgresServer(url, options).catalog(PostgresLanguage().compiler)


transport = SqlTransport("postgresql", FEATURES, PostgresStores().open, check, _catalog)
"""What the entry point ``postgresql`` names."""
