"""Callers that die: ``URL NAMESPACE COUNT``. Prints the queues in which they heard their answers.

Each is a process of its own with a connection of its own and ten mailboxes, each of which has made
a call; every other one is in the middle of one more. Then it is killed by SIGKILL. They are forked
from this process, which has loaded what they need and is not connected any more.
"""

from __future__ import annotations

import os
import signal
import sys

from queue_core import Connection
from queue_core.mailbox import Mailbox

LEASE = 3.0
AT_ONCE = 4
MAILBOXES = 10


def call_and_die(url: str, namespace: str, number: int, told: int) -> None:
    connection = Connection(url, lease=LEASE)
    boxes = [Mailbox(namespace, connection) for _ in range(MAILBOXES)]
    for box in boxes:
        while "a" not in box.call(["a"], "ping", timeout=5.0):
            pass  # on a busy machine the node may have lost its lease
    if number % 2:
        asked = boxes[0].stream("naps", {"seconds": 10.0}, 10.0, destinations=["a"])
        next(asked, None)
    os.write(told, "".join(f"{box.reply_queue}\n" for box in boxes).encode())
    os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, namespace: str, count: int) -> None:
    with Connection(url) as connection, Mailbox(namespace, connection) as box:
        assert box.call(["a"], "ping", timeout=20.0)["a"] == {"ok": "pong"}
    out = sys.stdout.fileno()
    living: set[int] = set()
    for number in range(count):
        if len(living) == AT_ONCE:
            living.discard(os.wait()[0])
        pid = os.fork()
        if not pid:
            try:
                call_and_die(url, namespace, number, out)
            finally:
                os._exit(1)
        living.add(pid)
    while living:
        living.discard(os.wait()[0])
    os.write(out, b"done\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
