"""Queues that hold too much for one step: purged and deleted in many, whoever does them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from queue_core.emulation import EmulatedSession, StoreTransport, shredding
from queue_core.emulation.entries import q
from queue_core.errors import ConnectTimeout, QueueNotFound
from queue_core.state.queues import CLAIMED
from queue_core.testing.clocks import FakeClock
from queue_core.topology import Exchange, Queue
from queue_core.transport import SessionOptions, Shredder
from queue_core.transports.memory import FEATURES, MemoryBroker, MemoryStore
from queue_core.url import parse
from tests.unit.emulation.stores import ack, bodies, publication, send

STEP = 3
MANY = [b"%d" % number for number in range(20)]


class ShreddingStore(MemoryStore):
    """A memory store that deletes three messages in a step."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def shred(self, queue: str, versions: Mapping[str, int]) -> int:
        self.before()
        with self.step() as state:
            if state.stale_entries(versions) or queue not in state.queues:
                return 0
            found = state.queues[queue].ids.values()
            some = [message for message in found if message.state != CLAIMED][:STEP]
            for message in some:
                state.forget(message)
            return len(some)


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.broker = MemoryBroker(self.clock)
        self.store = ShreddingStore(self.broker)
        self.transport = StoreTransport(
            "memory", FEATURES, lambda url, options: ShreddingStore(self.broker)
        )

    def open(self) -> EmulatedSession:
        options = SessionOptions(lease=10.0, keeper=False, clock=self.clock)
        return self.transport.open(parse("memory://bench"), options)

    def messages(self) -> int:
        return sum(len(queue.ids) for queue in self.broker.queues.values())

    def rests(self) -> list[str]:
        return [name for name in self.store.sessions() if name.startswith("rest:")]

    def pass_time(self, seconds: float, session: EmulatedSession) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)
            session.tick()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(shredding, "LARGE", 5)
    made = Bench()
    assert isinstance(made.store, Shredder)
    return made


@pytest.fixture
def session(bench: Bench) -> Iterator[EmulatedSession]:
    made = bench.open()
    made.declare(Queue("q", exchange=Exchange("x"), routing_key="k"))
    send(made, "q", *MANY)
    yield made
    made.close()


def in_between(
    monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *, step: int = 1
) -> list[int]:
    """Do something before a step; the list gets one more item with each step."""
    steps: list[int] = []

    def before() -> None:
        steps.append(len(steps))
        if len(steps) == step:
            what()

    monkeypatch.setattr(ShreddingStore, "before", staticmethod(before))
    return steps


