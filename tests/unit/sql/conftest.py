"""Handles on a fresh SQLite store, and other processes."""

from __future__ import annotations

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

    def open_one(options: str = "", file: Path = path, **session: object) -> SqlStore:
        url = parse(f"sqlite:///{file}{options}")
        stores.append(open_store(url, SessionOptions(**session)))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def program() -> Iterator[Program]:
    """Start a function of ``programs.py`` in another process; killed at the end if it still runs."""
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
