"""`queue_core.state`: what is loaded from its snapshot at each step keeps the store contract.

The folder example does the same on a disk; here nothing is slow and the clock is a test's.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import settings

from queue_core.errors import ConfigError
from queue_core.state import Snapshot, State, StateStore
from queue_core.testing.clocks import FakeClock
from queue_core.testing.machine import StoreMachine
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import Features

FEATURES = Features(priority=True, delay=True, key_value=True)


class Box:
    """Where the stores of one test keep their state."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clock = FakeClock()
        self.saved = msgspec.msgpack.encode(Snapshot())


class BoxStore(StateStore):
    name = "box"

    def __init__(self, box: Box) -> None:
        self.box = box

    @contextlib.contextmanager
    def step(self) -> Iterator[State]:
        with self.box.lock:
            state = State(msgspec.msgpack.decode(self.box.saved, type=Snapshot))
            yield state
            self.box.saved = msgspec.msgpack.encode(state.snapshot())

    def now(self) -> float:
        return self.box.clock.monotonic()


class TestBox(StoreSuite):
    features = FEATURES
    transport = "box"
    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self) -> OpenStore:
        self.box = Box()
        return functools.partial(BoxStore, self.box)

    def advance(self, seconds: float) -> None:
        self.box.clock.advance(seconds)


class Machine(StoreMachine):
    features = FEATURES
    exact = True

    def open_store(self) -> OpenStore:
        self.box = Box()
        return functools.partial(BoxStore, self.box)

    def advance(self, seconds: float) -> None:
        self.box.clock.advance(seconds)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_step_that_changes_nothing_leaves_the_same_snapshot() -> None:
    box = Box()
    store = BoxStore(box)
    store.open_session("s", 30.0)
    assert not store.claim("s", "r", {"q": 1}, 0).claims
    before = box.saved
    assert not store.claim("s", "r", {"q": 1}, 0).claims
    store.inspect("q")
    store.read_table()
    assert box.saved == before


def test_a_step_that_raises_leaves_the_same_snapshot() -> None:
    box = Box()
    store = BoxStore(box)
    store.key_set("k", b"no number")
    before = box.saved
    with pytest.raises(Exception, match="whole number"):
        store.key_increment("k")
    assert box.saved == before


@contextlib.contextmanager
def _yields_nothing(store: StateStore) -> Iterator[None]:
    yield


def _is_no_context_manager(store: StateStore) -> Iterator[State]:
    yield State()


MISTAKES: dict[str, dict[str, object]] = {
    r"Mistaken\.name is a string": {"name": None},
    r"Mistaken\.step\(\) returns NoneType, .* @contextlib": {"step": lambda store: None},
    r"Mistaken\.step\(\) returns generator, .* @contextlib": {"step": _is_no_context_manager},
    r"Mistaken\.step\(\) yields is a State, .* not None": {"step": _yields_nothing},
    r"Mistaken\.now\(\) returns is a number of seconds, not None": {"now": lambda store: None},
}


@pytest.mark.parametrize("said", MISTAKES)
def test_an_authors_mistake_is_told_by_the_first_step(said: str) -> None:
    """And changes nothing: what went wrong is still wrong with the next one."""
    kind = type("Mistaken", (BoxStore,), MISTAKES[said])
    store, before = kind(Box()), Box().saved
    for _ in range(2):
        with pytest.raises(ConfigError, match=said):
            store.open_session("s", 30.0)
    assert store.box.saved == before


def test_a_store_without_a_name_is_told_so() -> None:
    class Nameless(StateStore):
        pass

    with pytest.raises(ConfigError, match="Nameless.name is a string"):
        Nameless().sessions()
