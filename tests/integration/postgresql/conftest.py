"""A server that may be stopped and killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def own_server(start_server: Callable[[str, str], Any]) -> str:
    """The url of a server of these tests' own, whose processes they may stop and kill."""
    url: str = start_server("postgresql", "PostgreSQL").url
    return url
