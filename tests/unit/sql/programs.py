"""What other processes do in these tests: ``python programs.py NAME ARGUMENTS``."""

from __future__ import annotations

import sys
import time
from typing import Any

from queue_core.transport import SessionOptions
from queue_core.transports.sql import open_store
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse


def _open(path: str, options: str = "") -> SqlStore:
    return open_store(parse(f"sqlite:///{path}{options}"), SessionOptions())


def _wait_for_the_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def turns(path: str, until: str) -> None:
    """Write until all together have, so often; print how many turns the longest wait took.

    Most of the time somebody is writing, whoever else uses the processors.
    """
    store = _open(path)
    turn = store.key_increment("turns")
    commit = store._dialect.commit

    def slowly(cursor: Any) -> None:
        time.sleep(0.001)
        commit(cursor)

    store._dialect.commit = slowly  # type: ignore[method-assign]
    _wait_for_the_start()
    longest, turn = 0, store.key_increment("turns")
    while turn < int(until):
        before, turn = turn, store.key_increment("turns")
        longest = max(longest, turn - before)
    print(longest, flush=True)


def wait_for_messages(path: str, seconds: str) -> None:
    """Claim and settle until nothing has come for a while; print the CPU seconds that took."""
    store = _open(path)
    store.open_session("waiting", 30.0)
    _wait_for_the_start()
    end = time.monotonic() + float(seconds)
    before = time.process_time()
    number = 0
    while (left := end - time.monotonic()) > 0:
        number += 1
        store.claim("waiting", f"r{number}", {"idle": 10}, min(1.0, left))
    print(time.process_time() - before, flush=True)


def lock(path: str, seconds: str) -> None:
    """Hold SQLite's write lock and both files of the gate."""
    store = _open(path)
    store._dialect.begin(store._dialect.cursor(), lasting=True)
    _wait_for_the_start()


def listen(path: str) -> None:
    """Wait for messages of the queue ``q``, as a consumer that is about to be killed."""
    store = _open(path)
    store.open_session("listening", 30.0)
    print("ready", flush=True)
    for number in range(100):
        store.claim("listening", f"r{number}", {"q": 1}, 1.0)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
