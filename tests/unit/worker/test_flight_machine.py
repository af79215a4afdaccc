"""Messages, sessions that end, a pool and revokes in any order, against a model of the outcomes.

Nothing here is real but the consumer, the strategies and the requests: the broker, the pool and the
settler are a page of test. What must hold: a message that nobody revoked and whose process did not
die runs once, however often it is delivered; none is lost; and no delivery is settled twice.
"""

from __future__ import annotations

from collections import Counter, deque

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_core import Properties
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.control.telling import revoke
from queue_core.worker.outcome import (
    AppInfo,
    Crashed,
    Done,
    Returned,
    Skipped,
    TaskInfo,
)
from queue_core.worker.runner import Worker, WorkerOptions
from tests.unit.worker.manual_pool import ManualPool

NAME = "work"


class Reader:
    home = "nowhere:reader"


class Delivered:
    """One delivery of one message."""

    exchange = routing_key = ""
    queue = "q"
    raw = b""
    properties = Properties()
    reader = Reader()

    def __init__(self, broker, task_id, redelivered):
        self.broker, self.task_id, self.redelivered = broker, task_id, redelivered
        self.session = broker.session
        self.body = task_id.encode()
        self.attempts = 0
        self.settled = False

    @property
    def delivery(self):
        return self

    @property
    def stale(self):
        return self.session != self.broker.session

    def find_headers(self, names):
        return {"task": NAME, "id": self.task_id}


class Broker:
    """A queue, and what is delivered in the session of now."""

    def __init__(self):
        self.session = 0
        self.queue = deque()
        self.held = {}
        self.gone = {}

    def deliver(self):
        task_id, redelivered = self.queue.popleft()
        message = self.held[task_id] = Delivered(self, task_id, redelivered)
        return message

    def lose_session(self):
        self.session += 1
        self.queue.extend((task_id, True) for task_id in self.held)
        self.held.clear()


class Settler:
    """Settles at once; what is stale is lost."""

    can_delay, idle = True, True

    def __init__(self, broker):
        self.broker = broker

    def settle(self, message, outcome):
        if message.stale:
            return
        assert not message.settled, "settled twice"
        message.settled = True
        assert self.broker.held.pop(message.task_id) is message
        if isinstance(outcome, Returned | Crashed):
            self.broker.queue.append((message.task_id, isinstance(outcome, Crashed)))
        else:
            assert message.task_id not in self.broker.gone
            self.broker.gone[message.task_id] = outcome


class Machine(RuleBasedStateMachine):
    """What may happen, and what must hold."""

    @initialize()
    def begin(self):
        self.pool = ManualPool()
        self.worker = Worker(self.pool, WorkerOptions(broker="memory://"))
        self.worker._info = AppInfo("m", [TaskInfo(NAME)])
        self.consumer = self.worker.consumer = TaskConsumer(self.worker)
        self.broker = Broker()
        self.consumer.settler = self.worker.in_flight.settler = Settler(self.broker)
        self.pool.report = self.worker.in_flight.report
        self.numbers = 0
        self.starts = Counter()
        self.died, self.revoked = set(), set()

    def teardown(self):
        if hasattr(self, "pool"):
            while self.broker.queue or self.pool.waiting or self.pool.running:
                if self.broker.queue:
                    self.take()
                elif self.pool.waiting:
                    self.start()
                else:
                    self.finish(0)
            assert not self.broker.held and not self.worker.in_flight.all()
            assert len(self.broker.gone) == self.numbers
            for task_id, outcome in self.broker.gone.items():
                assert isinstance(outcome, Skipped) <= (task_id in self.revoked)
            self.worker._signals.close()

    @rule()
    def publish(self):
        self.broker.queue.append((f"t{self.numbers}", False))
        self.numbers += 1

    @precondition(lambda self: self.broker.queue)
    @rule()
    def take(self):
        self.consumer.take(self.broker.deliver(), None)

    @precondition(lambda self: self.pool.waiting)
    @rule()
    def start(self):
        job = self.pool.waiting.popleft()
        task_id = job.body.decode()
        self.starts[task_id] += 1
        self.pool.running.append(job)

    @precondition(lambda self: self.pool.running)
    @rule(which=st.integers(0, 10))
    def finish(self, which):
        job = self.pool.running[which % len(self.pool.running)]
        self.pool.end(job.ticket, Done(b"", 0.1))

    @precondition(lambda self: self.pool.running)
    @rule(which=st.integers(0, 10))
    def die(self, which):
        job = self.pool.running[which % len(self.pool.running)]
        self.died.add(job.body.decode())
        self.pool.end(job.ticket, Crashed("SIGKILL"))

    @rule()
    def lose_session(self):
        self.broker.lose_session()

    @precondition(lambda self: self.pool.running)
    @rule(which=st.integers(0, 10))
    def finish_when_the_ack_is_lost(self, which):
        self.broker.lose_session()
        self.finish(which)

    @precondition(lambda self: self.numbers)
    @rule(which=st.integers(0, 30), terminate=st.booleans())
    def revoke(self, which, terminate):
        task_id = f"t{which % self.numbers}"
        self.revoked.add(task_id)
        revoke(self.consumer, [task_id], terminate)

    @invariant()
    def nothing_runs_twice(self):
        if hasattr(self, "pool"):
            now = Counter(job.body for job in self.pool.running)
            assert all(count == 1 for count in now.values()), now
            for task_id, count in self.starts.items():
                assert count == 1 or task_id in self.died | self.revoked, (task_id, count)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFlights = Machine.TestCase
