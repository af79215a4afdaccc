"""Forks of a process whose other threads are inside of SQLite."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from queue_core.testing import eventually
from queue_core.transports.sql import sqlite_fork
from queue_core.transports.sql.sqlite_fork import SqliteCursor

Fork = Callable[[Callable[[], object]], int]


@pytest.fixture
def busy(open_handle: Any) -> Iterator[None]:
    """Two threads use SQLite without a pause."""
    done = threading.Event()

    def work(store: Any) -> None:
        while not done.is_set():
            store.heartbeat(["nobody"])
            store.sessions()

    stores = [open_handle("?synchronous=normal") for _ in range(2)]
    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join()


def test_a_child_can_use_sqlite_whatever_other_threads_were_doing(
    busy: None, fork: Fork, path: Any
) -> None:
    def use() -> None:
        sqlite3.connect(path).execute("SELECT count(*) FROM queue_core_session").fetchone()

    def end_of(child: int) -> tuple[int, int] | None:
        found = os.waitpid(child, os.WNOHANG)
        return found if found[0] else None

    for _ in range(150):
        child = fork(use)
        found = eventually(partial(end_of, child), interval=0.001)
        assert found == (child, 0)


@pytest.fixture
def cursor() -> Iterator[SqliteCursor]:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        yield connection.cursor(SqliteCursor)


def test_a_fork_waits_until_no_thread_is_inside_and_lets_them_in_again(
    cursor: SqliteCursor, fork: Fork
) -> None:
    cursor.connection.create_function("nap", 1, time.sleep)
    thread = threading.Thread(target=cursor.execute, args=("SELECT nap(1.0)",))
    began = time.monotonic()
    thread.start()
    eventually(partial(_is_held, cursor), interval=0.001)
    os.waitpid(fork(lambda: None), 0)
    assert time.monotonic() - began >= 1.0
    thread.join()
    assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_a_fork_waits_for_the_end_of_a_transaction(cursor: SqliteCursor, fork: Fork) -> None:
    begun = threading.Event()

    def write() -> None:
        cursor.execute("BEGIN IMMEDIATE")
        begun.set()
        time.sleep(0.5)
        cursor.execute("COMMIT")

    thread = threading.Thread(target=write)
    began = time.monotonic()
    thread.start()
    begun.wait(30)
    os.waitpid(fork(lambda: None), 0)
    assert time.monotonic() - began >= 0.5
    thread.join()
    assert not _is_held(cursor)


def test_a_child_can_write_whatever_other_threads_were_writing(
    open_handle: Any, fork: Fork, path: Any
) -> None:
    """SQLite keeps in the process who has the file's lock, and a child inherits that."""
    done = threading.Event()
    stores = [open_handle("?synchronous=normal") for _ in range(2)]

    def write(store: Any) -> None:
        while not done.is_set():
            store._database.write(lambda steps: time.sleep(0.001))
            time.sleep(0.001)  # so that the child has its turn

    def use() -> None:
        connection = sqlite3.connect(path, timeout=20.0, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert os.waitpid(fork(use), 0)[1] == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()


class _Relay:
    """The lock; who lets go of it waits until the other thread has it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.passed_on = threading.Event()

    def acquire(self, timeout: float) -> bool:
        return self.lock.acquire(timeout=timeout)

    def release(self) -> None:
        self.lock.release()
        self.passed_on.wait(30)


def test_of_two_threads_that_fork_each_lets_go_of_what_it_has_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay = _Relay()
    monkeypatch.setattr(sqlite_fork, "opening", relay)
    mine = threading.Event()

    def fork_too() -> None:
        mine.wait(30)
        sqlite_fork._keep_out()
        relay.passed_on.set()
        finished.wait(30)
        sqlite_fork._let_in()

    finished = threading.Event()
    thread = threading.Thread(target=fork_too)
    thread.start()
    sqlite_fork._keep_out()
    mine.set()
    sqlite_fork._let_in()
    finished.set()
    thread.join()
    assert relay.acquire(timeout=0.0)


def test_a_fork_in_a_signal_handler_leaves_the_locks_to_the_one_that_it_interrupts() -> None:
    sqlite_fork._keep_out()
    sqlite_fork._keep_out()
    sqlite_fork._let_in()
    thread = threading.Thread(target=lambda: got.append(sqlite_fork.opening.acquire(timeout=0.1)))
    got: list[bool] = []
    thread.start()
    thread.join()
    sqlite_fork._let_in()
    assert got == [False]
    with pytest.raises(RuntimeError):
        sqlite_fork.opening.release()


def _is_held(cursor: SqliteCursor) -> bool:
    if not cursor.lock.acquire(blocking=False):
        return True
    cursor.lock.release()
    return False


def test_a_signal_handler_may_fork_on_a_thread_that_is_inside(
    cursor: SqliteCursor, fork: Fork
) -> None:
    status: list[int] = []
    before = signal.signal(
        signal.SIGUSR1, lambda *_: status.append(os.waitpid(fork(lambda: None), 0)[1])
    )
    try:
        with cursor.lock, sqlite_fork.opening:
            os.kill(os.getpid(), signal.SIGUSR1)
            eventually(lambda: bool(status))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert status == [0]
