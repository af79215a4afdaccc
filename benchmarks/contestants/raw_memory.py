"""The memory store without the client: what is left is what the client costs.

Batches of up to 100 are put, claimed, and settled with the next claim. JSON is done by the standard
library, as by the other bare drivers.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from itertools import count as counting

from benchmarks.adapter import Caller, Nodes, NotOffered, Peer, payload
from queue_core.message import Token
from queue_core.transport import Envelope
from queue_core.transports.memory import MemoryBroker, MemoryStore

BATCH = 100
SESSION = "bench"


def open_adapter(broker: str, url: str) -> MemoryAdapter:
    return MemoryAdapter()


class MemoryAdapter:
    def __init__(self) -> None:
        self.store = MemoryStore(MemoryBroker())
        self.store.open_session(SESSION, 30.0)
        self.facts = {
            "ack": "with the next claim",
            "publish": "a put each; publish_many: one per 100",
            "versions": "this project's memory store, without its client",
            "server": "this process",
            "durability": "none: memory of one process",
        }

    def clear(self, *queues: str) -> None:
        for queue in queues:
            self.store.purge(queue)

    drop = clear

    def publish_each(self, queue: str, count: int) -> None:
        for number in range(count):
            self.store.put([_envelope(queue, number)], {})

    def publish_many(self, queue: str, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            self.store.put([_envelope(queue, number) for number in numbers], {})

    def subscribe(self, queue: str, prefetch: int) -> _Subscription:
        return _Subscription(self.store, queue, prefetch)

    def peer(self, take_from: str, send_to: str) -> Peer:
        raise NotOffered("memory is not shared between processes")

    def nodes(self, names: Sequence[str]) -> Nodes:
        raise NotOffered("memory has no driver that carries commands")

    def caller(self) -> Caller:
        raise NotOffered("memory has no driver that carries commands")

    def close(self) -> None:
        self.store.close()


def _envelope(queue: str, number: int) -> Envelope:
    return Envelope(queue, uuid.uuid4().hex, json.dumps(payload(number)).encode(), b"")


class _Subscription:
    def __init__(self, store: MemoryStore, queue: str, prefetch: int) -> None:
        self._store = store
        self._queue = queue
        self.latest = time.monotonic()
        self._prefetch = prefetch
        self._requests = counting()
        self._handled: Sequence[Token] = ()

    def take(self, count: int, seconds: float) -> int:
        taken = 0
        end = time.monotonic() + seconds
        while taken < count and (left := end - time.monotonic()) > 0:
            room = min(self._prefetch, count - taken)
            request = f"{id(self)}-{next(self._requests)}"
            answer = self._store.claim(
                SESSION, request, {self._queue: room}, min(left, 1.0), settle=self._handled
            )
            for claim in answer.claims:
                json.loads(claim.body)
            self._handled = [claim.token for claim in answer.claims]
            taken += len(answer.claims)
            if answer.claims:
                self.latest = time.monotonic()
        self.close()
        return taken

    def close(self) -> None:
        self._store.put([], {}, settle=self._handled)
        self._handled = ()
