"""``queue-core worker``: run tasks from queues until told to stop."""

from __future__ import annotations

import logging
import os
import socket
import sys

import click

from queue_core.worker.cli.types import duration, names
from queue_core.worker.locate import find_app
from queue_core.worker.pools.base import Pool
from queue_core.worker.pools.child import LOG_FORMAT, LOG_TIME, die_with_parent
from queue_core.worker.pools.frames import Setup
from queue_core.worker.pools.processes import ProcessPool
from queue_core.worker.pools.threads import SoloPool, ThreadPool
from queue_core.worker.runner import Worker, WorkerOptions

LEVELS = ["debug", "info", "warning", "error"]


@click.command()
@click.option(
    "-A",
    "--app",
    required=True,
    envvar=["QUEUE_CORE_WORKER_APP", "QUEUE_CORE_APP"],
    metavar="MODULE:APP",
    help="The app whose tasks to run.",
)
@click.option(
    "-b",
    "--broker",
    envvar=["QUEUE_CORE_WORKER_BROKER", "QUEUE_CORE_URL"],
    metavar="URL",
    help="The broker, instead of the app's own.",
)
@click.option(
    "-Q",
    "--queues",
    type=names,
    help="Queues, separated by commas. [the app's default]",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=os.cpu_count() or 1,
    show_default="number of CPUs",
    help="How many tasks run at once.",
)
@click.option(
    "-P",
    "--pool",
    type=click.Choice(["prefork", "threads", "solo"]),
    default="prefork",
    show_default=True,
    help="Run tasks in child processes, in threads, or one at a time in this process.",
)
@click.option("-n", "--name", metavar="NAME", help="A node name, such as mail@%h (%h: this host).")
@click.option(
    "--prefetch", type=click.IntRange(1, 65535), help="Messages to hold at once. [by the pool]"
)
@click.option(
    "--drain",
    type=duration,
    default="30s",
    show_default=True,
    help="How long running tasks may go on after a signal to stop.",
)
@click.option(
    "--lease",
    type=duration,
    default="30s",
    show_default=True,
    help="How long after this worker's death its messages go to others.",
)
@click.option(
    "-l", "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="Log."
)
@click.option("--die-with", type=int, hidden=True, help="A pipe; when it closes, die at once.")
def worker(
    app: str,
    broker: str | None,
    queues: tuple[str, ...] | None,
    concurrency: int,
    pool: str,
    name: str | None,
    prefetch: int | None,
    drain: float,
    lease: float,
    log_level: str,
    die_with: int | None,
) -> int:
    """Run tasks from queues until told to stop.

    The first SIGTERM or Ctrl-C stops gently: tasks that run may finish. The second one stops now,
    and what ran is delivered again. Exit code 0 after a gentle stop, 9 after the other.
    """
    if die_with is not None:
        die_with_parent(die_with)
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT, datefmt=LOG_TIME)
    logging.getLogger("pika").setLevel(logging.ERROR)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    node = expand(name) if name else ""
    options = WorkerOptions(
        broker=broker,
        queues=queues or (),
        name=node or f"{app.partition(':')[0]}-{os.getpid()}@{socket.gethostname()}",
        node=node,
        prefetch=prefetch,
        drain=drain,
        lease=lease,
    )
    return Worker(_pool(pool, app, broker, concurrency, log_level), options).run()


def _pool(kind: str, app: str, broker: str | None, size: int, log_level: str) -> Pool:
    if kind == "prefork":
        return ProcessPool(size, Setup(app, list(sys.path), broker, log_level.upper()))
    loaded = find_app(app)
    loaded.use(broker=broker)
    return ThreadPool(size, loaded) if kind == "threads" else SoloPool(loaded)


def expand(name: str) -> str:
    """Put the host name for ``%h`` and the process id for ``%p``."""
    return name.replace("%h", socket.gethostname()).replace("%p", str(os.getpid()))


commands = {"worker": worker}
