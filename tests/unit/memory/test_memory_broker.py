"""What the memory transport promises beyond the contract: names, clock, waits, bounded memory."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid

import pytest

from queue_core.errors import ConfigError
from queue_core.policy import SystemClock
from queue_core.testing.clocks import FakeClock
from queue_core.testing.eventually import eventually
from queue_core.topology import Queue
from queue_core.transport import Counts, Envelope, Limit, SessionOptions
from queue_core.transports.memory import MemoryBroker, MemoryBrokers, MemoryStore, transport
from queue_core.url import parse


def open_store(broker: MemoryBroker) -> MemoryStore:
    store = MemoryStore(broker)
    store.open_session("s", 30.0)
    return store


def envelope(number: int, **fields: float) -> Envelope:
    return Envelope("q", str(number), b"body", b"", **fields)  # type: ignore[arg-type]  # floats


def test_brokers_of_different_names_share_nothing_and_handles_of_one_name_everything() -> None:
    brokers = MemoryBrokers()
    options = SessionOptions()
    one = brokers.open(parse("memory://one"), options)
    same = brokers.open(parse("memory://one"), options)
    two = brokers.open(parse("memory://two"), options)
    one.put([envelope(1)], {})
    assert same.inspect("q").ready == 1
    assert two.inspect("q").ready == 0


def test_no_name_is_the_name_default() -> None:
    brokers = MemoryBrokers()
    brokers.open(parse("memory://"), SessionOptions()).put([envelope(1)], {})
    assert brokers.open(parse("memory://default"), SessionOptions()).inspect("q").ready == 1


def test_a_new_broker_takes_the_clock_of_the_connection_that_opened_it() -> None:
    clock = FakeClock()
    store = MemoryBrokers().open(parse("memory://"), SessionOptions(clock=clock))
    store.put([envelope(1, delay=3600.0)], {})
    assert store.inspect("q").ready == 0
    clock.advance(3600.0)
    assert store.inspect("q").ready == 1


def test_an_unknown_option_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError, match="durable"):
        transport.check(parse("memory://name?durable=yes"))


def test_the_connections_of_a_process_see_one_another() -> None:
    url = parse(f"memory://{uuid.uuid4().hex}")
    one = transport.open(url, SessionOptions())
    two = transport.open(url, SessionOptions())
    try:
        one.declare(Queue("q"))
        assert two.inspect("q").ready == 0
    finally:
        one.close()
        two.close()


def test_a_wait_ends_in_real_time_though_the_clock_stands_still() -> None:
    store = open_store(MemoryBroker(FakeClock()))
    before = time.monotonic()
    assert not store.claim("s", "r", {"q": 1}, 0.1).claims
    assert 0.09 <= time.monotonic() - before < 10.0


def test_a_wait_ends_when_its_time_has_passed_on_the_clock() -> None:
    clock = FakeClock()
    store = open_store(MemoryBroker(clock))
    done = threading.Event()

    def wait() -> None:
        store.claim("s", "r", {"q": 1}, 60.0)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: store.broker.waiters)
    clock.advance(60.0)
    assert done.wait(30.0)
    thread.join()


def test_a_claim_that_cannot_use_a_wake_up_passes_it_on() -> None:
    broker = MemoryBroker()
    store, other = open_store(broker), MemoryStore(broker)
    other.open_session("t", 30.0)
    taken: list[str] = []

    def wait(session: str) -> None:
        answer = MemoryStore(broker).claim(session, "r", {"q": 1}, 30.0)
        taken.extend(claim.id for claim in answer.claims)

    first = threading.Thread(target=wait, args=("t",))
    first.start()
    eventually(lambda: len(broker.waiters.get("q", ())) == 1)
    second = threading.Thread(target=wait, args=("s",))
    second.start()
    eventually(lambda: len(broker.waiters.get("q", ())) == 2)
    before = time.monotonic()
    with broker.lock:
        # Before the first waiter can run: it is woken for a message that it may not take.
        broker.append(envelope(1), broker.clock.monotonic())
        del broker.sessions["t"]
    first.join(40.0)
    second.join(40.0)
    assert taken == ["1"]
    assert time.monotonic() - before < 15.0
    assert not broker.waiters
    store.close()


def test_what_is_settled_long_before_its_ttl_is_not_kept_until_then() -> None:
    broker = MemoryBroker(FakeClock())
    store = open_store(broker)
    for number in range(2000):
        store.put([envelope(number, ttl=3600.0)], {})
        (claim,) = store.claim("s", str(number), {"q": 1}, 0).claims
        store.put([], {}, settle=[claim.token])
    assert len(broker.expiry.entries) < 200


def test_what_expires_in_a_queue_without_consumer_is_not_kept() -> None:
    clock = FakeClock()
    broker = MemoryBroker(clock)
    store = open_store(broker)
    store.put([envelope(0)], {})
    for number in range(1, 2000):
        store.put([envelope(number, ttl=1.0)], {})
        clock.advance(1.0)
        (claim,) = store.collect("s", 10)
        store.put([], {}, settle=[claim.token])
    assert sum(len(level.entries) for level in broker.queues["q"].levels.values()) < 200


def test_what_is_purged_while_delayed_is_not_kept() -> None:
    broker = MemoryBroker(FakeClock())
    store = open_store(broker)
    for number in range(2000):
        store.put([envelope(number, delay=3600.0)], {})
        store.purge("q")
    queue = broker.queues["q"]
    assert len(queue.due.entries) < 200
    assert sum(len(level.entries) for level in queue.delayed_levels.values()) < 200


def test_overwritten_keys_with_a_ttl_are_not_kept_until_then() -> None:
    broker = MemoryBroker(FakeClock())
    store = open_store(broker)
    for _ in range(2000):
        store.key_set("k", b"v", ttl=3600.0)
    assert len(broker.key_expiry) < 200


def test_a_claim_does_not_look_at_the_rest_of_a_deep_queue() -> None:
    broker = MemoryBroker(FakeClock())
    store = open_store(broker)
    times = []
    for depth in (1_000, 64_000):
        store.put([envelope(number) for number in range(depth)], {})
        durations = []
        for number in range(20):
            before = time.thread_time()
            store.claim("s", str(number), {"q": 10}, 0)
            durations.append(time.thread_time() - before)
        times.append(min(durations))
        store.write_table([], drop=["q"])
    assert times[1] < 10 * times[0], "64 times as deep, and it takes more than 10 times as long"


def test_a_large_surplus_dies_in_some_puts_lest_others_wait_for_it() -> None:
    store = open_store(MemoryBroker())
    store.put([envelope(number) for number in range(25_000)], {})
    lengths = []
    for number in (25_001, 25_002, 25_003):
        store.put([envelope(number)], {}, limits={"q": Limit(5, "drop-head")})
        lengths.append(store.inspect("q").ready)
    assert lengths == [15_001, 5_002, 5]
    assert store.claim("s", "r", {"q": 9}, 0.0).claims[-1].id == "25003"


def test_a_forked_child_has_brokers_of_its_own_whatever_its_parent_was_doing() -> None:
    brokers = MemoryBrokers()
    url = parse("memory://orders")
    store = brokers.open(url, SessionOptions())
    store.put([envelope(1)], {})
    with brokers.get("orders", SystemClock()), brokers._brokers.get().lock:  # as threads may
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(10)
                mine = brokers.open(url, SessionOptions())
                mine.put([envelope(2)], {})
                code = 0 if mine.inspect("q") == Counts(ready=1) else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.inspect("q") == Counts(ready=1)
