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

APPS = "benchmarks.workers"
TO_SEND = 120.0
TO_RUN = 60.0
TO_STOP = 10.0
TICK = 0.003


@dataclass(frozen=True)
class Worker:
    """How to start a library's worker: arguments for its Python, and how often."""

    arguments: tuple[str, ...]
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
        rounds=2,
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
    with tempfile.TemporaryDirectory(prefix="queue-core-bench-") as counters:
        environment = {
            **os.environ,
            FOLDER: counters,
            "QUEUE_CORE_BENCH_BROKER": job["broker"],
            "QUEUE_CORE_BENCH_URL": job["url"],
            "QUEUE_CORE_BENCH_RESULTS": "yes" if job["results"] else "",
        }
        with _started(
            (python, "-m", f"{APPS}.send", contestant, str(count)), environment, desk
        ) as sender:
            assert sender.stdout is not None
            if not select.select([sender.stdout], [], [], TO_SEND)[0]:
                return {"error": f"{count} tasks were not sent within {TO_SEND:g} s"}
            line = sender.stdout.readline()
            if not line:
                return {"error": f"{contestant} could not send its tasks"}
            sent = json.loads(line)
            with contextlib.ExitStack() as workers:
                for _ in range(worker.times):
                    workers.enter_context(_started((python, *worker.arguments), environment, desk))
                return {**_watch(Path(counters), count), **sent}


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


@contextlib.contextmanager
def _started(
    arguments: tuple[str, ...], environment: dict[str, str], desk: Desk
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own, which is told to stop, and killed if it does not."""
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if "benchmarks.workers.send" in arguments else desk.log,
        stderr=desk.log,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if f"{APPS}.send" not in arguments:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TO_STOP)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
