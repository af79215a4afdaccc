"""From what the command line says to a pool.

Child processes begin to import the app here, before this one has imported what it needs itself. So
nothing is imported here that a worker with child processes can do without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from queue_core.worker.blueprint import load
from queue_core.worker.logs import Format
from queue_core.worker.pools.base import Pool, PoolOptions
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.processes import ProcessPool

KINDS = ("prefork", "threads", "solo", "asyncio")


def make_pool(
    options: PoolOptions,
    app: str,
    broker: str | None,
    log_level: str,
    log_format: Format = "pretty",
    node: str = "",
) -> Pool:
    """Return a pool for the app called ``module:attribute``; no task is started.

    ``node`` is the worker's name, for requests and results.

    Every kind but ``prefork`` imports the app here and now; that lets another process do it, which
    ends with the pool or with this process.

    Raises:
        ConfigError: the pool cannot do what an option asks for; names the one that can.
        AppNotFound: the app cannot be imported.
    """
    if options.kind == "prefork":
        processes = ProcessPool(
            options.size,
            Setup(app, list(sys.path), broker, log_level.upper(), log_format, node),
            max_tasks=options.max_tasks,
            max_memory=options.max_memory,
            soft_limit=options.soft_limit,
            hard_limit=options.hard_limit,
            forks=options.forks,
        )
        processes.launch()
        return processes
    make: Callable[..., Pool] = load("queue_core.worker.pools.inside:make_pool")
    return make(options, app, broker, node)
