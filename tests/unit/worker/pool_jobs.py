"""Tasks for the pool tests; children import this module."""

import os
import signal
import threading
import time
from pathlib import Path

from queue_core.worker import App

app = App("pool jobs")


@app.task(name="add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="pid")
def pid() -> int:
    return os.getpid()


@app.task(name="wait_for")
def wait_for(path: str) -> int:
    """Say that it runs, and run until the file is there."""
    Path(f"{path}.{os.getpid()}-{threading.get_ident()}.runs").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return os.getpid()


@app.task(name="die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="leave")
def leave() -> None:
    raise SystemExit(3)
