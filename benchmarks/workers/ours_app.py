"""queue_core.worker."""

from __future__ import annotations

import atexit
import importlib
import time

from benchmarks.workers.counter import count
from benchmarks.workers.environment import BROKER, QUEUE, RESULTS, URL
from queue_core import Connection, Queue, QueueNotFound, __version__
from queue_core.worker import App

FACTS = {
    "ack": "after the task",
    "publish": "each confirmed",
    "versions": f"queue_core {__version__}",
}
BATCH = 10_000
LATER = 3600.0
app = App("bench", broker=URL, default_queue=QUEUE)


@app.task(ignore_result=not RESULTS)
def tick() -> int:
    count()
    return 1


@app.task(ignore_result=True)
def mixed(slow: bool) -> None:
    if slow:
        time.sleep(0.05)
    count()


def prepare() -> None:
    remove()


def send(number: int) -> None:
    for _ in range(number):
        tick.delay()


def send_many(number: int) -> None:
    for begin in range(0, number, BATCH):
        tick.send_many(() for _ in range(min(BATCH, number - begin)))


def send_mixed(number: int) -> None:
    """One of 97 is slow, which its name does not tell."""
    mixed.send_many((index % 97 == 0,) for index in range(number))


def send_later(number: int) -> None:
    """To run in an hour."""
    tick.send_many((() for _ in range(number)), countdown=LATER)
    if BROKER == "amqp":  # pika is not for the worker's children, which import this
        ladder = importlib.import_module("benchmarks.workers.ladder")
        atexit.register(ladder.take_back, URL, QUEUE, LATER)


def remove() -> None:
    with Connection(URL) as connection:
        try:
            connection.delete(Queue(QUEUE))
        except QueueNotFound:
            pass
