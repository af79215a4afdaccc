"""Where an app finds its broker: in the environment, which the worker's processes inherit."""

from __future__ import annotations

import os

BROKER = os.environ.get("QUEUE_CORE_BENCH_BROKER", "")
URL = os.environ.get("QUEUE_CORE_BENCH_URL", "")
RESULTS = os.environ.get("QUEUE_CORE_BENCH_RESULTS", "") == "yes"
QUEUE = os.environ.get("QUEUE_CORE_BENCH_QUEUE", "")


def url_for(schemes: dict[str, str]) -> str:
    """The broker's URL with another scheme. The brokers that a library has are the keys."""
    return f"{schemes[BROKER]}:{URL.partition(':')[2]}"
