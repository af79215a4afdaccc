"""The demo's app and its one task."""

from __future__ import annotations

import os

from queue_core.worker import App
from queue_core.worker.demo.counting import Counts, count, library

app = App("demo", backend="rpc://")


@app.task(name="demo.count")
def count_module(path: str, journal: str) -> tuple[Counts, bool]:
    """Count one module of the standard library.

    Args:
        path: relative to the standard library.
        journal: a file in which each start is noted, so that the demo can tell what ran twice.

    Returns:
        The counts, and whether this message had been delivered before.
    """
    request = count_module.request
    note(journal, request.id)
    return count(library() / path), request.redelivered


def note(journal: str, task_id: str) -> None:
    """Append one short line; a single write, so that lines of several processes never mix."""
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{task_id} {os.getpid()}\n".encode())
    finally:
        os.close(file)
