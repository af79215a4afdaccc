"""The task libraries: on which brokers each is measured, and the command line of its worker.

A library that takes part in several ways (another number of threads, another safety) is a
contestant for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

APPS = "benchmarks.workers"
SQL = ("sqlite", "postgresql", "mariadb")
EVERYWHERE = (*SQL, "redis", "amqp")

PROCESSES, THREADS = "2 processes", "8 threads"
WINDOWS = (8, 32, 128)
"""The fixed prefetches that ours by itself is compared with."""


@dataclass(frozen=True)
class Library:
    """One way to run a task library's worker.

    Attributes:
        app: its module in `benchmarks.workers`, without ``_app``.
        command: the worker's module and its arguments.
        brokers: where it is measured without results, and ``results`` where with.
        pools: further arguments for each pool that it has.
        times: how many workers are started.
        settings: environment variables for its app.
    """

    app: str
    command: str
    brokers: tuple[str, ...]
    results: tuple[str, ...] = ()
    pools: Mapping[str, str] = field(default_factory=lambda: {PROCESSES: ""})
    times: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


_OURS = f"queue_core.worker.cli worker -A {APPS}.ours_app:app -l warning"
_DRAMATIQ = f"dramatiq {APPS}.dramatiq_app"
_HUEY = f"huey.bin.huey_consumer {APPS}.huey_app.huey -w 2 -k process -n -q"
_TASKIQ = "--ack-type when_executed --log-level WARNING"

LIBRARIES: Mapping[str, Library] = {
    "ours": Library(
        "ours", _OURS, EVERYWHERE, EVERYWHERE, {PROCESSES: "-c 2", THREADS: "-P threads -c 8"}
    ),
    "celery": Library(
        "celery",
        f"celery -A {APPS}.celery_app worker -l WARNING",
        EVERYWHERE,
        ("redis", "amqp"),
        {PROCESSES: "-P prefork -c 2", THREADS: "-P threads -c 8"},
    ),
    "dramatiq": Library("dramatiq", f"{_DRAMATIQ} -p 2 -t 1", ("redis", "amqp")),
    "dramatiq-2x8": Library("dramatiq", f"{_DRAMATIQ} -p 2 -t 8", ("redis", "amqp")),
    "huey": Library("huey", _HUEY, ("redis", "sqlite"), ("redis", "sqlite")),
    "huey-nosync": Library("huey", _HUEY, ("sqlite",), settings={"QUEUE_CORE_BENCH_SYNC": "no"}),
    "taskiq": Library(
        "taskiq", f"taskiq worker {APPS}.taskiq_app:broker -w 2 {_TASKIQ}", ("redis", "amqp")
    ),
    "procrastinate": Library(
        "procrastinate",
        f"procrastinate -a {APPS}.procrastinate_app.app worker -c 1",
        ("postgresql",),
        times=2,
    ),
    **{
        f"ours-{window}": Library(
            "ours", f"{_OURS} --prefetch {window}", EVERYWHERE, pools={PROCESSES: "-c 2"}
        )
        for window in WINDOWS
    },
}
