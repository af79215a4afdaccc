"""A wrong path, option, file or permission is a typed error that says what, where and what next."""

from __future__ import annotations

import os
import pickle
import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConfigError,
    ConnectionLost,
    QueueCoreError,
    StoreCorrupt,
)
from queue_core.transport import Envelope, SessionOptions
from queue_core.transports.sql import check, open_store
from queue_core.transports.sql.errors import explain_sqlite
from queue_core.transports.sql.sqlite_file import SqliteFile
from queue_core.url import parse


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///q.db?synchronus=full", "did you mean 'synchronous'"),
        ("sqlite:///q.db?synchronous=off", "normal, full, extra"),
        ("sqlite:///q.db?timeout=never", "'timeout'"),
        ("sqlite:///q.db?timeout=0", "from 0.01 to 600"),
        ("sqlite:///q.db?poll=5", "from 0.001 to 1"),
        ("sqlite:///q.db?max_size=100", "at least"),
        ("sqlite+aiosqlite:///q.db", "sqlite3"),
    ],
)
def test_a_bad_url_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(parse(url))


@pytest.mark.parametrize(
    "options", ["", "?synchronous=NORMAL&timeout=2s&poll=10ms&max_size=1000000"]
)
def test_a_good_url_is_accepted(options: str) -> None:
    check(parse(f"sqlite:///q.db{options}"))


def test_a_relative_path_stays_the_same_file(
    open_handle: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = open_handle(file=Path("relative.db"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    store._dialect.drop()
    store.put([Envelope("q", "a", b"", b"")], {})
    assert (tmp_path / "relative.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_missing_directory_is_named_with_the_command(open_handle: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"mkdir -p {tmp_path}/missing/deep$"):
        open_handle(file=tmp_path / "missing" / "deep" / "queue.db")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_database(open_handle: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        open_handle(file=tmp_path)


def test_a_pipe_is_no_database(open_handle: Any, path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="no regular file"):
        open_handle()


def test_another_kind_of_file_is_left_as_it_is(open_handle: Any, path: Path) -> None:
    path.write_bytes(b"dear diary" * 1000)
    with pytest.raises(StoreCorrupt, match="no SQLite database") as caught:
        open_handle()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"dear diary" * 1000


def test_a_damaged_file_is_corrupt(open_handle: Any, path: Path) -> None:
    store = open_handle()
    store.put([Envelope("q", str(n), bytes(3000), b"") for n in range(200)], {})
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreCorrupt):
        store = open_handle()
        store.put([Envelope("q", "x", b"", b"")], {})
        store.inspect("q")


def _as_nobody(path: Path, *messages: str) -> str:
    """Put messages as a user without permissions; return the error's class and text, if any."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            store = open_store(parse(f"sqlite:///{path}"), SessionOptions())
            store.put([Envelope("q", name, b"", b"") for name in messages], {})
            store.close()
        except BaseException as error:
            os.write(write, f"{type(error).__name__} {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def open_to_all(tmp_path: Path) -> None:
    """Let other users reach the test's directory."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)


@pytest.mark.usefixtures("open_to_all")
def test_a_file_that_may_not_be_written_is_refused(open_handle: Any, path: Path) -> None:
    open_handle().close()
    path.chmod(0o444)
    path.parent.chmod(0o777)
    said = _as_nobody(path)
    assert said.startswith("AccessRefused")
    assert str(path) in said


@pytest.mark.usefixtures("open_to_all")
def test_a_directory_that_may_not_be_written_is_refused(path: Path) -> None:
    path.parent.chmod(0o555)
    said = _as_nobody(path)
    path.parent.chmod(0o755)
    assert said.startswith("AccessRefused")
    assert f"the directory {path.parent}" in said


@pytest.mark.usefixtures("open_to_all")
def test_users_who_may_write_the_file_share_gate_and_sockets(open_handle: Any, path: Path) -> None:
    path.parent.chmod(0o777)
    path.touch()
    path.chmod(0o666)
    store = open_handle()
    store.put([Envelope("q", "a", b"", b"")], {})
    for name in ("queue.db-wal", "queue.db-shm"):
        assert path.with_name(name).stat().st_mode & 0o666 == 0o666
    said = _as_nobody(path, "b")
    assert said == ""
    assert store.inspect("q").ready == 2


def test_a_full_file_refuses_publishes_and_still_takes_acks(open_handle: Any) -> None:
    store = open_handle("?max_size=1000000")
    store.open_session("s", 30.0)
    stored = 0
    with pytest.raises(BrokerFull, match="a tenth is kept for settling"):
        while True:
            store.put([Envelope("q", str(stored), bytes(5000), b"")], {})
            stored += 1
    assert stored > 50
    settle: list[Any] = []
    taken = 0
    while claims := store.claim("s", f"r{taken}", {"q": 20}, 0.0, settle=settle).claims:
        settle = [claim.token for claim in claims]
        taken += len(claims)
        assert not store.heartbeat(["s"])
    assert taken == stored
    assert not store.put([Envelope("q", "again", bytes(5000), b"")], {}).already


def test_a_full_disk_refuses_publishes_and_still_takes_acks(
    open_handle: Any, monkeypatch: Any
) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", "a", b"", b"")], {})
    (claim,) = store.claim("s", "r", {"q": 1}, 0.0).claims
    monkeypatch.setattr("queue_core.transports.sql.sqlite_file.SqliteFile.free", lambda _: 1000)
    for settle in ([], [claim.token]):
        with pytest.raises(BrokerFull, match="1000 bytes left"):
            store.put([Envelope("q", "b", b"", b"")], {}, settle=settle)
    dead_letter = Envelope("dead", "a", b"", b"", cause=claim.token)
    assert not store.put([dead_letter], {}, settle=[claim.token]).stale_tokens
    (claim,) = store.claim("s", "r1", {"dead": 1}, 0.0).claims
    assert not store.put([], {}, settle=[claim.token]).stale_tokens
    monkeypatch.undo()
    assert not store.put([Envelope("q", "b", b"", b"")], {}).already


def test_sqlite_s_own_limit_is_broker_full_too(open_handle: Any) -> None:
    store = open_handle()
    store._dialect._raw.execute("PRAGMA max_page_count = 60")
    with pytest.raises(BrokerFull, match="database or disk is full"):
        for number in range(100):
            store.put([Envelope("q", str(number), bytes(5000), b"")], {})
    store.open_session("s", 30.0)
    claims = store.claim("s", "r", {"q": 100}, 0.0).claims
    assert claims
    assert not store.put([], {}, settle=[claim.token for claim in claims]).stale_tokens


def test_a_deleted_file_is_noticed(open_handle: Any, path: Path) -> None:
    store = open_handle()
    path.unlink()
    with pytest.raises(ConnectionLost, match="deleted or replaced"):
        store.put([Envelope("q", "a", b"", b"")], {})
    store.put([Envelope("q", "a", b"", b"")], {})
    assert open_handle().inspect("q").ready == 1


def test_a_lost_side_directory_is_made_again(open_handle: Any, path: Path) -> None:
    store = open_handle()
    os.rmdir(f"{path}-side")
    store.put([Envelope("q", "a", b"", b"")], {})
    assert open_handle().inspect("q").ready == 1


def test_a_table_dropped_under_way_is_corrupt(open_handle: Any, path: Path) -> None:
    store = open_handle()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE queue_core_message")
    connection.close()
    with pytest.raises(StoreCorrupt, match="no such table"):
        store.put([Envelope("q", "a", b"", b"")], {})


def test_another_program_that_holds_the_lock_is_waited_for_and_named(
    open_handle: Any, path: Path
) -> None:
    store = open_handle("?timeout=0.2")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConnectionLost, match="holds a transaction open") as caught:
        store.put([Envelope("q", "a", b"", b"")], {})
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    holder.execute("COMMIT")
    holder.close()
    assert not store.put([Envelope("q", "a", b"", b"")], {}).already


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (sqlite3.SQLITE_BUSY, ConnectionLost),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, ConnectionLost),
        (sqlite3.SQLITE_LOCKED, ConnectionLost),
        (sqlite3.SQLITE_IOERR_FSYNC, ConnectionLost),
        (sqlite3.SQLITE_FULL, BrokerFull),
        (sqlite3.SQLITE_READONLY, AccessRefused),
        (sqlite3.SQLITE_READONLY_DIRECTORY, AccessRefused),
        (sqlite3.SQLITE_CANTOPEN, AccessRefused),
        (sqlite3.SQLITE_PERM, AccessRefused),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt),
    ],
)
def test_each_code_of_sqlite_has_its_meaning(code: int, meaning: type[QueueCoreError]) -> None:
    error = sqlite3.OperationalError("as it says")
    error.sqlite_errorcode = code
    explained = explain_sqlite(error, "the SQLite database /x/queue.db")
    assert type(explained) is meaning
    assert "/x/queue.db" in str(explained)
    assert "as it says" in str(explained)


