"""Sends tasks through one library as it is told, then cleans up.

    python -m benchmarks.workers.send LIBRARY

The first line that it prints has the library's facts. Orders come in as JSON lines and answers go
out the same way; the queues are removed at the end of the input, or at a SIGINT. An order says what
to do how often: ``send`` (one by one), ``send_many`` (in batches), ``fill`` (as fast as it can), or
what else the library's app offers, all timed; or ``dispatch``: one task at a time to idle workers.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.timing import percentile, timed
from benchmarks.workers.counter import FOLDER, total

GAP = 0.01
TICK = 0.001
PATIENCE = 20.0


def obey(app: Any, order: dict[str, Any]) -> dict[str, float]:
    """Do what an order says; what was measured."""
    what, count = order["do"], order["count"]
    if what == "dispatch":
        return _dispatch_times(app, count)
    send = getattr(app, "send_many", app.send) if what == "fill" else getattr(app, what)
    with timed(count) as result:
        send(count)
    return result


def _dispatch_times(app: Any, count: int) -> dict[str, float]:
    """Milliseconds from before a task is sent until it runs."""
    samples = [_dispatch_time(app) for _ in range(count)]
    return {
        "value": percentile(samples, 0.5) * 1e3,
        "p99": percentile(samples, 0.99) * 1e3,
        "count": count,
        "seconds": sum(samples),
    }


def _dispatch_time(app: Any) -> float:
    folder = Path(os.environ[FOLDER])
    time.sleep(GAP)
    before, _ = total(folder)
    begun = time.monotonic()
    app.send(1)
    while (found := total(folder))[0] == before:
        if time.monotonic() > begun + PATIENCE:
            raise TimeoutError(f"a task did not run within {PATIENCE:g} s")
        time.sleep(TICK)
    return found[1] - begun


def main(library: str) -> None:
    """Obey until the end of the input."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    app = importlib.import_module(f"benchmarks.workers.{library}_app")
    app.prepare()
    print(json.dumps({"facts": app.FACTS}), file=out, flush=True)
    try:
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = dict(obey(app, json.loads(line)))
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            print(json.dumps(answer), file=out, flush=True)
    finally:
        app.remove()


if __name__ == "__main__":
    main(sys.argv[1])
