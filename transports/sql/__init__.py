"""The SQL transport: queues in tables. Here on SQLite; `postgresql` and `mariadb` stand beside it.

``sqlite:///relative.db`` or ``sqlite:////absolute.db``; `sqlite_file.check` describes the options.
The tables can live in an application's own database, so that a publish can join its transaction.
The file gets a write-ahead log, and a directory with ``-side`` at the end of its name beside it.

- ``store``: the contract, on a ``database``; ``put``, ``claims``, ``keyvalue``: its steps;
  ``joined``: in the caller's own transaction
- ``tables``, ``statements``, ``schema``: what is kept, how it is asked for, and how it is made
- ``dialects``: what differs between databases; ``transport``, ``errors``, ``durability``
- SQLite: ``sqlite``, ``sqlite_file``, ``sqlite_log``, ``sqlite_fork``, ``gate``, ``wakeup``
- PostgreSQL: ``postgresql``, ``postgresql_dialect``, ``postgresql_server``, ``postgresql_once``,
  ``postgresql_wakeup``, ``postgresql_errors``
- MariaDB: ``mariadb``, ``mariadb_dialect``, ``mariadb_server``, ``mariadb_once``,
  ``mariadb_wire``, ``mariadb_errors``
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from queue_core.transport import Features, SessionOptions
from queue_core.transports.sql.schema import Catalog
from queue_core.transports.sql.sqlite import SqliteDialect, SqliteLanguage
from queue_core.transports.sql.sqlite_file import SqliteFile, check
from queue_core.transports.sql.statements import Statements
from queue_core.transports.sql.store import SqlStore
from queue_core.transports.sql.transport import SqlTransport
from queue_core.url import BrokerURL

__all__ = ["FEATURES", "check", "open_store", "transport"]

FEATURES = Features(
    durable=True, shared=True, priority=True, delay=True, transactions=True, key_value=True
)
"""What the SQLite store can do by itself."""


@functools.cache
def _language() -> tuple[SqliteLanguage, Statements]:
    """Compile the statements once for all handles of the process."""
    language = SqliteLanguage()
    return language, Statements(language)


def open_store(url: BrokerURL, options: SessionOptions) -> SqlStore:
    """Return a connected handle on the database that ``url`` names; creates the file if need be.

    Raises:
        ConfigError: the URL or the place of the file is wrong.
        AccessRefused, ConnectionLost, BrokerFull, StoreCorrupt: as they say.
    """
    check(url)
    language, statements = _language()
    file = SqliteFile(url, create=options.create)
    store = SqlStore(SqliteDialect(file, options.clock, language), statements)
    store.connect()
    return store


def _catalog(url: BrokerURL, options: SessionOptions) -> AbstractContextManager[Catalog]:
    return SqliteFile(url).catalog(_language()[0].compiler)


transport = SqlTransport("sqlite", FEATURES, open_store, check, _catalog)
"""What the entry point ``sqlite`` names."""
