"""How long one task takes that is sent to an idle worker of two processes, until it runs.

From before the call that sends it to the moment when the task looks at the clock, one task after
the other with a pause between. The broker has confirmed what ours sends.
"""

from __future__ import annotations

import time

from benchmarks.cases import Case
from benchmarks.library_run import LibraryRun
from benchmarks.processes import Job, Processes, Reply

WARMING = 20
SETTLING = 0.5
CONTESTANTS = {
    ("sqlite", "postgresql"): ("ours", "huey", "procrastinate"),  # celery asks once a second
    ("redis", "amqp"): ("ours", "celery", "dramatiq", "huey", "taskiq"),
}
CASES = tuple(
    Case(
        "dispatch",
        "one task to an idle worker",
        "ms p50",
        first=30,
        most=100,
        brokers=brokers,
        contestants=contestants,
        longer=2.0,
    )
    for brokers, contestants in CONTESTANTS.items()
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    with LibraryRun(processes, contestant, job) as run:
        run.order("fill", WARMING)
        run.start_workers()
        run.wait(WARMING)
        time.sleep(SETTLING)
        return {**run.order("dispatch", job["count"]), "facts": run.facts}