def test_a_purge_takes_many_steps_and_counts_them_all(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = in_between(monkeypatch, lambda: None)
    assert session.purge("q") == len(MANY)
    assert len(steps) == 5, "three at a time, until the last five"
    assert bench.messages() == 0


def test_a_purge_ends_although_others_publish_as_fast(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bench.open()

    def publish() -> None:
        send(other, "q", *MANY[:STEP])

    monkeypatch.setattr(ShreddingStore, "before", staticmethod(publish))
    assert session.purge("q") >= len(MANY)
    other.close()


def test_a_purge_that_takes_too_long_says_how_far_it_came(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_between(monkeypatch, lambda: bench.clock.advance(11.0), step=2)
    with pytest.raises(ConnectTimeout, match="6 messages of queue 'q' were deleted in time"):
        session.purge("q", timeout=10.0)
    assert session.inspect("q").ready == len(MANY) - 6


def test_a_large_queue_is_gone_before_its_messages_are(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bench.open()
    seen: list[object] = []

    def look() -> None:
        (outcome,) = other.publish([publication("q", mandatory=True)])
        seen.append(outcome.status)
        (outcome,) = other.publish([publication("k", exchange="x", mandatory=True)])
        seen.append(outcome.status)
        seen.append(session.delete(Queue("q")))
        with pytest.raises(QueueNotFound):
            other.inspect("q")
        with pytest.raises(QueueNotFound):
            other.subscribe("late", "q", prefetch=1)
        with pytest.raises(QueueNotFound):
            other.declare(Queue("q"), passive=True)

    steps = in_between(monkeypatch, look, step=3)
    assert session.delete(Queue("q"))
    assert seen == ["unroutable", "unroutable", False]
    assert len(steps) == 8
    assert bench.messages() == 0
    assert not bench.rests()
    assert q("q") not in bench.store.read_table()
    other.close()


def test_a_small_queue_takes_no_more_than_one_step(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.declare(Queue("small"))
    send(session, "small", *MANY[:5])
    steps = in_between(monkeypatch, lambda: None)
    assert session.delete(Queue("small"))
    assert not steps


def test_what_there_was_no_time_for_is_left_to_the_keeper(
    bench: Bench, session: EmulatedSession
) -> None:
    assert session.delete(Queue("q"), timeout=0.0)
    assert bench.messages() == len(MANY) - STEP
    session.tick()
    assert bench.messages() == len(MANY) - 2 * STEP, "one step a round: heartbeats come between"
    bench.pass_time(5.0, session)
    assert bench.messages() == 0
    assert not bench.rests()


def test_others_finish_what_a_dead_process_has_begun(
    bench: Bench, session: EmulatedSession
) -> None:
    victim = bench.open()
    send(session, "q", b"more")
    assert victim.delete(Queue("q"), timeout=0.0)
    assert bench.messages() > 0
    bench.pass_time(5.0, session)
    assert bench.messages() > 0, "its lease is not over"
    bench.pass_time(20.0, session)
    assert bench.messages() == 0
    assert not bench.rests()
    assert q("q") not in bench.store.read_table()


def test_closing_does_not_wait_for_it(bench: Bench, session: EmulatedSession) -> None:
    other = bench.open()
    assert other.delete(Queue("q"), timeout=0.0)
    other.close()
    assert bench.messages() == len(MANY) - 2 * STEP
    assert bench.rests()


def test_a_queue_declared_anew_is_empty_and_loses_nothing_to_the_deletion_before(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bench.open()

    def declare() -> None:
        other.declare(Queue("q"))
        assert other.inspect("q").ready == 0
        send(other, "q", b"new", b"newer")

    in_between(monkeypatch, declare, step=3)
    assert session.delete(Queue("q"))
    bench.pass_time(30.0, session)
    assert session.inspect("q").ready == 2
    assert not bench.rests()
    other.close()


def test_a_declaration_that_has_no_time_for_the_rest_says_so(
    bench: Bench, session: EmulatedSession
) -> None:
    assert session.delete(Queue("q"), timeout=0.0)
    with pytest.raises(ConnectTimeout, match="deleted a moment ago"):
        session.declare(Queue("q"), timeout=0.0)
    session.declare(Queue("q"))
    assert session.inspect("q").ready == 0


def test_what_consumers_hold_goes_with_the_queue_and_they_hear_of_it(
    bench: Bench, session: EmulatedSession
) -> None:
    consumer = bench.open()
    consumer.subscribe("c", "q", prefetch=2)
    held = consumer.receive("c", wait=0)
    assert bodies(held) == MANY[:2]
    ack(consumer, held[:1])
    assert session.delete(Queue("q"))
    assert bench.messages() == 0
    bench.pass_time(5.0, consumer)
    with pytest.raises(QueueNotFound):
        consumer.receive("c", wait=0)
    consumer.close()


def test_a_deletion_that_was_called_off_leaves_the_queue_as_it_is(
    bench: Bench, session: EmulatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.declare(Queue("auto", auto_delete=True))
    send(session, "auto", *MANY)
    session.subscribe("c", "auto", prefetch=1)
    other = bench.open()
    is_large = shredding.is_large

    def saved(store: ShreddingStore, queue: str) -> bool:
        found = is_large(store, queue)
        other.declare(Queue("auto", auto_delete=True))  # a new version: the deletion starts over
        return found

    monkeypatch.setattr("queue_core.emulation.declaring.is_large", saved)
    session.cancel("c")
    assert session.inspect("auto").ready == len(MANY)
    assert not bench.rests()
    monkeypatch.undo()
    other.close()
