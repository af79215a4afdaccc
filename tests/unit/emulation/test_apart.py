"""Which errors are of one thing alone."""

from __future__ import annotations

import pytest

from queue_core.emulation.apart import Apart
from queue_core.errors import (
    BrokerFull,
    Closed,
    ConnectionLost,
    QueueCoreError,
    SessionLost,
    StoreCorrupt,
    TooLarge,
    UsageError,
)


@pytest.mark.parametrize("kind", [StoreCorrupt, TooLarge, UsageError])
def test_what_is_wrong_with_one_thing_is_kept_and_told_in_the_end(
    kind: type[QueueCoreError],
) -> None:
    each, done = Apart(), 0
    for number in range(3):
        with each:
            if number < 2:
                raise kind(f"thing {number}")
            done += 1
    assert done == 1
    with pytest.raises(kind, match="thing 0"):
        each.tell()


@pytest.mark.parametrize("kind", [BrokerFull, Closed, ConnectionLost, SessionLost, ValueError])
def test_what_concerns_everything_passes(kind: type[Exception]) -> None:
    each = Apart()
    with pytest.raises(kind), each:
        raise kind("everything")
    each.tell()
