"""A hypothesis state machine for sessions: random use of a transport against sets of message ids.

The model knows for every message whether it waits, is held by a consumer, is in limbo (its holder
crashed, and it will come back some time), was acked, or is dead. After each step and at the end it
must be true that

- nothing is lost and nothing invented: what can still be received is what was neither acked nor
  rejected (conservation);
- no consumer holds more than its prefetch, and no message is held twice;
- an acked or rejected message never comes again; a stale settlement changes nothing and says so;
- rejected messages, and no others, are in the dead-letter queue.

Subclass `SessionMachine` with ``suite`` (how the transport is: see `SessionTests`) and
``open_session``, and hand its ``TestCase`` to pytest. With ``suite.strict`` counts are compared
after each step; without, only at the end. A crash takes a lease of real time at the end of an
example, so keep ``lease`` short or the examples few.
"""
# ruff: noqa: D102 - rules are named by what they do

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from queue_core.errors import StaleDelivery
from queue_core.message import Delivery
from queue_core.policy import Deadline, SystemClock
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.testing.session_tap import Tap
from queue_core.topology import Queue
from queue_core.transport import Session

MACHINE_SETTINGS = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
"""For a start: examples that wait for leases and brokers take their time."""

_index = st.integers(min_value=0, max_value=11)


class _Consumer:
    """A tap, and what the model says it holds."""

    def __init__(self, tap: Tap, queue: Queue, prefetch: int) -> None:
        self.tap = tap
        self.queue = queue
        self.prefetch = prefetch
        self.holds: dict[bytes, Delivery] = {}
        self.unflushed = False


