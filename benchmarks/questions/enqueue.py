"""How many tasks a second one process sends: one by one, and in batches of 10,000.

"raw" is the bare driver that publishes messages of 200 bytes one by one, each certain before the
next. celery has no batch: it sends one by one there too.
"""

from __future__ import annotations

from benchmarks.cases import Case
from benchmarks.crew import Crew
from benchmarks.desk import Desk, Job, Reply

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


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner; the bare driver is asked what it publishes."""
    if contestant == "raw":
        return desk.ask(contestant, {**job, "question": "publish"})
    with Crew(desk, contestant, job) as crew:
        crew.tell(job["order"], WARMING)
        return {**crew.tell(job["order"], job["count"]), "facts": crew.facts}
