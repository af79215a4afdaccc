"""The demo: one task for each module of the standard library, two workers, one SIGKILL, one check.

Every number that is shown is counted, not assumed: results by task id, starts from a journal that
the tasks write, deliveries from the messages, and the totals by computing everything again in this
process without any queue. Whatever differs fails the demo.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queue_core import Connection, Exchange, QueueCoreError, __version__, counted
from queue_core.worker import AsyncResult
from queue_core.worker.demo.counting import Counts, count, library, modules, total
from queue_core.worker.demo.fleet import CLEAN_ENDS, Fleet
from queue_core.worker.demo.show import Display
from queue_core.worker.demo.tasks import app, count_module

LEASE = 3.0
WORKERS = 2
STALLED = 60.0
_TICK = 0.05


class DemoFailed(Exception):
    """The demo did not come out as promised; says how."""


@dataclass
class Tally:
    """What was seen."""

    sent: int = 0
    results: dict[str, tuple[Counts, bool]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    killed_at: float = 0.0
    back_after: float | None = None

    @property
    def redelivered(self) -> int:
        """Messages that were delivered more than once."""
        return sum(again for _, again in self.results.values())

    @property
    def reruns(self) -> int:
        """Starts beyond the first of each task."""
        return sum(self.starts.values()) - len(self.starts)


def run_demo(url: str, display: Display, *, limit: int | None = None) -> None:
    """Run the demo on the broker at ``url``, with the first ``limit`` modules or all.

    Blocks for about half a minute on two CPUs. Leaves neither queues nor processes nor files behind
    (but the database file of SQLite), also when interrupted.

    Raises:
        DemoFailed: something was lost or differs.
        QueueCoreError: the broker cannot be used.
    """
    paths = modules()[:limit]
    queue = f"demo-{uuid.uuid4().hex[:8]}"
    children = max(1, (os.cpu_count() or 2) // WORKERS)
    app.use(broker=url)
    with contextlib.ExitStack() as cleaning:
        folder = Path(tempfile.mkdtemp(prefix="queue-core-demo-"))
        cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
        cleaning.callback(app.close)
        broker = app.connection().connect()
        cleaning.callback(_delete, broker, queue)
        fleet = Fleet(url, queue, folder, children=children, lease=LEASE)
        cleaning.callback(fleet.stop)
        cleaning.callback(display.end)
        display.say(f"queue-core {__version__} demo   broker {broker.url}   lease {LEASE:g} s")
        display.say(
            f"{counted(len(paths), 'module')} of {library()}, one task each; "
            f"{WORKERS} workers with {counted(children, 'child process', 'child processes')} each"
        )
        began = time.monotonic()
        for _ in range(WORKERS):
            fleet.start()
        journal = folder / "starts"
        results = count_module.send_many([(path, str(journal)) for path in paths], queue=queue)
        sent = counted(len(results), "task")
        display.say(f"sent     {sent} in {time.monotonic() - began:.1f} s")
        tally = Tally(sent=len(results))
        _collect(results, tally, fleet, display, journal)
        took = time.monotonic() - began
        tally.starts = _read_journal(journal)
        _tell_what_came_back(tally, display)
        left = _wait_until_empty(broker, queue)
        codes = fleet.stop()
        _check(paths, results, tally, display)
        _finish(tally, codes, left, took, display)


def _collect(
    results: list[AsyncResult[tuple[Counts, bool]]],
    tally: Tally,
    fleet: Fleet,
    display: Display,
    journal: Path,
) -> None:
    """Wait for every result, and kill a worker half way."""
    waiting = list(results)
    display.begin("tasks", len(results))
    moved = time.monotonic()
    while waiting:
        still: list[AsyncResult[Any]] = []
        for result in waiting:
            if not result.ready():
                still.append(result)
                continue
            value = result.get(0)
            tally.results[result.id] = (value[0], value[1])
            if value[1] and tally.killed_at and tally.back_after is None:
                tally.back_after = time.monotonic() - tally.killed_at
        if len(still) < len(waiting):
            moved = time.monotonic()
        waiting = still
        display.update(len(tally.results))
        if not tally.killed_at and len(tally.results) * 2 >= len(results):
            _kill_one(tally, fleet, display, journal)
        if (fallen := fleet.fallen()) is not None:
            raise DemoFailed(f"a worker ended with code {fallen.returncode}: {fleet.last_words()}")
        if time.monotonic() - moved > STALLED:
            lost = counted(len(waiting), "task")
            raise DemoFailed(f"{lost} lost: nothing for {STALLED:g} s")
        time.sleep(_TICK)
    display.end()


def _kill_one(tally: Tally, fleet: Fleet, display: Display, journal: Path) -> None:
    victim: subprocess.Popen[bytes] = fleet.processes[0]
    fleet.kill(victim)
    tally.killed_at = time.monotonic()
    begun = len(_read_journal(journal)) - len(tally.results)
    fleet.start()
    display.say(
        f"chaos    SIGKILL worker {victim.pid} at {len(tally.results)} of {tally.sent}, "
        f"{begun} tasks begun but not reported; a new worker is started"
    )


def _read_journal(journal: Path) -> Counter[str]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(line.split()[0] for line in lines if line)


def _tell_what_came_back(tally: Tally, display: Display) -> None:
    after = "" if tally.back_after is None else f", the first result {tally.back_after:.1f} s later"
    display.say(
        f"         redelivered {counted(tally.redelivered, 'message')}{after}; "
        f"{tally.reruns} had begun and ran again"
    )


def _wait_until_empty(broker: Connection, queue: str, seconds: float = 10.0) -> int:
    """Return how many messages the queue still has; results travel a moment before acks."""
    deadline = time.monotonic() + seconds
    while True:
        info = broker.inspect(queue)
        left = info.ready + (info.unacked or 0) + (info.delayed or 0)
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(_TICK)


def _check(
    paths: list[str],
    results: list[AsyncResult[tuple[Counts, bool]]],
    tally: Tally,
    display: Display,
) -> None:
    """Compute everything again, here and without a queue, and compare file by file."""
    display.begin("check", len(paths))
    direct: list[Counts] = []
    for path in paths:
        direct.append(count(library() / path))
        display.update(len(direct))
    display.end()
    wrong = [
        path
        for path, result, expected in zip(paths, results, direct, strict=True)
        if tally.results[result.id][0] != expected
    ]
    ours, theirs = total(direct), total(value for value, _ in tally.results.values())
    if wrong or ours != theirs:
        raise DemoFailed(f"{len(wrong)} results differ, the first is {wrong[:1]}: {theirs} {ours}")
    display.say("counted  " + ", ".join(f"{value:,} {name}" for name, value in ours.items()))


def _finish(tally: Tally, codes: list[int], left: int, took: float, display: Display) -> None:
    lost = tally.sent - len(tally.results)
    facts = (
        f"{tally.sent} sent, {len(tally.results)} done, {lost} lost, 0 different from the direct "
        f"count, {tally.redelivered} redelivered, {tally.reruns} run twice, in {took:.1f} s"
    )
    if lost or left or not set(codes) <= CLEAN_ENDS:
        raise DemoFailed(
            f"{facts}; {counted(left, 'message')} left over; exit codes of the workers: {codes}"
        )
    display.say(f"OK       {facts}")


def _delete(broker: Connection, queue: str) -> None:
    """Delete what this run declared; the reply queue goes with the app."""
    definition = app.queue(queue)
    with contextlib.suppress(QueueCoreError):  # a broker that is away has said so already
        broker.delete(definition)
        if isinstance(definition.exchange, Exchange):
            broker.delete(definition.exchange)
