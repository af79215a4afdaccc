"""How many tasks a second one process sends: one by one, and in batches of 10,000.

"raw" is the bare driver that publishes messages of 200 bytes one by one, each certain before the
next. celery has no batch: it sends one by one there too.
"""

from __future__ import annotations

from benchmarks.cases import Case
from benchmarks.library_run import LibraryRun
from benchmarks.processes import Job, Processes, Reply

WARMING = 10
CASES = (
    Case(
        "enqueue",
        "tasks sent one by one",
        "tasks/s",
        {"order": "send", "many": False},
        first=100,
        most=20_000,
        brokers=("sqlite", "postgresql", "redis", "amqp"),
        contestants=("ours", "raw", "celery", "dramatiq", "procrastinate"),
    ),
    Case(
        "enqueue",
        "tasks sent in a batch",
        "tasks/s",
        {"order": "fill"},
        first=200,
        most=100_000,
        brokers=("redis", "amqp"),
        contestants=("ours", "celery"),
    ),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner; the bare driver is asked what it publishes."""
    if contestant == "raw":
        return processes.ask(contestant, {**job, "question": "publish"})
    with LibraryRun(processes, contestant, job) as run:
        run.order(job["order"], WARMING)
        return {**run.order(job["order"], job["count"]), "facts": run.facts}
