"""PyMySQL: one table, SKIP LOCKED, the ack of a batch and the next claim in one transaction.

Batches are inserts of many rows. A consumer that waits looks again every 5 ms, since
MariaDB wakes nobody.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from benchmarks.adapter import payload
from benchmarks.contestants import plain_mailbox
from benchmarks.contestants.raw_table import TablePeer, TableSubscription
from benchmarks.names import named

BATCH = 100
POLL = 0.005
DEADLOCK = 1213
TABLE = named("raw")
CREATE = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    number BIGINT AUTO_INCREMENT PRIMARY KEY, queue VARCHAR(100) NOT NULL,
    taken TINYINT NOT NULL DEFAULT 0, body TEXT NOT NULL,
    INDEX ready (queue, taken, number)) ENGINE=InnoDB"""
INSERT = f"INSERT INTO {TABLE} (queue, body) VALUES (%s, %s)"
CLAIM = f"""SELECT number, body FROM {TABLE} WHERE queue = %s AND taken = 0
    ORDER BY number LIMIT %s FOR UPDATE SKIP LOCKED"""


def open_adapter(broker: str, url: str) -> MariaAdapter:
    return MariaAdapter(url)


class MariaAdapter:
    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self._database = pymysql.connect(
            host=parts.hostname or "localhost",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=parts.path.lstrip("/"),
            autocommit=True,
        )
        self._cursor = self._database.cursor()
        names = ("innodb_flush_log_at_trx_commit", "log_bin", "sync_binlog")
        found = self.ask(f"SELECT {', '.join('@@' + name for name in names)}")[0]
        self.facts = {
            "ack": "with the next claim, in one transaction",
            "publish": "one statement each; publish_many: one per 100",
            "versions": f"PyMySQL {pymysql.__version__}",
            "server": f"MariaDB {str(self.ask('SELECT VERSION()')[0][0]).partition('-')[0]}",
            "durability": ", ".join(
                f"{name} {value}" for name, value in zip(names, found, strict=True)
            ),
        }

    def ask(self, statement: str, *values: Any) -> Any:
        """Execute one statement; its rows."""
        self._cursor.execute(statement, values)
        return self._cursor.fetchall()

    def clear(self, *queues: str) -> None:
        self.drop()
        self.ask(CREATE)

    def drop(self, *queues: str) -> None:
        if self.ask(f"SHOW TABLES LIKE '{TABLE}'"):
            self.ask(f"DROP TABLE {TABLE}")

    def publish_each(self, queue: str, count: int) -> None:
        for number in range(count):
            self.insert(queue, json.dumps(payload(number)))

    def insert(self, queue: str, body: str) -> None:
        """Store one message."""
        self.ask(INSERT, queue, body)

    def publish_many(self, queue: str, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            rows = [(queue, json.dumps(payload(number))) for number in numbers]
            self._cursor.executemany(INSERT, rows)

    def _claim(self, queue: str, room: int, handled: list[int]) -> Any:
        """Ack and claim, tried again after a deadlock; the rows."""
        while True:
            try:
                return self._step(queue, room, handled)
            except pymysql.err.OperationalError as error:
                if error.args[0] != DEADLOCK:
                    raise

    def _step(self, queue: str, room: int, handled: list[int]) -> Any:
        self._database.begin()
        if handled:
            self.ask(f"DELETE FROM {TABLE} WHERE number IN %s", handled)
        rows = self.ask(CLAIM, queue, room) if room else []
        if rows:
            numbers = [number for number, _ in rows]
            self.ask(f"UPDATE {TABLE} SET taken = 1 WHERE number IN %s", numbers)
        self._database.commit()
        return rows

    def subscribe(self, queue: str, prefetch: int) -> TableSubscription:
        return TableSubscription(functools.partial(self._claim, queue), _wait, prefetch)

    def peer(self, take_from: str, send_to: str) -> TablePeer:
        return TablePeer(self.insert, self.subscribe(take_from, 1), send_to)

    def nodes(self, names: Sequence[str]) -> plain_mailbox.Nodes:
        return plain_mailbox.Nodes(self, lambda: MariaAdapter(self._url), names)

    def caller(self) -> plain_mailbox.Caller:
        return plain_mailbox.Caller(self)

    def close(self) -> None:
        self._database.close()


def _wait(end: float) -> bool:
    if time.monotonic() >= end:
        return False
    time.sleep(POLL)
    return True
