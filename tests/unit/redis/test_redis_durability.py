"""What INFO and CONFIG of a Redis server mean for what it keeps."""

from __future__ import annotations

import pytest

from queue_core.durability import Survives
from queue_core.transports.redis.durability import judge

LOG, NO_LOG = {"aof_enabled": "1"}, {"aof_enabled": "0"}


@pytest.mark.parametrize(
    ("info", "settings", "survives", "says"),
    [
        (LOG, {"appendfsync": "always"}, Survives.POWER_CUT, "appendfsync always"),
        (LOG, {"appendfsync": "everysec"}, Survives.SERVER_CRASH, "two seconds"),
        (LOG, {"appendfsync": "no"}, Survives.SERVER_CRASH, "half minute"),
        (LOG, {"appendfsync": None}, Survives.SERVER_CRASH, "CONFIG is not permitted"),
        (NO_LOG, {"save": "3600 1"}, Survives.RESTART, "snapshots only"),
        (NO_LOG, {"save": ""}, Survives.CLIENTS, "keeps nothing on disk"),
        (NO_LOG, {"save": None}, Survives.UNKNOWN, "CONFIG is not permitted"),
        ({}, {"save": ""}, Survives.UNKNOWN, "does not tell"),
    ],
)
def test_how_it_writes_decides_what_it_keeps(info, settings, survives, says) -> None:
    found = judge(info, settings)
    assert found.survives is survives
    assert says in str(found)
    assert bool(found.warnings) == (
        survives < Survives.POWER_CUT and None not in settings.values() and bool(info)
    ) or (settings == {"save": None})


def test_what_evicts_keeps_nothing_for_sure() -> None:
    found = judge({**LOG, "maxmemory_policy": "allkeys-lru"}, {"appendfsync": "always"})
    assert found.survives is Survives.CLIENTS
    assert "noeviction" in found.warnings[-1].remedy


def test_replicas_follow_behind_and_a_failover_may_lose() -> None:
    info = {**LOG, "connected_slaves": "2"}
    bounded = judge(info, {"appendfsync": "always", "min-replicas-to-write": "1"})
    assert bounded.survives is Survives.POWER_CUT and not bounded.warnings
    assert "2 asynchronous replicas" in bounded.found
    free = judge(info, {"appendfsync": "always", "min-replicas-to-write": "0"})
    assert "failover" in free.warnings[0].problem
    unknown = judge(info, {"appendfsync": "always", "min-replicas-to-write": None})
    assert "unknown" in unknown.found


@pytest.mark.parametrize(
    ("info", "broker"),
    [
        ({"redis_version": "7.0.15"}, "Redis 7.0.15"),
        (
            {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.0.1"},
            "Valkey 8.0.1",
        ),
        ({}, "Redis"),
    ],
)
def test_the_broker_says_its_name(info, broker) -> None:
    assert judge(info, {}).broker == broker
