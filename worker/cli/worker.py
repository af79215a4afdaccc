"""``queue-core worker``: run tasks from queues until told to stop."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from queue_core.mailbox import SigningKey
from queue_core.worker.blueprint import load
from queue_core.worker.cli.options import config_option
from queue_core.worker.cli.types import duration, names, one_of, queue_names, size
from queue_core.worker.configuration import found_around, misspelt_variables
from queue_core.worker.flags import WorkerOptions, expand
from queue_core.worker.logs import Format, configure
from queue_core.worker.pools.base import PoolOptions
from queue_core.worker.pools.lifeline import die_with_parent
from queue_core.worker.pools.make import KINDS, make_pool

logger = logging.getLogger(__name__)

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
@config_option
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
    type=queue_names,
    help="Queues, separated by commas. [the app's default, and all that it defines]",
)
@click.option(
    "-X",
    "--exclude-queues",
    type=names,
    help="The app's queues but these.",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 10_000),
    help="How many tasks run at once. [number of CPUs; 100 with asyncio]",
)
@click.option(
    "-P",
    "--pool",
    type=one_of(KINDS),
    show_default="prefork",
    help="Run tasks in child processes, in threads, one at a time, or as coroutines.",
)
@click.option(
    "--time-limit",
    type=duration,
    help="Kill a task that runs longer, unless it has a limit of its own. [none]",
)
@click.option(
    "--soft-time-limit",
    type=duration,
    help="Interrupt a task that runs longer, unless it has a limit of its own. [none]",
)
@click.option(
    "--max-tasks",
    type=click.IntRange(1),
    help="Replace a child process after so many tasks. [never]",
)
@click.option(
    "--max-memory",
    type=size,
    metavar="SIZE",
    help="Replace a child process that has more memory, such as 500M. [never]",
)
@click.option("-n", "--name", metavar="NAME", help="A node name, such as mail@%h (%h: this host).")
@click.option(
    "--prefetch", type=click.IntRange(1, 65535), help="Messages to hold at once. [by the pool]"
)
@click.option(
    "--drain",
    type=duration,
    show_default="30s",
    help="How long running tasks may go on after a signal to stop.",
)
@click.option(
    "--lease",
    type=duration,
    show_default="30s",
    help="How long after this worker's death its messages go to others.",
)
@click.option(
    "--statedb",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Keep revoked ids and the logical clock in this file, across restarts.",
)
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option("--check", is_flag=True, help="Import, connect and declare, take nothing, and end.")
@click.option("--no-control", is_flag=True, help="Take no part in remote control.")
@click.option(
    "--control-key",
    "control_keys",
    type=(str, click.Path(exists=True, dir_okay=False, path_type=Path)),
    multiple=True,
    metavar="NAME FILE",
    help="Obey only remote commands that a key signed: its name, and a file with its secret.",
)
@click.option(
    "-l", "--log-level", type=one_of(LEVELS), default="info", show_default=True, help="Log."
)
@click.option(
    "--log-format",
    type=one_of(get_args(Format)),
    default="pretty",
    show_default=True,
    help="For people, or one JSON object a line.",
)
@click.option("--die-with", type=int, hidden=True, help="A pipe; when it closes, die at once.")
def worker(
    app: str,
    broker: str | None,
    queues: tuple[str, ...] | None,
    exclude_queues: tuple[str, ...] | None,
    concurrency: int | None,
    pool: str | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    max_tasks: int | None,
    max_memory: int | None,
    name: str | None,
    prefetch: int | None,
    drain: float | None,
    lease: float | None,
    statedb: str | None,
    burst: bool,
    check: bool,
    no_control: bool,
    control_keys: tuple[tuple[str, Path], ...],
    log_level: str,
    log_format: Format,
    die_with: int | None,
) -> int:
    """Run tasks from queues until told to stop.

    The first SIGTERM or Ctrl-C stops gently: tasks that run may finish. The second one stops now,
    and what ran is delivered again. Exit code 0 after a gentle stop, 9 after the other. SIGHUP
    replaces the child processes, SIGQUIT writes the stacks of all threads to stderr.
    """
    if die_with is not None:
        die_with_parent(die_with)
    configure(log_level, log_format)
    for variable, near in misspelt_variables():
        logger.warning("%s is no setting; did you mean %s?", variable, near)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    node = expand(name) if name else ""
    options = WorkerOptions(
        broker=broker,
        queues=queues or (),
        name=node or f"{app.partition(':')[0]}-{os.getpid()}@{socket.gethostname()}",
        node=node,
        pool=pool,
        prefetch=prefetch,
        drain=drain,
        lease=lease,
        exclude=exclude_queues or (),
        statedb=statedb,
        burst=burst,
        check=check,
        control=False if no_control else None,
        keys=[SigningKey.from_file(key, file) for key, file in control_keys],
    )
    around = found_around()
    kind, at_once = pool or around.worker_pool, concurrency or around.worker_concurrency
    forks = around.worker_pool_start_method != "spawn"
    tasks = PoolOptions(kind, at_once, soft_time_limit, time_limit, max_tasks, max_memory, forks)
    pool_of_tasks = make_pool(tasks, app, broker, log_level, log_format, options.name)
    # What the worker is made of is imported while another process imports the app.
    work: Callable[..., int] = load("queue_core.worker.runner:work")
    return work(pool_of_tasks, options)


commands = {"worker": worker}
