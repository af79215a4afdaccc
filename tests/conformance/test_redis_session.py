"""The Session contract on Redis."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import settings

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.session_machine import MACHINE_SETTINGS, SessionMachine
from queue_core.transport import Session, SessionOptions
from queue_core.url import parse


def clear(url: str, prefix: str) -> None:
    """Delete the keys of one test."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter(f"{{{prefix}}}:*", count=1000))
        if keys:
            client.unlink(*keys)


class TestRedisSession(SessionSuite):
    transport = "redis"

    @pytest.fixture
    def open_session(self, redis_broker: str) -> OpenSession:
        transport = find_transport("redis")
        return lambda **options: transport.open(parse(redis_broker), SessionOptions(**options))


class Quick(SessionSuite):
    """The same, with a lease so short that a crash costs an example little time."""

    transport = "redis"
    lease = 0.5


class RedisMachine(SessionMachine):
    suite = Quick()
    url: ClassVar[str]

    def __init__(self) -> None:
        self.prefix = f"qc-test-{uuid.uuid4().hex}"
        super().__init__()

    def open_session(self, **options: Any) -> Session:
        url = parse(f"{self.url}?prefix={self.prefix}")
        return find_transport("redis").open(url, SessionOptions(**options))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            clear(self.url, self.prefix)


class TestRedisMachine(RedisMachine.TestCase):
    settings = settings(MACHINE_SETTINGS, max_examples=10, stateful_step_count=25)

    @pytest.fixture(autouse=True)
    def _url(self, redis_url: str) -> None:
        RedisMachine.url = redis_url
