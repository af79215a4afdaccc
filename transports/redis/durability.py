"""What a Redis server keeps of what it confirmed, from its INFO and a few settings.

Whether it keeps a log is told by INFO, which everybody may ask. How often the log reaches the disk
and whether there are snapshots is told by CONFIG, which managed servers and strict ACLs forbid:
then that part is unknown, and so is the level that depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from queue_core.durability import Durability, Survives
from queue_core.errors import AccessRefused, StoreCorrupt, counted
from queue_core.transports.redis.health import EVICTS_NOTHING, read_info
from queue_core.transports.redis.server import Server

_APPEND: Final = "set appendonly yes and appendfsync always or everysec"
_FORBIDDEN: Final = "CONFIG is not permitted here"


def detect(server: Server) -> Durability:
    """Ask the server; blocks for at most four round trips.

    Raises what `Server.command` raises; a forbidden CONFIG is no error.
    """
    info = read_info(server)
    names = ["appendfsync"] if info.get("aof_enabled") == "1" else ["save"]
    if _replicas(info):
        names.append("min-replicas-to-write")
    return judge(info, {name: _setting(server, name) for name in names})


def judge(info: Mapping[str, str], settings: Mapping[str, str | None]) -> Durability:
    """Say what these mean; a setting that is None may not be asked. Pure."""
    found = _written(info, settings)
    policy = info.get("maxmemory_policy", EVICTS_NOTHING)
    if policy != EVICTS_NOTHING:
        found = found.weakened(
            Survives.CLIENTS,
            f"the server evicts keys when it is full (maxmemory-policy {policy}), and messages "
            "with them",
            f"set maxmemory-policy {EVICTS_NOTHING}",
        )
    if count := _replicas(info):
        found = _with_replicas(found, count, settings.get("min-replicas-to-write"))
    return replace(found, broker=_broker(info))


def _written(info: Mapping[str, str], settings: Mapping[str, str | None]) -> Durability:
    log = info.get("aof_enabled")
    if log == "1":
        return _logged(settings.get("appendfsync"))
    if log != "0":
        return Durability(found="INFO does not tell whether the server keeps a log (aof_enabled)")
    saves = settings.get("save")
    if saves is None:
        return Durability(
            found=f"there is no append-only file, and {_FORBIDDEN}, so whether it writes "
            "snapshots is unknown"
        ).weakened(
            Survives.UNKNOWN,
            "a crash of the server loses at least what came since a snapshot",
            _APPEND,
        )
    if saves:
        return Durability(
            Survives.RESTART, f"snapshots only (appendonly no, save {saves})"
        ).weakened(
            Survives.RESTART,
            "the server writes snapshots only: after its crash, messages since the last one are "
            "lost, and what was acked since then comes again",
            _APPEND,
        )
    return Durability(
        Survives.CLIENTS, "neither append-only file nor snapshots (appendonly no, save '')"
    ).weakened(
        Survives.CLIENTS,
        "the server keeps nothing on disk: when it ends, all messages are lost",
        _APPEND,
    )


def _logged(fsync: str | None) -> Durability:
    if fsync is None:
        return Durability(
            Survives.SERVER_CRASH,
            f"it keeps an append-only file, and {_FORBIDDEN}, so how often that reaches the disk "
            "is unknown",
        )
    found = Durability(Survives.POWER_CUT, f"it keeps an append-only file (appendfsync {fsync})")
    if fsync == "always":
        return found
    lost = "the last two seconds" if fsync == "everysec" else "the last half minute"
    return found.weakened(
        Survives.SERVER_CRASH,
        f"a power cut may take what was confirmed in {lost}",
        "set appendfsync always",
    )


def _with_replicas(found: Durability, count: int, wanted: str | None) -> Durability:
    """Say what a failover means: replicas get messages after they were confirmed."""
    known = "unknown, " + _FORBIDDEN if wanted is None else wanted
    replicas = counted(count, "asynchronous replica")
    text = f"{found.found}; {replicas}, min-replicas-to-write {known}"
    if wanted != "0":
        return replace(found, found=text)
    return replace(found, found=text).weakened(
        found.survives,
        "a failover may lose any number of confirmed messages, since the server confirms even "
        "when no replica follows",
        "set min-replicas-to-write 1, which bounds that to min-replicas-max-lag seconds",
    )


def _setting(server: Server, name: str) -> str | None:
    try:
        answer = server.command("CONFIG", "GET", name)
    except (AccessRefused, StoreCorrupt):  # forbidden, or a command that is not there
        return None
    return answer[1].decode() if answer else None


def _replicas(info: Mapping[str, str]) -> int:
    return int(info.get("connected_slaves", "0"))


def _broker(info: Mapping[str, str]) -> str:
    name = info.get("server_name", "redis").capitalize()
    return f"{name} {info.get(f'{name.lower()}_version', info.get('redis_version', ''))}".strip()
