"""A waiting consumer is woken at once, costs next to nothing, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from queue_core.interrupt import Interrupt
from queue_core.testing.eventually import eventually
from queue_core.transport import Envelope
from queue_core.transports.sql.store import SqlStore
from queue_core.transports.sql.wakeup import Wakeup


def _latencies(producer: SqlStore, consumer: SqlStore, count: int) -> list[float]:
    """Put messages for a waiting consumer; return the seconds from put to answer."""
    taken: list[float] = []
    waiting = threading.Event()

    def consume() -> None:
        while len(taken) < count:
            waiting.set()
            claims = consumer.claim("s", f"r{time.monotonic_ns()}", {"q": 1}, 1.0).claims
            taken.extend([time.perf_counter()] * len(claims))

    consumer.open_session("s", 30.0)
    thread = threading.Thread(target=consume)
    thread.start()
    put = []
    for number in range(count):
        waiting.wait(20.0)
        waiting.clear()
        time.sleep(0.03)
        producer.put([Envelope("q", str(number), b"", b"")], {})
        put.append(time.perf_counter())
        deadline = time.monotonic() + 20.0
        while len(taken) <= number and time.monotonic() < deadline:
            time.sleep(0.001)
    thread.join(30.0)
    return [after - before for before, after in zip(put, taken, strict=True)]


def test_a_hint_wakes_a_consumer_within_milliseconds(open_handle: Any) -> None:
    latencies = _latencies(open_handle(), open_handle("?poll=1"), 20)
    assert sorted(latencies)[5] < 0.02, latencies


def test_without_hints_the_consumer_looks(open_handle: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("queue_core.transports.sql.wakeup.Wakeup.notify", lambda *_: None)
    latencies = _latencies(open_handle(), open_handle("?poll=20ms"), 5)
    assert statistics.median(latencies) < 0.4, latencies


def test_a_deep_directory_has_hints_too(open_handle: Any, tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    producer, consumer = (open_handle("?poll=1", deep / "queue.db") for _ in range(2))
    assert sorted(_latencies(producer, consumer, 5))[1] < 0.05


def test_without_sockets_the_consumer_looks_more_often(open_handle: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("queue_core.transports.sql.wakeup.Wakeup._address", lambda *_: None)
    latencies = _latencies(open_handle(), open_handle("?poll=1"), 5)
    assert sorted(latencies)[1] < 0.1, latencies


def test_a_message_for_another_queue_wakes_nobody(open_handle: Any) -> None:
    producer, consumer = open_handle(), open_handle()
    consumer.open_session("s", 30.0)
    timer = threading.Timer(0.1, producer.put, ([Envelope("other", "a", b"", b"")], {}))
    timer.start()
    before = time.monotonic()
    assert not consumer.claim("s", "r", {"q": 1}, 0.4).claims
    assert 0.4 <= time.monotonic() - before < 5.0
    timer.join()


def test_a_delayed_message_comes_when_it_is_due(open_handle: Any) -> None:
    producer, consumer = open_handle(), open_handle()
    consumer.open_session("s", 30.0)
    before = time.time()
    timer = threading.Timer(0.1, producer.put, ([Envelope("q", "a", b"", b"", delay=0.2)], {}))
    timer.start()
    (claim,) = consumer.claim("s", "r", {"q": 1}, 20.0).claims
    assert claim.id == "a"
    assert 0.3 <= time.time() - before < 10.0
    timer.join()


@pytest.mark.slow
def test_an_idle_consumer_costs_less_than_a_hundredth_of_a_processor(
    path: Path, open_handle: Any, program: Any
) -> None:
    open_handle()
    used: list[float] = []
    while len(used) < 4 and min(used, default=1.0) >= 0.03:
        consumer = program("wait_for_messages", path, 3.0)
        used.append(float(consumer.communicate("go\n", timeout=30)[0]))
    assert min(used) < 0.03, f"{used} CPU seconds in 3 s"


@pytest.mark.slow
def test_an_idle_consumer_makes_less_than_three_round_trips_a_second(open_handle: Any) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    statements: list[str] = []
    store._dialect._raw.set_trace_callback(statements.append)
    for number in range(3):
        store.claim("s", f"r{number}", {"q": 10}, 1.0)
    store._dialect._raw.set_trace_callback(None)
    looks = [text for text in statements if "queue_core_message" in text]
    # The first look, and one more after the consumer has asked for hints: two a second.
    assert len(looks) <= 6
    assert not [text for text in statements if text.startswith("BEGIN")], "an empty claim wrote"


@pytest.mark.slow
def test_a_killed_consumer_leaves_no_socket_that_troubles_others(
    path: Path, open_handle: Any, program: Any
) -> None:
    store = open_handle()
    side = f"{path}-side"
    consumer = program("listen", path)
    eventually(lambda: len(os.listdir(side)) == 4, what="the gate's two, a socket and its link")
    consumer.send_signal(signal.SIGKILL)
    consumer.wait()
    time.sleep(0.06)
    store.put([Envelope("q", "a", b"", b"")], {})
    assert sorted(os.listdir(side)) == ["gate-a", "gate-b"]


def test_a_consumer_that_was_killed_while_busy_is_cleared_away_by_the_next(
    path: Path, open_handle: Any
) -> None:
    busy, other = open_handle(), open_handle()
    for store in (busy, other):
        store.open_session("s", 30.0)
    busy.claim("s", "r1", {"q": 1}, 0.05)
    ear = f"ear.{busy._dialect._wakeup._name}"
    assert ear in os.listdir(f"{path}-side")
    busy._dialect._wakeup._ear.close()  # what the kernel does when the process dies
    other.claim("s", "r2", {"q": 1}, 0.05)
    assert ear not in os.listdir(f"{path}-side")


def test_closing_removes_the_socket(path: Path, open_handle: Any) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    store.claim("s", "r", {"q": 1}, 0.05)
    store.close()
    assert sorted(os.listdir(f"{path}-side")) == ["gate-a", "gate-b"]


def test_one_message_wakes_only_some_of_many(open_handle: Any, monkeypatch: Any) -> None:
    stores = [open_handle("?poll=1") for _ in range(6)]
    stores[0].open_session("s", 30.0)
    looks: list[int] = []

    def claim(number: int) -> None:
        statements: list[str] = []
        stores[number]._dialect._raw.set_trace_callback(statements.append)
        stores[number].claim("s", f"r{number}", {"q": 1}, 2.0)
        looks.append(sum("count" not in s and "min(" in s for s in statements))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)  # between their look after a second and the end of their wait
    stores[0].put([Envelope("q", "a", b"", b"")], {})
    for thread in threads:
        thread.join(30)
    assert sorted(looks).count(2) >= 3, f"those who slept on looked twice: {looks}"


@pytest.mark.parametrize("wait", [0.0, 0.2])
def test_an_empty_claim_takes_as_long_as_it_was_told(open_handle: Any, wait: float) -> None:
    store = open_handle()
    store.open_session("s", 30.0)
    before = time.monotonic()
    assert not store.claim("s", "r", {"q": 1}, wait).claims
    assert wait <= time.monotonic() - before < wait + 3.0


def test_hints_that_a_standing_process_has_no_room_for_go_to_the_others(tmp_path: Path) -> None:
    voice, awake, *standing = (Wakeup(str(tmp_path), 1.0) for _ in range(5))
    interrupt = Interrupt()
    for ear in (awake, *standing):
        ear.listen(["q"])
    for _ in range(200):
        voice.notify(["q"])  # until all ears are full
    awake.wait(60.0, interrupt)
    for _ in range(30):
        voice.notify(["q"])
        assert awake.wait(5.0, interrupt)
    for one in (voice, awake, *standing):
        one.close()
    interrupt.close()