@pytest.mark.parametrize("error", [ValueError("x"), sqlite3.IntegrityError("x"), KeyError("x")])
def test_what_is_not_about_the_database_has_no_meaning(error: Exception) -> None:
    assert explain_sqlite(error, "here") is None


def test_a_closed_handle_may_be_closed_again_and_opens_when_used(open_handle: Any) -> None:
    store = open_handle()
    store.close()
    store.close()
    assert store.inspect("q").ready == 0


def test_a_handle_may_be_opened_in_one_thread_and_used_in_another(open_handle: Any) -> None:
    store = open_handle()
    thread = threading.Thread(target=store.put, args=([Envelope("q", "a", b"", b"")], {}))
    thread.start()
    thread.join(30)
    assert store.inspect("q").ready == 1


@pytest.mark.parametrize(
    "name", ['"; DROP TABLE x; --', "emoji 🎈", "%s", "x" * 255, "a'b", "日本"]
)
def test_hostile_names_are_only_names(open_handle: Any, name: str) -> None:
    store = open_handle()
    store.open_session(name, 30.0)
    store.put([Envelope(name, name, b"", b"")], {name: 0})
    (claim,) = store.claim(name, name, {name: 1}, 0.0).claims
    assert (claim.queue, claim.id) == (name, name)
    assert pickle.loads(pickle.dumps(claim.token)) == claim.token
    store.key_set(name, name.encode())
    assert store.key_get(name).value == name.encode()


def test_where_the_disk_has_plenty_it_is_not_asked_again_at_once(
    path: Path, monkeypatch: Any
) -> None:
    asked: list[str] = []

    def statvfs(blocks: int) -> Any:
        def ask(directory: str) -> Any:
            asked.append(directory)
            return SimpleNamespace(f_bavail=blocks, f_frsize=4096)

        return ask

    file = SqliteFile(parse(f"sqlite:///{path}"))
    monkeypatch.setattr("os.statvfs", statvfs(1 << 20))
    assert [file.free(), file.free()] == [1 << 32, 1 << 32]
    assert len(asked) == 1
    monkeypatch.setattr("queue_core.transports.sql.sqlite_file._MOMENT", 0.0)
    monkeypatch.setattr("os.statvfs", statvfs(1 << 10))
    assert [file.free(), file.free()] == [1 << 22, 1 << 22]
    assert len(asked) == 3
