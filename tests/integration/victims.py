"""Processes that SIGKILL themselves inside ``claim``: after its commit, before its reply.

Arguments: the database's URL, the queue, the lease in seconds. For each line of input one child
process opens a session and consumes; the line that comes back is how it ended and what it had
claimed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from queue_core import Connection
from queue_core.registry import find_transport
from queue_core.transport import Claimed, SessionOptions
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse

claim = SqlStore.claim


def deadly(
    store: SqlStore, session: str, request: str, wants: Mapping[str, int], *args: Any, **kwargs: Any
) -> Claimed:
    """Claim, and die as soon as there is something to answer."""
    claimed = claim(store, session, request, wants, *args, **kwargs)
    if claimed.claims:
        print(*[item.body.decode() for item in claimed.claims], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return claimed


def be_killed(url: str, queue: str, lease: float) -> None:
    """Consume with the whole stack on top of the deadly store."""
    SqlStore.claim = deadly  # type: ignore[method-assign]  # this process has nothing else to do
    broker = parse(url)
    session = find_transport(broker.scheme).open(broker, SessionOptions(lease=lease))
    session.subscribe("victim", queue, prefetch=1)
    while True:
        session.receive("victim", wait=1.0)


def main() -> None:
    """Fork a victim for each line, and wait for its end."""
    url, queue, lease = sys.argv[1], sys.argv[2], float(sys.argv[3])
    with Connection(url, lease=lease) as connection:
        connection.connect()  # what a first session has to load and compile, its children have then
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            try:
                be_killed(url, queue, lease)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else f"exit {status}", flush=True)


if __name__ == "__main__":
    main()
