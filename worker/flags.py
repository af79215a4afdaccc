"""How a worker runs, as its command line says it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from queue_core.mailbox import SigningKey


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker runs. What is None is as the app's settings say.

    Attributes:
        broker: replaces the app's broker if not None.
        queues: names of the queues to take from; the app's default queue, and all that it defines,
            if empty.
        exclude: names of those among them not to take from.
        name: for people, in the log, and what remote control calls it.
        node: for the broker: a worker that starts under the node name of a dead one gets its
            messages at once. Empty: none.
        pool: the kind of pool that somebody asked for.
        prefetch: messages to hold at once, over all queues. If the settings do not say either, the
            pool decides.
        drain: seconds to wait for running tasks when stopping.
        lease: seconds after which others may have this worker's messages if it dies.
        burst: end when the queues are empty.
        check: end when everything is ready, and take nothing.
        statedb: a file that keeps what must survive a restart.
        control: take part in remote control.
        keys: obey remote commands that change something only if one of these signed them; empty:
            obey everybody.
    """

    broker: str | None = None
    queues: Sequence[str] = ()
    exclude: Sequence[str] = ()
    name: str = "worker"
    node: str = ""
    pool: str | None = None
    prefetch: int | None = None
    drain: float | None = None
    lease: float | None = None
    burst: bool = False
    check: bool = False
    statedb: str | None = None
    control: bool | None = None
    keys: Sequence[SigningKey] = ()


def expand(name: str) -> str:
    """Put the host name for ``%h`` and the process id for ``%p``."""
    return name.replace("%h", socket.gethostname()).replace("%p", str(os.getpid()))
