"""psycopg 3: one table, SKIP LOCKED, the ack of a batch and the next claim in one statement.

Batches go in as arrays. A consumer that waits LISTENs; an insert of one message notifies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import psycopg

from benchmarks.adapter import payload
from benchmarks.contestants import plain_mailbox
from benchmarks.contestants.raw_table import TablePeer, TableSubscription
from benchmarks.names import named

BATCH = 100
TABLE = named("raw")
CREATE = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue TEXT NOT NULL,
    taken BOOLEAN NOT NULL DEFAULT false, body TEXT NOT NULL)"""
INDEX = f"""CREATE INDEX IF NOT EXISTS {TABLE}_ready ON {TABLE} (queue, number)
    WHERE NOT taken"""
ONE = f"""WITH told AS (SELECT pg_notify(%(queue)s, ''))
INSERT INTO {TABLE} (queue, body) SELECT %(queue)s, %(body)s FROM told"""
MANY = f"INSERT INTO {TABLE} (queue, body) SELECT %s, unnest(%s::text[])"
STEP = f"""WITH acked AS (DELETE FROM {TABLE} WHERE number = ANY(%s))
UPDATE {TABLE} SET taken = true WHERE number = ANY(ARRAY(
    SELECT number FROM {TABLE} WHERE queue = %s AND NOT taken
    ORDER BY number LIMIT %s FOR UPDATE SKIP LOCKED
)) RETURNING number, body"""


def open_adapter(broker: str, url: str) -> PostgresAdapter:
    return PostgresAdapter(url)


class PostgresAdapter:
    def __init__(self, url: str) -> None:
        self._url = url
        self.database = psycopg.connect(url, autocommit=True)
        settings = {name: self._show(name) for name in ("fsync", "synchronous_commit")}
        self.facts = {
            "ack": "with the next claim, in one statement",
            "publish": "one statement each; publish_many: one per 100",
            "versions": f"psycopg {psycopg.__version__}",
            "server": f"PostgreSQL {self._show('server_version').split()[0]}",
            "durability": ", ".join(f"{name} {value}" for name, value in settings.items()),
        }

    def _show(self, name: str) -> str:
        row = self.database.execute(f"SHOW {name}").fetchone()
        assert row is not None
        return str(row[0])

    def clear(self, *queues: str) -> None:
        self.database.execute("SET client_min_messages = warning")
        self.database.execute(CREATE)
        self.database.execute(INDEX)
        self.database.execute(f"DELETE FROM {TABLE} WHERE queue = ANY(%s)", (list(queues),))

    def drop(self, *queues: str) -> None:
        self.database.execute(f"DROP TABLE IF EXISTS {TABLE}")

    def publish_each(self, queue: str, count: int) -> None:
        for number in range(count):
            self.insert(queue, json.dumps(payload(number)))

    def insert(self, queue: str, body: str) -> None:
        """Store one message and tell who listens."""
        self.database.execute(ONE, {"queue": queue, "body": body})

    def publish_many(self, queue: str, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            bodies = [json.dumps(payload(number)) for number in numbers]
            self.database.execute(MANY, (queue, bodies))

    def subscribe(self, queue: str, prefetch: int) -> TableSubscription:
        """Claim on the adapter's connection; another one is for notifications."""
        news = psycopg.connect(self._url, autocommit=True)
        news.execute(f'LISTEN "{queue}"'.encode())

        def step(room: int, handled: list[int]) -> list[Any]:
            """Ack and claim, tried again after a deadlock, which SKIP LOCKED does not rule out."""
            while True:
                try:
                    return self.database.execute(STEP, (handled, queue, room)).fetchall()
                except psycopg.errors.DeadlockDetected:
                    continue

        def wait(end: float) -> bool:
            left = end - time.monotonic()
            if left > 0:
                for _ in news.notifies(timeout=min(1.0, left), stop_after=1):
                    pass
            return left > 0

        return TableSubscription(step, wait, prefetch, news.close)

    def peer(self, take_from: str, send_to: str) -> TablePeer:
        return TablePeer(self.insert, self.subscribe(take_from, 1), send_to)

    def nodes(self, names: Sequence[str]) -> plain_mailbox.Nodes:
        return plain_mailbox.Nodes(self, lambda: PostgresAdapter(self._url), names)

    def caller(self) -> plain_mailbox.Caller:
        return plain_mailbox.Caller(self)

    def close(self) -> None:
        self.database.close()
