"""The SQLite store keeps the store contract: on a clock set by hand, and on the machine's."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import settings
from sqlalchemy.orm import Session

from queue_core.testing.clocks import FakeClock
from queue_core.testing.machine import MACHINE_SETTINGS, StoreMachine
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import SessionOptions, Store
from queue_core.transports.sql import FEATURES, open_store
from queue_core.url import parse


class TestSqlite(StoreSuite):
    features = FEATURES
    transport = "sqlite"

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        self.path = tmp_path / "queue.db"
        return functools.partial(_open, str(self.path))

    @contextlib.contextmanager
    def user_transaction(self) -> Iterator[object]:
        engine = sqlalchemy.create_engine(f"sqlite:///{self.path}")
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()


class TestSqliteOnAFakeClock(StoreSuite):
    features = FEATURES
    transport = "sqlite"
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        self.path = tmp_path / "queue.db"
        self.clock = FakeClock()
        return _OnClock(str(self.path), self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @contextlib.contextmanager
    def user_transaction(self) -> Iterator[object]:
        engine = sqlalchemy.create_engine(f"sqlite:///{self.path}")
        try:
            with Session(engine) as session, session.begin():
                yield session
        finally:
            engine.dispose()


class Machine(StoreMachine):
    features = FEATURES
    exact = True

    def open_store(self) -> OpenStore:
        self.directory = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        return _OnClock(f"{self.directory.name}/queue.db?synchronous=normal", self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.directory.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(MACHINE_SETTINGS, max_examples=100, stateful_step_count=40)


class _OnClock:
    """Opens handles on the test's clock; other processes, which cannot have it, use their own."""

    def __init__(self, path: str, clock: FakeClock) -> None:
        self.path = path
        self.clock = clock

    def __call__(self) -> Store:
        return _open(self.path, self.clock)

    def __reduce__(self) -> tuple[object, ...]:
        return functools.partial, (_open, self.path)


def _open(path: str, clock: FakeClock | None = None) -> Store:
    """Open a handle; other processes call this too."""
    options = SessionOptions() if clock is None else SessionOptions(clock=clock)
    return open_store(parse(f"sqlite:///{path}"), options)
