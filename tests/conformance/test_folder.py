"""The folder transport of the examples keeps both contracts: as a store and as a session."""

from __future__ import annotations

import functools
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from queue_core.testing import SessionSuite, StoreSuite
from queue_core.testing.machine import StoreMachine
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.store_suite import OpenStore
from queue_core.transport import SessionOptions, Store
from queue_core.url import parse

EXAMPLE = Path(__file__).parents[2] / "examples" / "folder_transport.py"


def _load() -> ModuleType:
    """Import the example, which is in no package, from its file."""
    if EXAMPLE.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
        assert spec and spec.loader
        sys.modules[EXAMPLE.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[EXAMPLE.stem])
    return sys.modules[EXAMPLE.stem]


folder = _load()


def _open(path: Path) -> Store:
    """Open a handle; other processes call this too."""
    store: Store = folder.FolderStore(path)
    return store


class TestFolder(StoreSuite):
    features = folder.transport.features
    transport = "folder"

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return functools.partial(_open, tmp_path)


class TestFolderSession(SessionSuite):
    transport = "folder"
    lease = 0.5

    @pytest.fixture
    def open_session(self, tmp_path: Path) -> OpenSession:
        url = parse(f"folder:///{tmp_path}")
        return lambda **options: folder.transport.open(url, SessionOptions(**options))


class Machine(StoreMachine):
    features = folder.transport.features

    def open_store(self) -> OpenStore:
        self.directory = tempfile.TemporaryDirectory()
        return functools.partial(_open, Path(self.directory.name))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.directory.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
