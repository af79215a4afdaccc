"""How many tasks a second a worker runs that has two processes, or eight threads.

The tasks are sent first. Then the worker starts, and the time counts from the moment when a tenth
is done, since until then it is still starting. ``cpu_parent_us`` and ``cpu_children_us`` are the
CPU of the worker's first process and of all others, for each task in that time.

"1 M queued": so many more wait in the queue. "mixed load": one task of 97 sleeps for 50 ms; the
other contestants are ours with a fixed prefetch.
"""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.cases import Case
from benchmarks.libraries import EVERYWHERE, LIBRARIES, PROCESSES, THREADS, WINDOWS
from benchmarks.library_run import LibraryRun
from benchmarks.processes import Failed, Job, Processes, Reply
from benchmarks.tree import cpu

NOOP = Case(
    "tasks",
    "no-op tasks",
    "tasks/s",
    {"order": "fill", "pool": PROCESSES},
    first=500,
    most=20_000,
    brokers=EVERYWHERE,
    contestants=tuple(name for name in LIBRARIES if not name.startswith("ours-")),
    longer=3.0,
)
SERVERS = ("redis", "amqp")
TIMED_OF_MANY = 20_000
DEPTHS = {"100 k": 100_000, "1 M": 1_000_000}
CASES = (
    NOOP,
    replace(
        NOOP,
        name="no-op tasks, 8 threads",
        given={**NOOP.given, "pool": THREADS},
        brokers=SERVERS,
        contestants=("ours", "celery"),
    ),
    replace(
        NOOP,
        name="no-op tasks with results",
        given={**NOOP.given, "results": True},
        rounds=1,
        thorough=True,
    ),
    replace(
        NOOP,
        name="mixed load",
        given={**NOOP.given, "order": "send_mixed"},
        most=6_000,
        rounds=2,
        brokers=SERVERS,
        contestants=("ours", *(f"ours-{window}" for window in WINDOWS)),
    ),
    *(
        replace(
            NOOP,
            name=f"no-op tasks, {words} queued",
            given={**NOOP.given, "depth": depth},
            first=0,
            brokers=("sqlite", "postgresql", *SERVERS),
            contestants=("ours",),
            rounds=2 if depth < 1_000_000 else 1,
            thorough=depth >= 1_000_000,
        )
        for words, depth in DEPTHS.items()
    ),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner; no contestant's process takes part."""
    count = job["count"] or TIMED_OF_MANY
    with LibraryRun(processes, contestant, job) as run:
        run.order(job["order"], count + job.get("depth", 0))
        run.start_workers()
        return {**_watch(run, count), "facts": run.facts}


def _watch(run: LibraryRun, count: int) -> Reply:
    """Wait until so many have run; the rate from a tenth on."""
    run.wait(count // 10)
    parents = [tree.root for tree in run.trees]
    children = [pid for tree in run.trees for pid in tree.children()]
    used, first, started = (cpu(parents), cpu(children)), run.done(), time.perf_counter()
    run.wait(count)
    seconds, done = time.perf_counter() - started, run.done() - first
    if not done:
        raise Failed("too few tasks to measure")
    return {
        "value": done / seconds,
        "count": done,
        "seconds": seconds,
        "cpu_parent_us": (cpu(parents) - used[0]) / done * 1e6,
        "cpu_children_us": (cpu(children) - used[1]) / done * 1e6,
    }
