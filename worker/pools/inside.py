"""Pools that run tasks in the worker's own process."""

from __future__ import annotations

from queue_core import ConfigError
from queue_core.worker.locate import load_app
from queue_core.worker.pools.base import Pool, PoolOptions, limits_of, usual_size
from queue_core.worker.pools.threads import SoloPool, ThreadPool

# Each limit as the command line and as the settings say it.
_SAID = {
    "soft_limit": ("--soft-time-limit", "task_soft_time_limit"),
    "hard_limit": ("--time-limit", "task_time_limit"),
    "max_tasks": ("--max-tasks", "worker_max_tasks_per_child"),
    "max_memory": ("--max-memory", "worker_max_memory_per_child"),
}


def make_pool(options: PoolOptions, app: str, broker: str | None, node: str) -> Pool:
    """Import the app and return a pool for it, see `queue_core.worker.pools.make.make_pool`."""
    unkept = _unkept(options.kind)
    for name in unkept:
        if getattr(options, name) is not None:
            raise ConfigError(f"-P {options.kind} keeps no {_SAID[name][0]}; use -P prefork")
    loaded = load_app(app, broker=broker)
    loaded.hostname = node or loaded.hostname
    limits = limits_of(loaded.settings)
    for name in unkept:
        if getattr(limits, name) is not None:
            raise ConfigError(
                f"-P {options.kind} keeps no {_SAID[name][1]}, which the settings ask for; use "
                f"-P prefork, or say QUEUE_CORE_{_SAID[name][1].upper()}= for this run"
            )
    size = options.size or loaded.settings.worker_concurrency or usual_size(options.kind)
    if options.kind == "threads":
        return ThreadPool(size, loaded)
    if options.kind == "solo":
        return SoloPool(loaded)
    # asyncio takes tens of milliseconds to import, and the other kinds do without it.
    from queue_core.worker.pools.coroutines import AsyncioPool  # noqa: PLC0415

    return AsyncioPool(size, loaded, soft_limit=options.soft_limit or limits.soft_limit)


def _unkept(kind: str) -> list[str]:
    """Which limits for all tasks this kind of pool does not keep."""
    return [name for name in _SAID if not (kind == "asyncio" and name == "soft_limit")]
