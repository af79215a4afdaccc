"""From what the command line says to a pool."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from queue_core import ConfigError
from queue_core.worker.locate import load_app
from queue_core.worker.logs import Format
from queue_core.worker.pools.base import Pool, limits_of, usual_size
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.processes import ProcessPool
from queue_core.worker.pools.threads import SoloPool, ThreadPool

KINDS = ("prefork", "threads", "solo", "asyncio")


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How tasks are run.

    Attributes:
        kind: one of `KINDS`.
        size: how many at once.
        soft_limit, hard_limit: seconds, for tasks that say nothing of it themselves.
        max_tasks: after how many tasks a child is replaced.
        max_memory: above how many bytes a child is replaced.

    What is None is as the app's settings say.
    """

    kind: str = "prefork"
    size: int | None = None
    soft_limit: float | None = None
    hard_limit: float | None = None
    max_tasks: int | None = None
    max_memory: int | None = None


def make_pool(
    options: PoolOptions,
    app: str,
    broker: str | None,
    log_level: str,
    log_format: Format = "pretty",
    node: str = "",
) -> Pool:
    """Return a pool for the app called ``module:attribute``; nothing is started.

    ``node`` is the worker's name, for requests and results.

    Every kind but ``prefork`` imports the app here and now.

    Raises:
        ConfigError: the pool cannot do what an option asks for; names the one that can.
        AppNotFound: the app cannot be imported.
    """
    if options.kind == "prefork":
        return ProcessPool(
            options.size,
            Setup(app, list(sys.path), broker, log_level.upper(), log_format, node),
            max_tasks=options.max_tasks,
            max_memory=options.max_memory,
            soft_limit=options.soft_limit,
            hard_limit=options.hard_limit,
        )
    for name, flag in _SAID.items():
        if getattr(options, name) is not None:
            raise ConfigError(f"-P {options.kind} keeps no {flag}; use -P prefork")
    loaded = load_app(app, broker=broker)
    loaded.hostname = node or loaded.hostname
    limits = limits_of(loaded.settings)
    for name in _SAID:
        if getattr(limits, name) is not None:
            raise ConfigError(
                f"-P {options.kind} keeps no {name}, which the settings of the app ask for; use "
                "-P prefork"
            )
    size = options.size or loaded.settings.worker_concurrency or usual_size(options.kind)
    if options.kind == "threads":
        return ThreadPool(size, loaded)
    if options.kind == "solo":
        return SoloPool(loaded)
    # asyncio takes tens of milliseconds to import, and the other kinds do without it.
    from queue_core.worker.pools.coroutines import AsyncioPool  # noqa: PLC0415

    return AsyncioPool(size, loaded)


_SAID = {
    "soft_limit": "--soft-time-limit",
    "hard_limit": "--time-limit",
    "max_tasks": "--max-tasks",
    "max_memory": "--max-memory",
}
