"""What the parts of a mailbox and its nodes share: a connection, names, clocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from queue_core import Clock, Connection, Exchange
from queue_core.mailbox.clock import LamportClock
from queue_core.mailbox.directory import Directory
from queue_core.mailbox.outbox import Outbox


class Wiring(msgspec.Struct, frozen=True):
    """What the nodes of a mailbox share.

    Attributes:
        connection: the mailbox's.
        namespace: names that belong together.
        exchange: where commands are published to.
        peers: where nodes talk among themselves, if they must.
        reply_exchange: where the answers to celery's callers go.
        clock, time: logical and physical.
        directory: who there is, and what to remember.
        accept: the serializers that commands may come in.
        cast: sends a command to one node: name, method, arguments.
        outbox: sends their answers.
    """

    connection: Connection
    namespace: str
    exchange: Exchange
    peers: Exchange | None
    reply_exchange: Exchange
    clock: LamportClock
    time: Clock
    directory: Directory
    accept: tuple[str, ...]
    cast: Callable[[str, str, Mapping[str, Any]], None]
    outbox: Outbox
