"""Sends tasks through one library, then waits, then cleans up.

    python -m benchmarks.workers.send LIBRARY COUNT

Prints one JSON line when everything is sent, and removes the library's queues at the end of input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main(library: str, count: int) -> None:
    """Do it."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    app = importlib.import_module(f"benchmarks.workers.{library}_app")
    app.prepare()
    app.send(1)
    start = time.perf_counter()
    app.send(count - 1)
    seconds = time.perf_counter() - start
    answer = {"enqueue": (count - 1) / seconds, "facts": app.FACTS}
    print(json.dumps(answer), file=out, flush=True)
    sys.stdin.read()
    app.remove()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
