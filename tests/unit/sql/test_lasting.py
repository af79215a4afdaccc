"""What waits for the disk on SQLite, and what a power cut may undo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_core.transport import Change, Detector, Envelope
from queue_core.transports.sql.sqlite import SqliteDialect

NORMAL, FULL, EXTRA = 1, 2, 3


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ``synchronous`` of each commit."""
    seen: list[int] = []
    commit = SqliteDialect.commit

    def noting(self: SqliteDialect, cursor: Any) -> None:
        cursor.execute("PRAGMA synchronous")
        seen.append(cursor.fetchone()[0])
        commit(self, cursor)

    monkeypatch.setattr(SqliteDialect, "commit", noting)
    return seen


def _of(commits: list[int], call: Callable[[], object]) -> list[int]:
    commits.clear()
    call()
    return list(commits)


def test_what_is_stored_settled_or_given_back_waits_for_the_disk(
    open_handle: Any, commits: list[int]
) -> None:
    store = open_handle()
    assert _of(commits, lambda: store.open_session("s", 30.0)) == [FULL]
    batch = [Envelope("q", name, b"", b"") for name in "abc"]
    assert _of(commits, lambda: store.put(batch, {})) == [FULL]
    first = store.claim("s", "r1", {"q": 1}, 0.0).claims[0].token
    settling = _of(commits, lambda: store.claim("s", "r2", {"q": 2}, 0.0, settle=[first]))
    assert settling == [FULL]
    second, third = store.owned("s")
    assert _of(commits, lambda: store.put([], {}, settle=[second])) == [FULL]
    assert _of(commits, lambda: store.release([third], delay=60.0)) == [FULL]
    assert _of(commits, lambda: store.write_table([Change("x", 0, b"")])) == [FULL]
    assert _of(commits, lambda: store.key_set("k", b"")) == [FULL]
    assert _of(commits, lambda: store.purge("q")) == [FULL]
    assert _of(commits, lambda: store.end_session("s")) == [FULL]


def test_taking_and_heartbeats_do_not_wait_for_the_disk(
    open_handle: Any, commits: list[int]
) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b""), Envelope("q", "b", b"", b"", ttl=0.0)], {})
    assert _of(commits, lambda: store.claim("s", "r", {"q": 1}, 0.0)) == [NORMAL]
    assert _of(commits, lambda: store.collect("s", 10)) == [NORMAL]
    assert _of(commits, lambda: store.heartbeat(["s"])) == [NORMAL]
    assert len(store.owned("s")) == 2


@pytest.mark.parametrize(("option", "lasting"), [("normal", NORMAL), ("extra", EXTRA)])
def test_the_url_says_how_what_lasts_is_committed(
    open_handle: Any, commits: list[int], option: str, lasting: int
) -> None:
    store = open_handle(f"?synchronous={option}")
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    store.claim("s", "r", {"q": 1}, 0.0)
    store.put([], {}, settle=store.owned("s"))
    assert commits == [lasting, lasting, NORMAL, lasting]


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
