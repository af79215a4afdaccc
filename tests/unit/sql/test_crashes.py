"""A process that dies at the worst moment loses nothing and strands nothing."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from queue_core.transport import Claimed, Envelope
from queue_core.transports.sql.store import SqlStore


class Mortal(SqlStore):
    """A handle whose process dies after the commit of a claim, before anybody sees the answer."""

    def claim(self, *args: Any, **options: Any) -> Claimed:
        super().claim(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives")


def _die_in_claim(open_handle: Any, session: str) -> None:
    store = open_handle()
    store.__class__ = Mortal
    store.open_session(session, 30.0)
    store.claim(session, "r", {"q": 3}, 0.0)


def _write_for_ever(open_handle: Any) -> None:
    store = open_handle()
    for number in itertools.count():
        store.key_set(f"key-{number % 50}", b"x" * 3000)


@pytest.mark.slow
def test_a_claim_whose_claimant_died_before_the_answer_loses_and_strands_nothing(
    path: Path, open_handle: Any, fork: Any
) -> None:
    store = open_handle()
    store.open_session("heir", 30.0)
    for round_ in range(100):
        ids = [f"{round_}-{number}" for number in range(3)]
        store.put([Envelope("q", name, b"", b"") for name in ids], {})
        child = fork(functools.partial(_die_in_claim, open_handle, f"victim-{round_}"))
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert store.inspect("q").claimed == 3, "the claim was committed"
        beats = store.sessions()[f"victim-{round_}"].beats
        assert store.end_session(f"victim-{round_}", beats)
        claims = store.claim("heir", f"r{round_}", {"q": 10}, 1.0).claims
        assert [claim.id for claim in claims] == ids
        assert {claim.attempts for claim in claims} == {2}
        store.put([], {}, settle=[claim.token for claim in claims])
    counts = store.inspect("q")
    assert (counts.ready, counts.delayed, counts.claimed) == (0, 0, 0)


def test_the_same_claim_repeated_after_a_restart_gets_its_answer(
    path: Path, open_handle: Any, fork: Any
) -> None:
    store = open_handle()
    store.put([Envelope("q", str(number), b"", b"") for number in range(5)], {})
    os.waitpid(fork(functools.partial(_die_in_claim, open_handle, "s")), 0)
    again = store.claim("s", "r", {"q": 3}, 0.0, repeat=True)
    assert [claim.id for claim in again.claims] == ["0", "1", "2"]
    assert {claim.attempts for claim in again.claims} == {1}
    assert len(store.owned("s")) == 3


@pytest.mark.slow
def test_writers_killed_at_any_moment_leave_a_sound_file(
    path: Path, open_handle: Any, fork: Any
) -> None:
    store = open_handle()
    for round_ in range(15):
        writers = [fork(functools.partial(_write_for_ever, open_handle)) for _ in range(2)]
        time.sleep(0.05 + 0.02 * round_)
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        before = time.monotonic()
        store.put([Envelope("q", str(round_), b"", b"")], {})
        assert time.monotonic() - before < 4.0
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert store.inspect("q").ready == 15


def test_a_forked_child_opens_a_connection_of_its_own(open_handle: Any) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.put([Envelope("q", "parents", b"", b"")], {})
    store.claim("s", "r0", {"none": 1}, 0.02)  # the parent has an open socket
    child = os.fork()
    if child == 0:
        code = 1
        try:
            (claim,) = store.claim("s", "r1", {"q": 1}, 0.0).claims
            store.put([Envelope("q", "childs", b"", b"")], {}, settle=[claim.token])
            store.close()
            code = 0 if claim.id == "parents" else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    (claim,) = store.claim("s", "r2", {"q": 1}, 20.0).claims
    assert claim.id == "childs"
    assert store._dialect._raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_child_that_only_inherits_a_handle_leaves_the_parents_files_alone(
    path: Path, open_handle: Any
) -> None:
    store, waiting = open_handle(), open_handle("?poll=1")
    waiting.open_session("s", 30.0)
    waiting.claim("s", "r0", {"q": 1}, 0.02)
    files = sorted(os.listdir(f"{path}-side"))
    assert len(files) == 3
    child = os.fork()
    if child == 0:
        store.close()
        waiting.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(os.listdir(f"{path}-side")) == files
    assert path.with_name("queue.db-wal").exists()
    store.put([Envelope("q", "a", b"", b"")], {})
    assert waiting.claim("s", "r1", {"q": 1}, 20.0).claims


def test_a_transaction_that_an_interrupt_left_open_is_rolled_back(open_handle: Any) -> None:
    store, other = open_handle(), open_handle("?timeout=0.5")
    store._dialect.begin(store._dialect.cursor(), lasting=True)
    store._dialect._raw.execute("INSERT INTO queue_core_meta VALUES ('half', 1)")
    assert store.inspect("q").ready == 0
    other.put([Envelope("q", "a", b"", b"")], {})
    rows = other._dialect._raw.execute("SELECT name FROM queue_core_meta").fetchall()
    assert ("half",) not in rows


def test_importing_the_transport_without_use_opens_nothing(tmp_path: Path) -> None:
    code = "import queue_core.transports.sql as t; t.check(__import__('queue_core.url').url.parse("
    code += "'sqlite:///nothing.db'))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
