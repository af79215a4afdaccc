"""How many no-op tasks a second a worker with two processes runs.

The tasks are sent first, one by one (``enqueue``, per second). Then the worker starts, and the time
counts from the moment when a tenth is done, since until then it is still starting.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.desk import ROOT, Desk, Job, Reply
from benchmarks.workers.counter import FOLDER, total
from tools.processes import dying_with_parent, end_group

Command = tuple[str, ...]

APPS = "benchmarks.workers"
TO_SEND = 120.0
TO_RUN = 60.0
TO_STOP = 10.0
TICK = 0.003


@dataclass(frozen=True)
class Worker:
    """How to start a library's worker: arguments for its Python, and how often."""

    arguments: Command
    brokers: tuple[str, ...]
    results: tuple[str, ...] = ()
    times: int = 1


def _module(line: str) -> tuple[str, ...]:
    return ("-m", *line.split())


SQL = ("sqlite", "postgresql", "mariadb")
WORKERS = {
    "ours": Worker(
        _module(f"queue_core.worker.cli worker -A {APPS}.ours_app:app -c 2 -l warning"),
        (*SQL, "redis", "amqp"),
        (*SQL, "redis", "amqp"),
    ),
    "celery": Worker(
        _module(f"celery -A {APPS}.celery_app worker -P prefork -c 2 -l WARNING"),
        (*SQL, "redis", "amqp"),
        ("redis", "amqp"),
    ),
    "dramatiq": Worker(_module(f"dramatiq {APPS}.dramatiq_app -p 2 -t 1"), ("redis", "amqp")),
    "huey": Worker(
        _module(f"huey.bin.huey_consumer {APPS}.huey_app.huey -w 2 -k process -n"),
        ("redis", "sqlite"),
        ("redis", "sqlite"),
    ),
    "taskiq": Worker(
        _module(
            f"taskiq worker {APPS}.taskiq_app:broker -w 2 --ack-type when_executed "
            "--log-level WARNING"
        ),
        ("redis", "amqp"),
    ),
    "procrastinate": Worker(
        _module(f"procrastinate -a {APPS}.procrastinate_app.app worker -c 1"),
        ("postgresql",),
        (),
        2,
    ),
}
CASES = tuple(
    Case(
        "tasks",
        name,
        "tasks/s",
        {"results": results},
        first=300,
        most=20_000,
        brokers=(*SQL, "redis", "amqp"),
        contestants=tuple(WORKERS),
        rounds=1 if results else 2,
        thorough=results,
        longer=3.0,
    )
    for name, results in (("no-op tasks", False), ("no-op tasks with results", True))
)


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner; no contestant's process takes part."""
    worker = WORKERS[contestant]
    if job["broker"] not in (worker.results if job["results"] else worker.brokers):
        return {"absent": f"{contestant} is not measured on {job['broker']}"}
    python = str(desk.python(contestant))
    count = job["count"]
    with contextlib.ExitStack() as stack:
        counters = stack.enter_context(tempfile.TemporaryDirectory(prefix="queue-core-bench-"))
        environment = {
            **os.environ,
            FOLDER: counters,
            "QUEUE_CORE_BENCH_BROKER": job["broker"],
            "QUEUE_CORE_BENCH_URL": job["url"],
            "QUEUE_CORE_BENCH_RESULTS": "yes" if job["results"] else "",
        }
        send = (python, "-m", f"{APPS}.send", contestant, str(count))
        sent = stack.enter_context(_sender(send, environment, desk))
        if "error" in sent:
            return sent
        for _ in range(worker.times):
            stack.enter_context(_worker((python, *worker.arguments), environment, desk))
        return {**_watch(Path(counters), count), **sent}


@contextlib.contextmanager
def _sender(arguments: Command, environment: dict[str, str], desk: Desk) -> Iterator[Reply]:
    """Everything is sent; the queues are removed at the end."""
    process = _started(arguments, environment, desk, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        line = b""
        if select.select([process.stdout], [], [], TO_SEND)[0]:
            line = process.stdout.readline()
        yield json.loads(line or b'{"error": "the tasks were not sent"}')
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TO_STOP)
        end_group(process, signal.SIGKILL, 0.0)
        process.stdout.close()


@contextlib.contextmanager
def _worker(arguments: Command, environment: dict[str, str], desk: Desk) -> Iterator[None]:
    """A worker, which is told to stop at the end, and killed if it does not."""
    process = _started(arguments, environment, desk, stdout=desk.log)
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        end_group(process, signal.SIGTERM, TO_STOP)


def _started(
    arguments: Command, environment: dict[str, str], desk: Desk, *, stdout: Any
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=desk.log,
        process_group=0,
        preexec_fn=dying_with_parent(signal.SIGTERM),
    )


def _watch(counters: Path, count: int) -> dict[str, Any]:
    """Wait until everything has run; the rate from a tenth on."""
    deadline = time.monotonic() + TO_RUN
    first, started = 0, 0.0
    while time.monotonic() < deadline:
        time.sleep(TICK)
        now, done = time.perf_counter(), total(counters)
        if not first and done >= count // 10:
            first, started = done, now
        if first and done >= count:
            seconds = now - started
            if done == first:
                return {"error": "too few tasks to measure"}
            return {"value": (done - first) / seconds, "count": done - first, "seconds": seconds}
    return {"error": f"{total(counters)} of {count} tasks ran within {TO_RUN:g} s"}
