"""huey: it takes a task off the queue before it runs it, so one that is killed is lost."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

from huey import RedisHuey, SqliteHuey

from benchmarks.workers.counter import count
from benchmarks.workers.environment import BROKER, QUEUE, RESULTS, URL

SYNC = os.environ.get("QUEUE_CORE_BENCH_SYNC") != "no"
FACTS = {
    "ack": "none: taken before the task (at most once)",
    "publish": "each" if SYNC else "each, not synced to disk (fsync=False)",
    "versions": f"huey {version('huey')}",
}
huey: Any = (
    SqliteHuey(QUEUE, filename=URL.partition("///")[2], fsync=SYNC, results=RESULTS)
    if BROKER == "sqlite"
    else RedisHuey(QUEUE, url=URL, results=RESULTS)
)


@huey.task()  # type: ignore[untyped-decorator]  # not in the environment of the check
def tick() -> int:
    count()
    return 1


def prepare() -> None:
    remove()


def send(number: int) -> None:
    for _ in range(number):
        tick()


def remove() -> None:
    huey.storage.flush_all()
