"""The Session contract on the memory transport."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import settings

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.session_machine import MACHINE_SETTINGS, SessionMachine
from queue_core.transport import Session, SessionOptions
from queue_core.url import parse


class TestMemorySession(SessionSuite):
    transport = "memory"

    @pytest.fixture
    def open_session(self) -> OpenSession:
        url = parse(f"memory://{uuid.uuid4().hex}")
        transport = find_transport("memory")
        return lambda **options: transport.open(url, SessionOptions(**options))


class Quick(SessionSuite):
    """The same, with a lease so short that a crash costs an example little time."""

    transport = "memory"
    lease = 0.3


class MemoryMachine(SessionMachine):
    suite = Quick()
    url = parse(f"memory://{uuid.uuid4().hex}")

    def open_session(self, **options: Any) -> Session:
        return find_transport("memory").open(self.url, SessionOptions(**options))


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(MACHINE_SETTINGS, max_examples=30, stateful_step_count=30)
