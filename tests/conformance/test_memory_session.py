"""The Session contract on the memory transport."""

from __future__ import annotations

import uuid

import pytest

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.transport import SessionOptions
from queue_core.url import parse


class TestMemorySession(SessionSuite):
    transport = "memory"

    @pytest.fixture
    def open_session(self) -> OpenSession:
        url = parse(f"memory://{uuid.uuid4().hex}")
        transport = find_transport("memory")
        return lambda **options: transport.open(url, SessionOptions(**options))
