"""Waking: hints come although they are few, and an idle consumer asks seldom."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from queue_core import Connection, Queue
from queue_core.transport import Envelope
from queue_core.transports.sql.store import SqlStore

OpenStore = Callable[..., SqlStore]
MESSAGES = 150
LONG = 10.0
"""Seconds for which a claim waits."""


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that this process runs."""
    texts: list[str] = []
    execute = psycopg.Cursor.execute

    def noted(self: object, query: str, *args: object, **options: object) -> object:
        texts.append(query)
        return execute(self, query, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    return texts


@pytest.mark.parametrize("settles", [True, False], ids=["that settles", "that does not"])
def test_no_message_waits_for_the_end_of_a_claim(
    postgres_broker: str, open_store: OpenStore, settles: bool
) -> None:
    """Put at random moments, many within ten milliseconds of the last hint."""
    waiting, putting = open_store(postgres_broker), open_store(postgres_broker)
    waiting.open_session("s", 30.0)
    put_at: dict[str, float] = {}
    taken_at: dict[str, float] = {}

    def put() -> None:
        rng = random.Random(7)
        for number in range(MESSAGES):
            put_at[str(number)] = time.monotonic()
            putting.put([Envelope("q", str(number), b"", b"")], {})
            time.sleep(rng.choice([0.0, 0.001, 0.004, 0.008, 0.02]))

    putter = threading.Thread(target=put)
    putter.start()
    done: list[object] = []
    for number in itertools.count():
        answer = waiting.claim("s", f"r{number}", {"q": 10}, LONG, settle=done)
        done = [claim.token for claim in answer.claims] if settles else []
        for claim in answer.claims:
            taken_at[claim.id] = time.monotonic()
        if len(taken_at) == MESSAGES:
            break
        assert answer.claims, f"{LONG} s without a message"
    putter.join()
    delays = sorted(taken_at[name] - put_at[name] for name in put_at)
    assert delays[len(delays) // 2] < 0.4
    assert delays[-1] < LONG / 2


def test_a_message_that_comes_to_a_waiting_claim_costs_it_one_statement(
    postgres_broker: str, open_store: OpenStore, statements: list[str]
) -> None:
    """It was told that nothing is left, so it does not look before it waits."""
    waiting, putting = open_store(postgres_broker), open_store(postgres_broker)
    waiting.open_session("s", 30.0)
    for number in range(3):
        assert not waiting.claim("s", f"r{number}", {"q": 10}, 0.1).claims
    statements.clear()
    putter = threading.Timer(0.2, putting.put, ([Envelope("q", "1", b"", b"")], {}))
    putter.start()
    assert waiting.claim("s", "last", {"q": 10}, 20.0).claims
    putter.join()
    assert len([text for text in statements if "SKIP LOCKED" in text]) == 1


def test_an_idle_consumer_asks_the_server_less_than_three_times_a_second(
    postgres_broker: str, statements: list[str]
) -> None:
    with Connection(postgres_broker) as connection:
        queue = connection.declare(Queue("idle"))
        with connection.consumer(queue, prefetch=10) as consumer:
            assert consumer.receive(timeout=1.0) is None
            statements.clear()
            begun, used = time.monotonic(), time.process_time()
            assert consumer.receive(timeout=5.0) is None
            assert len(statements) < 3 * (time.monotonic() - begun), statements
            assert time.process_time() - used < 0.01 * 5
