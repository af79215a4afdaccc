"""Handles on a fresh SQLite store, and other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queue_core.transport import SessionOptions
from queue_core.transports.sql import open_store
from queue_core.transports.sql.store import SqlStore
from queue_core.url import parse

OpenStore = Callable[..., SqlStore]
Program = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def open_handle(path: Path) -> Iterator[OpenStore]:
    """Open handles on the test's file; they are closed at the end."""
    stores = []

    def open_one(options: str = "", file: Path = path) -> SqlStore:
        url = parse(f"sqlite:///{file}{options}")
        stores.append(open_store(url, SessionOptions()))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def program() -> Iterator[Program]:
    """Start a function of ``programs.py`` in another process; the test's end is its end."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: object, ready: bool = True) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("programs.py")),
                name,
                *map(str, arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        if ready:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Run a function in a forked child; returns its pid, and kills it at the end if need be."""
    children: list[int] = []

    def start(function: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            try:
                function()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
        return child

    yield start
    for child in children:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
