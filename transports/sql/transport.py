"""`SqlTransport`: a transport whose broker has tables, which can be looked at and upgraded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec.structs import replace

from queue_core.emulation import StoreTransport
from queue_core.schema import Schema
from queue_core.transport import Features, SessionOptions
from queue_core.transports.sql.schema import Catalog, look
from queue_core.transports.sql.store import SqlStore
from queue_core.url import BrokerURL

Look = Callable[[BrokerURL, SessionOptions], AbstractContextManager[Catalog]]


class SqlTransport(StoreTransport):
    """A transport on an SQL database; also a `queue_core.schema.Migrator`."""

    def __init__(
        self,
        name: str,
        features: Features,
        open_store: Callable[[BrokerURL, SessionOptions], SqlStore],
        check: Callable[[BrokerURL], None],
        catalog: Look,
    ) -> None:
        """As for `StoreTransport`; ``catalog`` connects for looking at the tables, and no more."""
        super().__init__(name, features, open_store, check)
        self._catalog = catalog

    def schema(self, url: BrokerURL, *, upgrade: bool = False, timeout: float = 10.0) -> Schema:
        """See `queue_core.schema.Migrator`."""
        self.check(url)
        options = SessionOptions(connect_timeout=timeout)
        if upgrade:  # that is what each opening program does, unless its URL says otherwise
            self._open_store(
                replace(url, options={**url.options, "upgrade": "true"}), options
            ).close()
        with self._catalog(url, options) as catalog:
            return look(catalog)
