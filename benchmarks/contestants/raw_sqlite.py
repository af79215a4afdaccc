"""sqlite3: one table, write-ahead log, synchronous=FULL, a transaction for each batch.

The ack of a batch and the next claim are one transaction. A consumer that waits asks each
millisecond whether the file has changed.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.adapter import payload
from benchmarks.contestants import plain_mailbox
from benchmarks.contestants.raw_table import TablePeer

BATCH = 100
CLAIM = """UPDATE raw_message SET taken = 1 WHERE number IN (
    SELECT number FROM raw_message WHERE queue = ? AND taken = 0 ORDER BY number LIMIT ?
) RETURNING number, body"""


def open_adapter(broker: str, url: str) -> SqliteAdapter:
    return SqliteAdapter(url.partition("///")[2].partition("?")[0])


class SqliteAdapter:
    def __init__(self, path: str) -> None:
        self._path = path
        self.database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE IF NOT EXISTS raw_message (number INTEGER PRIMARY KEY, queue TEXT, "
            "taken INTEGER DEFAULT 0, body BLOB)",
            "CREATE INDEX IF NOT EXISTS raw_ready ON raw_message (queue, number) WHERE taken = 0",
        ):
            self.database.execute(statement)
        self.facts = {
            "ack": "with the next claim, in one transaction",
            "publish": "one transaction each; publish_many: one per 100",
            "versions": f"sqlite3 {sqlite3.sqlite_version}",
            "server": f"SQLite {sqlite3.sqlite_version}",
            "durability": "write-ahead log, synchronous FULL",
        }

    def clear(self, *queues: str) -> None:
        for queue in queues:
            self.database.execute("DELETE FROM raw_message WHERE queue = ?", (queue,))

    drop = clear

    def publish_each(self, queue: str, count: int) -> None:
        for number in range(count):
            self.insert(queue, json.dumps(payload(number)))

    def insert(self, queue: str, body: str) -> None:
        self.database.execute("INSERT INTO raw_message (queue, body) VALUES (?, ?)", (queue, body))

    def publish_many(self, queue: str, count: int) -> None:
        for start in range(0, count, BATCH):
            rows = [
                (queue, json.dumps(payload(number)))
                for number in range(start, min(start + BATCH, count))
            ]
            self.database.execute("BEGIN IMMEDIATE")
            self.database.executemany("INSERT INTO raw_message (queue, body) VALUES (?, ?)", rows)
            self.database.execute("COMMIT")

    def subscribe(self, queue: str, prefetch: int) -> _Subscription:
        return _Subscription(self, queue, prefetch)

    def step(self, queue: str, room: int, handled: list[tuple[int]]) -> list[tuple[int, bytes]]:
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany("DELETE FROM raw_message WHERE number = ?", handled)
        rows = self.database.execute(CLAIM, (queue, room)).fetchall() if room else []
        self.database.execute("COMMIT")
        return rows

    def peer(self, take_from: str, send_to: str) -> TablePeer:
        return TablePeer(self.insert, self.subscribe(take_from, 1), send_to)

    def nodes(self, names: Sequence[str]) -> plain_mailbox.Nodes:
        return plain_mailbox.Nodes(self, lambda: SqliteAdapter(self._path), names)

    def caller(self) -> plain_mailbox.Caller:
        return plain_mailbox.Caller(self)

    def close(self) -> None:
        self.database.close()


class _Subscription:
    def __init__(self, adapter: SqliteAdapter, queue: str, prefetch: int) -> None:
        self._adapter = adapter
        self._queue = queue
        self.latest = time.monotonic()
        self._prefetch = prefetch
        self._handled: list[tuple[int]] = []
        self._seen = -1

    def take(self, count: int, seconds: float) -> int:
        taken = 0
        end = time.monotonic() + seconds
        while taken < count and (bodies := self.claim(count - taken, end)):
            taken += len(bodies)
            self.latest = time.monotonic()
        self.close()
        return taken

    def claim(self, room: int, end: float) -> list[Any]:
        """Claim some as soon as there are some; what was claimed before is acked."""
        while True:
            rows = self._adapter.step(self._queue, min(self._prefetch, room), self._handled)
            self._handled = [(number,) for number, _ in rows]
            if rows or not self._changes(end):
                return [json.loads(body) for _, body in rows]

    def _changes(self, end: float) -> bool:
        while time.monotonic() < end:
            (version,) = self._adapter.database.execute("PRAGMA data_version").fetchone()
            if version != self._seen:
                self._seen = version
                return True
            time.sleep(0.001)
        return False

    def close(self) -> None:
        if self._handled:
            self._adapter.step(self._queue, 0, self._handled)
            self._handled = []
