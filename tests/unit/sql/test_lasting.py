"""What waits for the disk on SQLite, and what a power cut may undo."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_core import Connection, Queue
from queue_core.errors import StoreCorrupt
from queue_core.transport import Change, Detector, Envelope
from queue_core.transports.sql import sqlite_log
from queue_core.transports.sql.sqlite_log import SqliteLog
from queue_core.transports.sql.store import SqlStore


class _Disk:
    """What a power cut would leave: the files as they were when the log was last synced."""

    def __init__(self, path: Path) -> None:
        self.syncs = 0
        self.broken = False
        self._path = path
        self._left: dict[str, bytes] = {}

    def sync(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)
        self.syncs += 1
        self._left = {end: Path(f"{self._path}{end}").read_bytes() for end in ("", "-wal")}

    def of(self, call: Callable[[], object]) -> int:
        """How often ``call`` waits for the disk."""
        before = self.syncs
        call()
        return self.syncs - before

    def cut(self, copy: Path) -> Path:
        """The power fails. Returns where what is left is."""
        for end, content in self._left.items():
            Path(f"{copy}{end}").write_bytes(content)
        return copy


@pytest.fixture
def disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> _Disk:
    disk = _Disk(path)
    monkeypatch.setattr(sqlite_log, "_sync", disk.sync)
    return disk


def test_what_is_stored_settled_or_given_back_waits_for_the_disk(
    open_handle: Any, disk: _Disk
) -> None:
    store = open_handle()
    assert disk.of(lambda: store.open_session("s", 30.0)) == 1
    batch = [Envelope("q", name, b"", b"") for name in "abc"]
    assert disk.of(lambda: store.put(batch, {})) == 1
    first = store.claim("s", "r1", {"q": 1}, 0.0).claims[0].token
    assert disk.of(lambda: store.claim("s", "r2", {"q": 2}, 0.0, settle=[first])) == 1
    second, third = store.owned("s")
    assert disk.of(lambda: store.put([], {}, settle=[second])) == 1
    assert disk.of(lambda: store.release([third], delay=60.0)) == 1
    assert disk.of(lambda: store.write_table([Change("x", 0, b"")])) == 1
    assert disk.of(lambda: store.key_set("k", b"")) == 1
    assert disk.of(lambda: store.purge("q")) == 1
    assert disk.of(lambda: store.end_session("s")) == 1


def test_taking_and_heartbeats_do_not_wait_for_the_disk(open_handle: Any, disk: _Disk) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b""), Envelope("q", "b", b"", b"", ttl=0.0)], {})
    assert disk.of(lambda: store.claim("s", "r", {"q": 1}, 0.0)) == 0
    assert disk.of(lambda: store.collect("s", 10)) == 0
    assert disk.of(lambda: store.heartbeat(["s"])) == 0
    assert len(store.owned("s")) == 2


@pytest.mark.parametrize(("option", "times"), [("normal", 0), ("FULL", 3), ("extra", 3)])
def test_the_url_says_whether_what_lasts_waits_for_the_disk(
    open_handle: Any, disk: _Disk, option: str, times: int
) -> None:
    store = open_handle(f"?synchronous={option}")
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    store.claim("s", "r", {"q": 1}, 0.0)
    store.put([], {}, settle=store.owned("s"))
    assert disk.syncs == times


def test_a_power_cut_leaves_what_was_confirmed_and_undoes_later_claims(
    open_handle: Any, disk: _Disk, tmp_path: Path
) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", name, b"", b"") for name in "abc"], {})
    store.claim("s", "r1", {"q": 1}, 0.0)
    left: SqlStore = open_handle(file=disk.cut(tmp_path / "first.db"))
    assert (left.inspect("q").ready, left.inspect("q").claimed) == (3, 0)
    store.claim("s", "r2", {"q": 1}, 0.0, settle=store.owned("s"))
    left = open_handle(file=disk.cut(tmp_path / "second.db"))
    assert (left.inspect("q").ready, left.inspect("q").claimed) == (1, 1)


def test_other_writers_come_in_while_one_waits_for_the_disk(
    open_handle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_handle(), open_handle()
    store.put([Envelope("q", "a", b"", b"")], {})
    other.heartbeat(["nobody"])
    came: list[object] = []

    def sync(descriptor: int) -> None:
        came.append(other.heartbeat(["nobody"]))

    monkeypatch.setattr(sqlite_log, "_sync", sync)
    store.put([Envelope("q", "b", b"", b"")], {})
    assert came == [["nobody"]]


def test_when_the_disk_refused_to_keep_something_nothing_more_is_confirmed(
    open_handle: Any, disk: _Disk, path: Path
) -> None:
    """The system forgets what it could not write, and says nothing of it to the next who asks."""
    store, other = open_handle(), open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    other.sessions()
    disk.broken = True
    with pytest.raises(StoreCorrupt, match="Input/output error"):
        store.put([Envelope("q", "b", b"", b"")], {})
    disk.broken = False
    (claim,) = store.claim("s", "r", {"q": 1}, 0.0).claims
    for handle in (store, other, open_handle()):
        with pytest.raises(StoreCorrupt, match="integrity_check"):
            handle.put([Envelope("q", "b", b"", b"")], {})
        with pytest.raises(StoreCorrupt, match="unsynced"):
            handle.put([], {}, settle=[claim.token])
    assert disk.syncs > 2, "the disk answers again"
    for handle in (store, other):
        handle.close()
    os.unlink(f"{path}-side/unsynced")
    assert open_handle().put([Envelope("q", "b", b"", b"")], {}).already == [0]


def test_a_publish_on_a_disk_that_fails_is_not_confirmed_and_says_why(
    path: Path, disk: _Disk
) -> None:
    with Connection(f"sqlite:///{path}", timeout=5.0) as connection:
        connection.declare(Queue("q"))
        producer = connection.producer()
        producer.publish("before", "q")
        disk.broken = True
        with pytest.raises(StoreCorrupt, match="nothing more is confirmed"):
            producer.publish("during", "q")
        disk.broken = False
        with pytest.raises(StoreCorrupt, match="Input/output error"):
            producer.publish("after", "q")


def test_a_log_that_cannot_be_opened_is_no_failure_of_the_disk(path: Path) -> None:
    log = SqliteLog(str(path), "a database", str(path.with_name("unsynced")))
    with pytest.raises(FileNotFoundError):
        log.sync()
    assert not path.with_name("unsynced").exists()


def test_the_log_is_lengthened_until_it_is_long_enough(path: Path) -> None:
    file = path.with_name(f"{path.name}-wal")
    log = SqliteLog(str(file), "a database", str(path.with_name("unsynced")))
    for size, lengthened in ((1, 1 << 18), (16 << 20, 16 << 20), ((16 << 20) + 1, (16 << 20) + 1)):
        with file.open("wb") as opened:
            opened.truncate(size)
        log.lengthen()
        assert file.stat().st_size == lengthened
    log.close()


def test_durability_tells_what_publishes_are_promised_and_not_what_the_last_claim_was(
    open_handle: Any,
) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    store.claim("s", "r", {"q": 1}, 0.0)
    assert isinstance(store, Detector)
    assert "synchronous full" in store.durability().found.lower()


def test_the_log_is_longer_than_what_is_in_it_and_can_still_be_recovered(
    open_handle: Any, path: Path, tmp_path: Path
) -> None:
    store = open_handle()
    store.put([Envelope("q", "a", b"body", b"")], {})
    log = path.with_name("queue.db-wal").read_bytes()
    assert len(log) % (256 * 1024) == 0
    assert log.endswith(bytes(128 * 1024))
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    copy.with_name("copy.db-wal").write_bytes(log)
    assert open_handle(file=copy).inspect("q").ready == 1
