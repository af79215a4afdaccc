"""How long one task takes that is sent to an idle worker of two processes, until it runs.

From before the call that sends it to the moment when the task looks at the clock, one task after
the other with a pause between. The broker has confirmed what ours sends.
"""

from __future__ import annotations

import time

from benchmarks.cases import Case
from benchmarks.crew import Crew
from benchmarks.desk import Desk, Job, Reply

WARMING = 20
SETTLING = 0.5
CONTESTANTS = {
    ("sqlite", "postgresql"): ("ours", "huey", "procrastinate"),  # celery asks once a second
    ("redis", "amqp"): ("ours", "celery", "dramatiq", "huey", "taskiq"),
}
CASES = tuple(
    Case(
        "errand",
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


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    with Crew(desk, contestant, job) as crew:
        crew.tell("fill", WARMING)
        crew.work()
        crew.wait(WARMING)
        time.sleep(SETTLING)
        return {**crew.tell("errands", job["count"]), "facts": crew.facts}
