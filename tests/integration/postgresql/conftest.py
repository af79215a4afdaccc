"""Handles on a PostgreSQL database of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queue_core.transport import SessionOptions
from queue_core.transports.sql.postgresql import PostgresStores
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse

OpenStore = Callable[..., SqlStore]


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Open handles; they are closed at the end."""
    stores = []

    def open_one(url: str, **options: Any) -> SqlStore:
        stores.append(PostgresStores().open(parse(url), SessionOptions(**options)))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture(scope="session")
def own_server(start_server: Callable[[str, str], Any]) -> str:
    """The url of a server of these tests' own, whose processes they may stop and kill."""
    url: str = start_server("postgresql", "PostgreSQL").url
    return url
