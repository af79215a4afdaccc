"""Where the tests of the emulation stand: a memory broker with a clock of its own, and faults."""

from __future__ import annotations

import pytest

from tests.unit.emulation.stores import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
