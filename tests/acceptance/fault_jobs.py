"""Tasks that something befalls; worker processes import this module.

Its queue, named by the environment, allows each message three deliveries: what a broker charges to
the wrong message ends as a dead letter.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from queue_core import Queue
from queue_core.worker import App
from queue_core.worker.delivery import ActiveRequest
from queue_core.worker.strategy import default

app = App(
    "faults",
    backend=os.environ.get("JOBS_BACKEND"),
    queues=[Queue(name, max_deliveries=3) for name in os.environ.get("FAULT_QUEUES", "").split()],
)


def note(path: str, word: object) -> None:
    with open(path, "a") as file:
        file.write(f"{word}\n")


class DiesBeforeItsAck(ActiveRequest):
    """Kills the worker when the first task has ended, before anything is settled."""

    __slots__ = ()

    def on_success(self, outcome):
        once(self.message, lambda: os.kill(os.getpid(), signal.SIGKILL))
        super().on_success(outcome)


def once(message, call):
    """Call it, but not again in any process of this test."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(message.headers["killed"], os.O_CREAT | os.O_EXCL))
        call()


def dying(task, consumer):
    return default(task, consumer, DiesBeforeItsAck)


def dying_at_once(task, consumer):
    """Kills the worker when the first message has arrived, before anything is done with it."""
    known = default(task, consumer)

    def strategy(message, headers):
        once(message, lambda: os.kill(os.getpid(), signal.SIGKILL))
        return known(message, headers)

    return strategy


@app.task(strategy=f"{__name__}:dying")
def unacked(path: str) -> bool:
    note(path, "run")
    return unacked.request.redelivered


@app.task(strategy=f"{__name__}:dying_at_once")
def claimed(path: str) -> bool:
    note(path, "run")
    return claimed.request.redelivered


@app.task
def brief(path: str, number: int) -> bool:
    """Note the number, and take a moment."""
    note(path, number)
    time.sleep(0.01)
    return brief.request.redelivered


@app.task
def hold(path: str) -> bool:
    """Note the start in the file, and run until a file of this name with ``.go`` is there."""
    note(path, "run")
    while not Path(f"{path}.go").exists():
        time.sleep(0.01)
    return hold.request.redelivered


@app.task
def die(path: str) -> None:
    note(path, "died")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task
def odd() -> object:
    """Return what no message can hold."""
    return object()


class Unspeakable(Exception):
    """Cannot be shown, copied or sent."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__

    def __reduce__(self):
        raise TypeError("cannot pickle this")


@app.task
def unspeakable() -> None:
    raise Unspeakable


class Named(Exception):
    """Says that it is something else."""


Named.__module__, Named.__qualname__, Named.__name__ = "os", "system", "system"


@app.task
def named(command: str) -> None:
    raise Named(command)
