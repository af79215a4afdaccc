"""queue_core.worker."""

from __future__ import annotations

from benchmarks.workers.counter import count
from benchmarks.workers.place import QUEUE, RESULTS, URL
from queue_core import Connection, Queue, QueueNotFound, __version__
from queue_core.worker import App

FACTS = {
    "ack": "after the task",
    "publish": "each confirmed",
    "versions": f"queue_core {__version__}",
}
app = App("bench", broker=URL, default_queue=QUEUE)


@app.task(ignore_result=not RESULTS)
def tick() -> int:
    count()
    return 1


def prepare() -> None:
    remove()


def send(number: int) -> None:
    for _ in range(number):
        tick.delay()


def remove() -> None:
    with Connection(URL) as connection:
        try:
            connection.delete(Queue(QUEUE))
        except QueueNotFound:
            pass
