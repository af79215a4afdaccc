"""What becomes of settlements when their connection ends."""

from __future__ import annotations

from collections import deque
from typing import Any

from queue_core.message import Delivery, Settlement
from queue_core.transports.amqp.copies import NOTHING
from queue_core.transports.amqp.properties import READER
from queue_core.transports.amqp.settling import Settling


class Contended(deque[Settlement]):
    """Whoever looks finds something, and another thread takes the last one before he does."""

    def __bool__(self) -> bool:
        return True


def test_settlements_that_two_threads_find_too_late_are_counted_once() -> None:
    link: Any = None
    settling = Settling(link)
    delivery = Delivery("c", "q", "", "q", b"", b"", READER, (1, 1, NOTHING))
    settling._outbox = Contended([Settlement(delivery), Settlement(delivery)])
    settling.give_up(ConnectionError("gone"))
    assert settling._stale == {"c": 2}
