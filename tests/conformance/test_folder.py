"""The folder transport of the examples keeps both contracts: as a store and as a session."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from queue_core.testing import SessionSuite, StoreSuite
from queue_core.testing.machine import MACHINE_SETTINGS, StoreMachine
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.store_suite import OpenStore
from queue_core.transport import Counts, Envelope, SessionOptions, Store
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
TestMachine.settings = settings(MACHINE_SETTINGS, max_examples=30, stateful_step_count=25)


class Died(BaseException):
    """Nothing catches it, so that nothing is tidied up: what is on the disk is what a kill leaves.

    But for the lock, which a process that is killed gives back too.
    """


def test_a_step_that_dies_at_any_touch_of_the_disk_has_happened_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [_die_at(touch, tmp_path / str(touch), monkeypatch) for touch in range(20)]
    in_order = [outcome for outcome, _ in itertools.groupby(outcomes)]
    assert in_order == ["nothing happened", "all happened", "it ended"]


def _die_at(touch: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a put that settles die at its n-th touch of the disk; return what became of it."""
    store = _open(path)
    store.open_session("s", 30.0)
    store.put([Envelope("q", "old", b"old body", b"")], {})
    (held,) = store.claim("s", "r", {"q": 1}, 0).claims
    touches = itertools.count()

    def fragile(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any, **options: Any) -> object:
            if next(touches) == touch:
                raise Died
            return real(*args, **options)

        return call

    batch = [Envelope("q", name, name.encode(), b"") for name in ("new", "newer")]
    with monkeypatch.context() as patch, contextlib.suppress(Died):
        patch.setattr(os, "fsync", fragile(os.fsync))
        patch.setattr(Path, "replace", fragile(Path.replace))
        patch.setattr(Path, "unlink", fragile(Path.unlink))
        store.put(batch, {}, settle=[held.token])
    ended = next(touches) <= touch
    after = _open(path)
    counts = after.inspect("q")
    after.put([Envelope("q", "later", b"later", b"")], {})
    claims = after.claim("s", "r2", {"q": 10}, 0).claims
    assert all(claim.body == claim.id.encode() for claim in claims)
    if [claim.id for claim in claims] == ["later"]:
        assert counts == Counts(ready=0, claimed=1)
        assert [claim.token for claim in after.claim("s", "r", {}, 0, repeat=True).claims] == [
            held.token
        ]
        return "nothing happened"
    assert [claim.id for claim in claims] == ["new", "newer", "later"]
    assert counts == Counts(ready=2)
    assert len(list(path.glob("*.message"))) == 3
    return "it ended" if ended else "all happened"
