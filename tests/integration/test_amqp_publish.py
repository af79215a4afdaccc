"""Publishing on RabbitMQ: what each publication is told, whatever happens around it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_core.errors import ConnectionLost, QueueNotFound, TooLarge, UsageError
from queue_core.testing.eventually import eventually
from queue_core.testing.faults import FaultProxy
from queue_core.topology import Binding

sys.path.insert(0, str(Path(__file__).parent))

from amqp_bench import AmqpBench, message, send, statuses, take  # noqa: E402


@pytest.fixture
def bench(amqp_url: str) -> Iterator[AmqpBench]:
    bench = AmqpBench(amqp_url)
    try:
        yield bench
    finally:
        bench.close()
