"""How long PostgreSQL's answers are waited for: for silence, not for what is still coming."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg.waiting import Wait

from queue_core.transports.sql.postgresql_server import Link

PATIENCE = 2.0
PAUSE = 0.7
PARTS = 5

Reading = Callable[[float], str]


@pytest.fixture
def read() -> Generator[Reading]:
    """Read an answer, of which a part comes after each pause, with so many seconds to the end."""
    server, client = socket.socketpair()
    over = threading.Event()

    def answer() -> None:
        for _ in range(PARTS):
            if over.wait(PAUSE):
                return
            server.send(b"x")

    def parts() -> Generator[Wait, int, str]:
        for _ in range(PARTS):
            yield Wait.R
            client.recv(1)
        return "all of it"

    def run(left: float) -> str:
        status = psycopg.pq.TransactionStatus.IDLE
        connection = SimpleNamespace(socket=client.fileno(), transaction_status=status)
        until = math.inf if left == math.inf else time.monotonic() + left
        link = SimpleNamespace(pgconn=connection, patience=PATIENCE, until=until)
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            found: str = Link.wait(cast(Any, link), parts())
            return found
        finally:
            over.set()
            thread.join()

    yield run
    server.close()
    client.close()


@pytest.mark.parametrize("left", [math.inf, PATIENCE])
def test_an_answer_that_keeps_coming_is_read_to_its_end(read: Reading, left: float) -> None:
    """Else a claim of more than the line carries in that time would be repeated for ever."""
    assert read(left) == "all of it"


def test_silence_is_given_up(read: Reading) -> None:
    with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
        read(-1.0)
