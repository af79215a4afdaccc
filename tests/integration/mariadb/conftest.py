"""A server that may be stopped and killed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.own_mariadb import OwnMariaDB


@pytest.fixture(scope="session")
def own_server() -> Iterator[OwnMariaDB]:
    # Not below pytest's folder, which each run of pytest closes to other users, such as mysql.
    with tempfile.TemporaryDirectory(prefix="queue-core-mariadb-") as folder:
        server = OwnMariaDB(Path(folder))
        yield server
        server.resume()
        server.kill()
