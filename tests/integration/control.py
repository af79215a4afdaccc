"""A program of the mailbox's tests: ``node URL NAMESPACE NAME`` or ``caller URL NAMESPACE``.

A node says ``ready`` and serves until its input ends; a caller calls everybody for ever, and says
after each call which queue it hears its answers in.
"""

from __future__ import annotations

import os
import sys
import time

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

            @made.handler
            def whoami(state: object) -> int:
                return os.getpid()

            print("ready", flush=True)
            sys.stdin.read()


def caller(url: str, namespace: str) -> None:
    with Connection(url, lease=LEASE) as connection, Mailbox(namespace, connection) as box:
        while True:
            box.multi_call("ping", timeout=5)
            print(box.reply_queue, flush=True)


if __name__ == "__main__":
    {"node": node, "caller": caller}[sys.argv[1]](*sys.argv[2:])
