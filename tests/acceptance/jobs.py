"""The tasks of the worker tests; worker processes import this module."""

import os
import signal
import time
from pathlib import Path

from queue_core.worker import App

app = App("jobs", backend=os.environ.get("JOBS_BACKEND"))


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
def fail(text: str) -> None:
    raise ValueError(text, 7)


@app.task
def hold(path: str) -> list[object]:
    """Note the start in the file, and run until a file of this name with ``.go`` is there."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(f"{path}.go").exists():
        time.sleep(0.01)
    return [os.getpid(), hold.request.redelivered]


@app.task
def start(path: str) -> int:
    """Note the start in the file, and return at once."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return os.getpid()


@app.task
def die_once(path: str) -> str:
    """Kill this process the first time."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "alive"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead")


@app.task
def die_always() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def relay(a: int, queue: str) -> str:
    """Send another task from inside a task."""
    return add.apply_async((a, 1), queue=queue).id


@app.task
def children() -> int:
    return os.getppid()
