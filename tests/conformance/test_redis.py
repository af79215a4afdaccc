"""The Redis store keeps the store contract: on the server's clock, and on one set by hand."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from typing import ClassVar

import pytest
import redis
from hypothesis import settings

from queue_core.testing.machine import MACHINE_SETTINGS, StoreMachine
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import SessionOptions, Store
from queue_core.transports.redis import FEATURES, RedisStores
from queue_core.url import parse

CLOCK = "local function clock() return tonumber(redis.call('GET', KEYS[1] .. 'clock')) end"
START = 1_700_000_000_000_000


class Place:
    """Keys of our own on the server that the tests use, and a clock among them."""

    def __init__(self, url: str) -> None:
        self.prefix = f"qc-test-{uuid.uuid4().hex}"
        self.url = f"{url}?prefix={self.prefix}"
        self.client = redis.Redis.from_url(url)
        self.clock = f"{{{self.prefix}}}:clock"
        self.client.set(self.clock, START)

    def advance(self, seconds: float) -> None:
        self.client.incrby(self.clock, round(seconds * 1_000_000))

    def clear(self) -> None:
        keys = list(self.client.scan_iter(f"{{{self.prefix}}}:*", count=1000))
        if keys:
            self.client.unlink(*keys)
        self.client.close()


@pytest.fixture
def place(redis_url: str) -> Iterator[Place]:
    place = Place(redis_url)
    yield place
    place.clear()


class TestRedis(StoreSuite):
    features = FEATURES
    transport = "redis"

    @pytest.fixture
    def open_store(self, place: Place) -> OpenStore:
        return functools.partial(_open, place.url)


class TestRedisOnAFakeClock(StoreSuite):
    features = FEATURES
    transport = "redis"
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self, place: Place) -> OpenStore:
        self.place = place
        return functools.partial(_open, place.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.place.advance(seconds)


class Machine(StoreMachine):
    features = FEATURES
    exact = True
    url: ClassVar[str]

    def open_store(self) -> OpenStore:
        self.place = Place(self.url)
        return functools.partial(_open, self.place.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.place.advance(seconds)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if hasattr(self, "place"):
                self.place.clear()


@pytest.mark.timeout(180)
class TestMachine(Machine.TestCase):
    settings = settings(MACHINE_SETTINGS, max_examples=100, stateful_step_count=40)

    @pytest.fixture(autouse=True)
    def _url(self, redis_url: str) -> None:
        Machine.url = redis_url


def _open(url: str, clock: str | None = None) -> Store:
    """Open a handle; other processes call this too."""
    return RedisStores(clock).open(parse(url), SessionOptions())
