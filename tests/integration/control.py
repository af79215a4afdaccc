"""A node of the mailbox's tests: ``URL NAMESPACE NAME``. Says ``ready``, serves till input ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from queue_core import Connection
from queue_core.mailbox import Mailbox

LEASE = 3.0


def node(url: str, namespace: str, name: str) -> None:
    with Connection(url, lease=LEASE) as connection, Mailbox(namespace, connection) as box:
        with box.node(name) as made:

            @made.handler
            def nap(state: object, seconds: float) -> float:
                time.sleep(seconds)
                return seconds

            @made.handler(concurrency=30)
            def naps(state: object, seconds: float) -> Iterator[str]:
                yield "good night"
                time.sleep(seconds)
                yield "good morning"

            @made.handler
            def whoami(state: object) -> int:
                return os.getpid()

            print("ready", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    node(*sys.argv[1:])