class SessionMachine(RuleBasedStateMachine):
    """Publish, consume, settle, cancel, crash and close, in any order.

    Attributes:
        suite: what the transport says about itself, and how its sessions crash.
    """

    suite: ClassVar[SessionTests] = SessionTests()

    def open_session(self, **options: Any) -> Session:
        """Open a session to the broker; ``options`` are fields of `SessionOptions`."""
        raise NotImplementedError(f"{type(self).__name__} needs open_session()")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(self.suite, self.open_session)
        self.queues: list[Queue] = []
        self.grave: Queue | None = None
        self.sessions: list[Session] = []
        self.consumers: list[_Consumer] = []
        self.waiting: dict[str, set[bytes]] = {}
        self.limbo: set[bytes] = set()
        self.dead: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.home: dict[bytes, str] = {}
        self.stale: list[tuple[Tap, Delivery]] = []
        self.count = 0

    @initialize()
    def declare(self) -> None:
        dead = self.bench.exchange("fanout")
        self.grave = self.bench.queue((dead, "")) if self.bench.features.dead_letter else None
        target = dead if self.grave else None
        self.queues = [self.bench.queue(dead_letter_exchange=target) for _ in range(2)]
        self.waiting = {queue.name: set() for queue in self.queues}

    # rules

    @precondition(lambda self: len(self.sessions) < 3)
    @rule()
    def open(self) -> None:
        self.sessions.append(self.bench.open_mortal())

    @rule(queue=_index, count=st.integers(1, 4))
    def publish(self, queue: int, count: int) -> None:
        target = self.queues[queue % 2]
        bodies = [b"%d" % number for number in range(self.count, self.count + count)]
        self.count += count
        self.bench.send(target, *bodies)
        self.waiting[target.name].update(bodies)
        self.home.update(dict.fromkeys(bodies, target.name))

    @precondition(lambda self: self.sessions and len(self.consumers) < 4)
    @rule(session=_index, queue=_index, prefetch=st.integers(1, 4))
    def subscribe(self, session: int, queue: int, prefetch: int) -> None:
        target = self.queues[queue % 2]
        chosen = self.sessions[session % len(self.sessions)]
        tap = self.bench.tap(target, prefetch=prefetch, session=chosen)
        self.consumers.append(_Consumer(tap, target, prefetch))

    @precondition(lambda self: self.consumers)
    @rule(consumer=_index, limit=st.integers(1, 6))
    def receive(self, consumer: int, limit: int) -> None:
        chosen = self.consumers[consumer % len(self.consumers)]
        self.take(chosen, limit)

    @precondition(lambda self: any(consumer.holds for consumer in self.consumers))
    @rule(which=_index, count=st.integers(1, 3), flush=st.booleans())
    def ack(self, which: int, count: int, flush: bool) -> None:
        consumer = self.holder(which)
        for body in list(consumer.holds)[:count]:
            consumer.tap.ack(consumer.holds.pop(body), flush=flush)
            consumer.unflushed = not flush
            self.acked.add(body)

    @precondition(lambda self: any(consumer.holds for consumer in self.consumers))
    @rule(which=_index)
    def reject(self, which: int) -> None:
        consumer = self.holder(which)
        body, delivery = consumer.holds.popitem()
        consumer.tap.reject(delivery)
        consumer.unflushed = False
        self.dead.add(body)

    @precondition(lambda self: any(consumer.holds for consumer in self.consumers))
    @rule(which=_index, counted=st.booleans())
    def requeue(self, which: int, counted: bool) -> None:
        consumer = self.holder(which)
        body, delivery = consumer.holds.popitem()
        consumer.tap.requeue(delivery, counted=counted)
        consumer.unflushed = False
        self.waiting[consumer.queue.name].add(body)

    @precondition(lambda self: self.consumers)
    @rule(consumer=_index)
    def cancel(self, consumer: int) -> None:
        chosen = self.consumers.pop(consumer % len(self.consumers))
        chosen.tap.flush()
        chosen.tap.cancel()
        self.waiting[chosen.queue.name].update(chosen.holds)
        self.stale += [(chosen.tap, delivery) for delivery in chosen.holds.values()]

    @precondition(lambda self: self.stale)
    @rule(action=st.sampled_from(["ack", "reject", "requeue"]))
    def settle_what_is_stale(self, action: str) -> None:
        tap, delivery = self.stale.pop()
        try:
            tap.settle(delivery, action=action)
        except StaleDelivery:
            return
        raise AssertionError(f"a stale {action} was not reported")

    @precondition(lambda self: self.sessions)
    @rule(session=_index)
    def close(self, session: int) -> None:
        chosen = self.sessions.pop(session % len(self.sessions))
        chosen.close()
        for consumer in self.leave(chosen):
            self.waiting[consumer.queue.name].update(consumer.holds)

    @precondition(lambda self: self.sessions)
    @rule(session=_index)
    def crash(self, session: int) -> None:
        chosen = self.sessions.pop(session % len(self.sessions))
        for consumer in self.consumers:
            if consumer.tap.session is chosen:
                consumer.tap.flush()
        self.bench.crash(chosen)
        for consumer in self.leave(chosen):
            # It may have held more than it handed out.
            self.limbo.update(consumer.holds)
            self.limbo.update(self.waiting[consumer.queue.name])
            self.waiting[consumer.queue.name].clear()

    # checks

    @invariant()
    def nobody_holds_more_than_the_prefetch(self) -> None:
        for consumer in self.consumers:
            assert len(consumer.holds) <= consumer.prefetch

    @invariant()
    def the_counts_are_those_of_the_model(self) -> None:
        if not self.suite.strict or any(consumer.unflushed for consumer in self.consumers):
            return
        for queue in self.queues:
            info = self.bench.session.inspect(queue.name)
            if info.unacked is None:
                continue
            held = {body for c in self.consumers if c.queue is queue for body in c.holds}
            limbo = {body for body in self.limbo if self.home[body] == queue.name}
            expected = len(self.waiting[queue.name]) + len(held) + len(limbo)
            assert info.ready + info.unacked == expected, (info, self.waiting[queue.name], held)

    def teardown(self) -> None:
        try:
            if self.queues:
                self.drain()
        finally:
            self.bench.close()

    def drain(self) -> None:
        """End every consumer, then receive what is left: all of it, and nothing else."""
        for consumer in self.consumers:
            consumer.tap.flush()
            consumer.tap.cancel()
            self.waiting[consumer.queue.name].update(consumer.holds)
        self.consumers = []
        last = [
            _Consumer(self.bench.tap(queue, prefetch=1000), queue, 1000) for queue in self.queues
        ]
        patience = self.suite.patience + (self.suite.lease if self.limbo else 0.0)
        deadline = Deadline.after(patience, SystemClock())
        while (self.limbo or any(self.waiting.values())) and not deadline.expired:
            for consumer in last:
                self.take(consumer, 1000, wait=0.05)
        assert not self.limbo, f"did not come back within {patience} s"
        assert not any(self.waiting.values()), "lost"
        for consumer in last:
            consumer.tap.none()
            consumer.tap.ack(*consumer.holds.values())
            consumer.tap.cancel()
        if self.grave is not None:
            self.bench.expect(self.grave, self.dead, ordered=False)

    # helpers

    def take(self, consumer: _Consumer, limit: int, wait: float = 0.0) -> None:
        """Receive, and check that each message was there to be received."""
        got = consumer.tap.session.receive(consumer.tap.consumer, limit=limit, wait=wait)
        assert len(got) <= limit
        waiting = self.waiting[consumer.queue.name]
        for delivery in got:
            body = delivery.body
            assert body in waiting or body in self.limbo, self.story(body)
            assert self.home[body] == delivery.queue == consumer.queue.name
            waiting.discard(body)
            self.limbo.discard(body)
            consumer.holds[body] = delivery

    def story(self, body: bytes) -> str:
        """Say why nobody should have received ``body``."""
        if body in self.acked:
            return f"{body!r} came again after its ack"
        if body in self.dead:
            return f"{body!r} came again after its rejection"
        if body not in self.home:
            return f"{body!r} was never published"
        return f"{body!r} is held by another consumer, or waits elsewhere"

    def holder(self, which: int) -> _Consumer:
        """Choose one of the consumers that hold something."""
        holders = [consumer for consumer in self.consumers if consumer.holds]
        return holders[which % len(holders)]

    def leave(self, session: Session) -> list[_Consumer]:
        """Take the consumers of a session out of the model."""
        gone = [consumer for consumer in self.consumers if consumer.tap.session is session]
        self.stale = [item for item in self.stale if item[0].session is not session]
        self.consumers = [consumer for consumer in self.consumers if consumer not in gone]
        return gone
