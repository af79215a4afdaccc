"""Functions that hear what happens in the worker's own process, and the app that names them."""

import os
from pathlib import Path
from typing import Any

from queue_core.worker import App

app = App("hooked")


def note(*words: object) -> None:
    """Write down who heard what."""
    with Path(os.environ["HOOKED"]).open("a") as file:
        print(os.getpid(), *words, file=file)


@app.hooks.worker_ready
def ready(worker: Any) -> None:
    note("ready", worker.options.name)


@app.hooks.worker_shutdown
def shutdown(worker: Any) -> None:
    note("shutdown", worker.clean)


@app.hooks.received
def received(request: Any) -> None:
    note("received", request.name, request.id)


@app.hooks.received
def damaged(request: Any) -> None:
    raise ValueError("logged, and nothing else")


@app.hooks.revoked
def revoked(request: Any, reason: str) -> None:
    note(reason, request.id)


@app.hooks.process_init
def begins() -> None:
    note("begins")


@app.hooks.process_shutdown
def ends() -> None:
    note("ends")


@app.task(name="hooked.add")
def add(a: int, b: int) -> int:
    return a + b
