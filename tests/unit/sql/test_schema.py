"""A database that is not ours, or of another version, is refused with a word on what to do."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from queue_core.errors import StoreCorrupt
from queue_core.transport import Envelope
from queue_core.transports.sql import schema
from queue_core.transports.sql.tables import metadata


def _change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_newer_major_version_is_refused_and_both_are_named(path: Path, open_handle: Any) -> None:
    open_handle().close()
    _change(path, "UPDATE queue_core_meta SET number = 2 WHERE name = 'major'")
    with pytest.raises(StoreCorrupt, match=r"version 2\.0 .* version 1\.0; upgrade") as caught:
        open_handle()
    assert str(path) in str(caught.value)


def test_a_newer_minor_version_works(path: Path, open_handle: Any) -> None:
    open_handle().close()
    _change(
        path,
        "UPDATE queue_core_meta SET number = 7 WHERE name = 'minor'",
        "ALTER TABLE queue_core_message ADD COLUMN colour TEXT",
    )
    store = open_handle()
    assert not store.put([Envelope("q", "a", b"", b"")], {}).already


def test_an_older_minor_version_gets_what_it_lacks(
    path: Path, open_handle: Any, monkeypatch: Any
) -> None:
    old = open_handle()
    steps = (("ALTER TABLE queue_core_message ADD COLUMN colour TEXT",), ("CREATE TABLE more (x)",))
    monkeypatch.setattr(schema, "STEPS", steps)
    new = open_handle()
    rows = new._dialect._raw.execute("SELECT name, number FROM queue_core_meta").fetchall()
    assert dict(rows)["minor"] == 2
    for store in (old, new, open_handle()):
        store.put([Envelope("q", store.place if hasattr(store, "place") else "a", b"", b"")], {})
    assert new._dialect._raw.execute("SELECT count(*) FROM more").fetchone() == (0,)


def test_a_foreign_table_with_our_name_is_refused(path: Path, open_handle: Any) -> None:
    _change(path, "CREATE TABLE queue_core_message (id INTEGER, text TEXT)")
    with pytest.raises(StoreCorrupt, match="queue_core did not make"):
        open_handle()


def test_a_meta_table_without_versions_is_refused(path: Path, open_handle: Any) -> None:
    open_handle().close()
    _change(path, "DELETE FROM queue_core_meta")
    with pytest.raises(StoreCorrupt, match="does not say which version"):
        open_handle()


def test_a_missing_table_is_named(path: Path, open_handle: Any) -> None:
    open_handle().close()
    _change(path, "DROP TABLE queue_core_key")
    with pytest.raises(StoreCorrupt, match="queue_core_key lacks"):
        open_handle()


def test_an_applications_own_tables_are_left_alone(path: Path, open_handle: Any) -> None:
    _change(path, "CREATE TABLE orders (id INTEGER)", "INSERT INTO orders VALUES (1)")
    store = open_handle()
    assert store._dialect._raw.execute("SELECT id FROM orders").fetchall() == [(1,)]


def test_many_may_open_a_new_file_at_the_same_time(open_handle: Any) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def open_one() -> None:
        try:
            barrier.wait(30)
            open_handle()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert errors == []


def test_every_name_has_our_prefix() -> None:
    names = {table.name for table in metadata.tables.values()}
    names |= {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    assert len(names) == 12
    assert all(name.startswith("queue_core_") for name in names)
