"""The bare driver of each broker, in the best design found that is as safe as ours."""

from __future__ import annotations

import importlib

from benchmarks.adapter import Adapter, NotOffered

_MODULES = {
    "memory": "raw_memory",
    "amqp": "raw_amqp",
    "amqp-quorum": "raw_amqp",
    "redis": "raw_redis",
    "sqlite": "raw_sqlite",
    "postgresql": "raw_postgresql",
    "mariadb": "raw_mariadb",
}


def open_adapter(broker: str, url: str) -> Adapter:
    if broker not in _MODULES:
        raise NotOffered(f"there is no driver for {broker}")
    module = importlib.import_module(f"benchmarks.contestants.{_MODULES[broker]}")
    adapter: Adapter = module.open_adapter(broker, url)
    return adapter
