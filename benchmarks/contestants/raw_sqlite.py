"""sqlite3: one table, write-ahead log, synchronous=FULL, a transaction for each batch.

The ack of a batch and the next claim are one transaction. A consumer that waits asks each
millisecond whether the file has changed.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence

from benchmarks.adapter import payload
from benchmarks.contestants import plain_mailbox
from benchmarks.contestants.raw_table import TablePeer, TableSubscription

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

    def subscribe(self, queue: str, prefetch: int) -> TableSubscription:
        def step(room: int, handled: list[int]) -> list[tuple[int, bytes]]:
            self.database.execute("BEGIN IMMEDIATE")
            acked = [(number,) for number in handled]
            self.database.executemany("DELETE FROM raw_message WHERE number = ?", acked)
            rows = self.database.execute(CLAIM, (queue, room)).fetchall() if room else []
            self.database.execute("COMMIT")
            return rows

        return TableSubscription(step, _Changes(self.database), prefetch)

    def peer(self, take_from: str, send_to: str) -> TablePeer:
        return TablePeer(self.insert, self.subscribe(take_from, 1), send_to)

    def nodes(self, names: Sequence[str]) -> plain_mailbox.Nodes:
        return plain_mailbox.Nodes(self, lambda: SqliteAdapter(self._path), names)

    def caller(self) -> plain_mailbox.Caller:
        return plain_mailbox.Caller(self)

    def close(self) -> None:
        self.database.close()


class _Changes:
    """Waits until the file has changed since the last look."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._seen = -1

    def __call__(self, end: float) -> bool:
        while time.monotonic() < end:
            (version,) = self._database.execute("PRAGMA data_version").fetchone()
            if version != self._seen:
                self._seen = version
                return True
            time.sleep(0.001)
        return False
