"""A worker's own process through all kinds of faults, against a model of each message's fate.

What decides is real: signals, the consumer, strategies, requests, and the settler with what follows
tasks. The broker, the result store, the pool, threads and time are a page of test each: nothing
sleeps, and each step happens when the machine says so. Workers are stopped, forced and killed, and
others take their place.

What must hold: no message is lost, none is settled twice, a result is certain before its message is
gone, what follows a task is sent exactly once, a task runs again only for a reason that the model
knows, one that is acked early never does, and only who crashed is given up.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass
from functools import partial
from random import Random
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_core import Backoff, ConnectionLost, Properties, Publication, StaleDelivery
from queue_core.emulation import stored
from queue_core.message import Delivery, Message
from queue_core.worker import App, settler
from queue_core.worker.composing import composer_of
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.control.telling import revoke
from queue_core.worker.outcome import (
    Abandoned,
    AppInfo,
    Crashed,
    Done,
    Failed,
    Letter,
    Retried,
    Returned,
    TaskInfo,
    TimedOut,
)
from queue_core.worker.protocol import Call, task_body, task_headers
from queue_core.worker.runner import Worker, WorkerOptions
from queue_core.worker.sequel import Sequel
from queue_core.worker.settler import Settler
from tests.unit.worker.manual_pool import ManualPool

TASKS = {"late": TaskInfo("late"), "early": TaskInfo("early", acks_late=False)}
COMPOSER = composer_of(App("machine").info())


class World:
    """Time, and until when broker and result store are away."""

    def __init__(self):
        self.now = self.broker_back = self.store_back = 0.0
        self.alarms = []

    def wait(self, seconds):
        self.now += max(seconds, 0.01)
        due = [alarm for alarm in self.alarms if alarm.due <= self.now]
        self.alarms = [alarm for alarm in self.alarms if alarm not in due]
        for alarm in due:
            alarm.call()


class Later:
    """The settler's timer, in this world."""

    def __init__(self, world):
        self.world = world
        self.stopped = False

    def start(self):
        return None

    def stop(self):
        self.stopped = True

    def call_later(self, seconds, call):
        call = partial(self.call, call)
        self.world.alarms.append(SimpleNamespace(due=self.world.now + seconds, call=call))

    def call(self, call):
        if not self.stopped:
            call()


class Threads:
    """An executor whose calls are made when the machine says so."""

    def __init__(self):
        self.calls = deque()
        self.closed = False

    def submit(self, call, *args):
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.calls.append((call, args))

    def run_one(self):
        call, args = self.calls.popleft()
        call(*args)

    def shutdown(self, wait, cancel_futures=False):
        self.closed = True
        if cancel_futures:
            self.calls.clear()
        while self.calls:
            self.run_one()


def threading_in(world):
    """What the settler uses of the module ``threading``."""

    class Event:
        def __init__(self):
            self.found = False

        def set(self):
            self.found = True

        def is_set(self):
            return self.found

        def wait(self, seconds):
            if not self.found:
                world.wait(seconds)
            return self.found

    class Alarm:
        def __init__(self, seconds, call):
            self.due, self.call = world.now + seconds, call

        def start(self):
            world.alarms.append(self)
            world.wait(0.0)

        def cancel(self):
            world.alarms = [alarm for alarm in world.alarms if alarm is not self]

    class Lock:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    return SimpleNamespace(Event=Event, Timer=Alarm, Lock=Lock)


@dataclass
class Item:
    """One message in the broker."""

    id: str
    body: bytes
    properties: Properties
    attempts: int = 0
    seen: bool = False


class Broker:
    """One queue, and sessions that end. Acks travel later than they are given."""

    def __init__(self, world, counted):
        self.world, self.counted = world, counted
        self.session = 0
        self.queue = deque()
        self.held = {}
        self.acked = {}
        self.gone, self.dead, self.followers = set(), Counter(), Counter()
        self.wrong = []
        self.breaks, self.on_break = "", lambda: None
        self.on_doubt = lambda task_id: None
        self.tokens = 0

    @property
    def up(self):
        return self.world.now >= self.world.broker_back

    def deliver(self):
        item = self.queue.popleft()
        item.attempts += 1
        self.tokens += 1
        self.held[self.tokens] = item
        again = item.attempts > 1 if self.counted else item.seen
        attempts = item.attempts if self.counted else 0
        raw = stored.encode("", "q", item.properties)
        delivery = Delivery(
            "c", "q", "", "q", item.body, raw, stored.READER, self.tokens, attempts, again
        )
        return Message(delivery, Session(self))

    def lose_session(self, seconds=0.0, *, acks_arrive=False):
        """The session ends, and the broker with it for so long."""
        if acks_arrive:
            self.flush()
        self.session += 1
        self.acked.clear()
        for item in self.held.values():
            item.seen = True
            self.queue.append(item)
        self.held.clear()
        self.world.broker_back = max(self.world.broker_back, self.world.now + seconds)

    def flush(self):
        for token in self.acked:
            self.gone.add(self.held.pop(token).id)
        self.acked.clear()

    def give_back(self, token, *, counted):
        item = self.held.pop(token)
        if not counted:
            item.attempts -= 1
        item.seen = True
        self.queue.append(item)

    def publish(self, publications):
        for one in publications:
            task_id = one.properties.headers["id"]
            if one.routing_key == "q":
                self.gone.discard(task_id)
                self.queue.append(Item(task_id, one.body, one.properties))
            elif one.routing_key == "q.dlq":
                self.dead[task_id] += 1
            else:
                self.followers[task_id] += 1

    def broken(self, where):
        """Whether this very step is to break there; the session ends if it does."""
        if self.breaks != where:
            return False
        self.breaks = ""
        self.on_break()
        self.lose_session()
        return True


class Session:
    """Where the messages of one session are settled."""

    def __init__(self, broker):
        self.broker, self.number = broker, broker.session

    @property
    def over(self):
        return self.number != self.broker.session

    def check(self, token):
        if self.over:
            raise StaleDelivery("its session has ended")
        if token not in self.broker.held or token in self.broker.acked:
            self.broker.wrong.append(f"{token} is settled twice")

    def settle(self, settlement):
        token = settlement.delivery.token
        self.check(token)
        if settlement.action == "ack":
            self.broker.acked[token] = True
        else:
            self.broker.give_back(token, counted=settlement.counted)

    def settle_then(self, delivery, then):
        self.check(delivery.token)
        if not self.broker.broken("before"):
            item = self.broker.held.pop(delivery.token)
            self.broker.gone.add(item.id)
            self.broker.publish(then)
            if not self.broker.broken("after"):
                return []
            if not then:
                self.broker.on_doubt(item.id)
        raise StaleDelivery("its session has ended")


class Facade:
    """The connection and its producer, as far as settling needs them."""

    def __init__(self, broker):
        self.broker = broker
        self.features = SimpleNamespace(attempts=broker.counted, delay=True, key_value=False)

    def producer(self):
        return self

    def declare(self, queue):
        self._check()

    def prepare(self, body, key, *, exchange, headers, correlation_id, content_type, **others):
        properties = Properties(content_type, "utf-8", dict(headers), correlation_id=correlation_id)
        return Publication(exchange, key, body, properties, id="")

    def publish_many(self, publications):
        self._check()
        self.broker.publish(publications)

    def _check(self):
        if not self.broker.up:
            raise ConnectionLost("the broker is away")


class Store:
    """Keeps results."""

    def __init__(self, world):
        self.world = world
        self.results = {}

    def deliver(self, replies):
        if self.world.now < self.world.store_back:
            raise ConnectionLost("the result store is away")
        self.results.update((reply.task_id, json.loads(reply.body)["status"]) for reply in replies)
        return []


class Taker:
    """What the consumer takes messages with."""


class Pool(ManualPool):
    """Runs jobs when the machine says so, and stops as a pool must."""

    def __init__(self):
        super().__init__()
        self.stopping = self.aborted = False
        self.in_grace = lambda: None

    def submit(self, job):
        if self.stopping:
            self.report(job.ticket, Returned())
        else:
            super().submit(job)

    def abort(self):
        self.aborted = True

    def stop(self, grace):
        self.stopping = True
        while self.waiting:
            self.report(self.waiting.popleft().ticket, Returned())
        self.in_grace()
        clean = not self.running
        while self.running:
            self.end(self.running[0].ticket, Abandoned())
        return clean


@dataclass
class Known:
    """What the model knows of one task."""

    name: str
    starts: int = 0
    reasons: int = 1  # to start
    crashes: int = 0
    revoked: bool = False
    excused: bool = False
    last: str = ""


REPLY = json.dumps({"status": "SUCCESS"}).encode()
BAD = json.dumps({"status": "FAILURE"}).encode()


HOW = st.sampled_from(["done", "linked", "failed", "retried", "overtime", "crashed"])


class Machine(RuleBasedStateMachine):
    """What may happen, and what must hold."""

    @initialize(counted=st.booleans())
    def begin(self, counted):
        self.world = World()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(settler, "threading", threading_in(self.world))
        self.patch.setattr(settler, "ThreadPoolExecutor", lambda *_, **__: Threads())
        self.patch.setattr(settler, "Timer", lambda fail: Later(self.world))
        # The same choices must lead to the same moments, or whether the broker is up is by chance.
        self.patch.setattr(Backoff.delay, "__defaults__", (Random(17).random,))
        self.broker = Broker(self.world, counted)
        self.broker.on_break = lambda: self.may_run_again(self.ended_otherwise)
        self.broker.on_doubt = self.may_never_run
        self.store = Store(self.world)
        self.known = {}
        self.ended = []
        self.boot()

    def boot(self):
        """Another worker takes over."""
        self.pool = Pool()
        self.worker = Worker(self.pool, WorkerOptions(broker="memory://", drain=1.0))
        self.ended.append(self.worker)
        self.worker._info = AppInfo("m", list(TASKS.values()))
        self.consumer = self.worker.consumer = TaskConsumer(self.worker)
        facade = Facade(self.broker)
        sequel = Sequel(facade, self.store, composer=COMPOSER)
        self.settler = Settler(facade, sequel, {}, fail=self.broker.wrong.append)
        self.consumer.settler = self.worker.in_flight.settler = self.settler
        self.pool.report = self.worker.in_flight.report
        revoked = [task_id for task_id, known in self.known.items() if known.revoked]
        self.worker.revoked.add(revoked)

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        try:
            self.calm_down()
        finally:
            self.patch.undo()
            for worker in self.ended:
                worker._signals.close()

    def calm_down(self):
        """Broker and store are back, and all that is there is done."""
        self.broker.breaks = ""
        self.world.wait(1000.0)
        for _ in range(2000):
            if self.busy:
                self.work()
            elif self.settler._resting:
                self.world.wait(5.0)
            elif self.pool.running:
                self.finish(0, "done")
            elif self.pool.waiting:
                self.start()
            elif self.broker.queue:
                self.take()
            else:
                self.broker.flush()
                break
            self.nothing_is_wrong()
        assert not self.broker.held and not self.broker.queue
        assert not self.worker.in_flight.all() and self.settler.idle
        self.nothing_is_wrong()
        for task_id, known in self.known.items():
            assert task_id in self.store.results or known.excused, task_id
            if self.store.results.get(task_id) == "SUCCESS" and not known.excused:
                assert self.broker.followers[task_id] == (known.last == "linked"), task_id

    # --- what happens -----------------------------------------------------------------------------

    @rule(name=st.sampled_from(["late", "late", "early"]))
    def publish(self, name):
        task_id = f"t{len(self.known)}"
        self.known[task_id] = Known(name)
        call = Call(name, task_id, [], {})
        properties = Properties("application/json", "utf-8", task_headers(call, origin="o"))
        self.broker.queue.append(Item(task_id, json.dumps(task_body(call)).encode(), properties))

    @precondition(lambda self: self.broker.queue and self.broker.up)
    @rule()
    def take(self):
        self.consumer.take(self.broker.deliver(), Taker())

    @precondition(lambda self: self.pool.waiting)
    @rule()
    def start(self):
        job = self.pool.waiting.popleft()
        self.of(job).starts += 1
        self.pool.running.append(job)

    @precondition(lambda self: self.pool.running)
    @rule(
        which=st.integers(0, 10),
        how=HOW,
    )
    def finish(self, which, how):
        job = self.pool.running[which % len(self.pool.running)]
        request = self.worker.in_flight.get(job.ticket)
        known = self.of(job)
        known.last = how
        if how == "done":
            outcome = Done(REPLY, 0.1)
        elif how == "linked":
            properties = Properties(headers={"id": request.id})
            outcome = Done(REPLY, 0.1, [Letter(Publication("", "next", b"", properties, id=""))])
        elif how == "failed":
            outcome = Failed(BAD, "ValueError", 0.1)
        elif how == "retried":
            known.reasons += 1
            again = Publication("", "q", job.body, request.message.properties, id="")
            outcome = Retried(Letter(again), b"", "OSError", 1.0, 0.1)
        elif how == "overtime":
            # It comes again if its session has ended, and who was cut off is not remembered.
            known.reasons += request.message.stale and known.name == "late"
            outcome = TimedOut(1.0)
        else:
            known.crashes += 1
            known.reasons += known.name == "late"
            outcome = Crashed("SIGKILL")
        self.pool.end(job.ticket, outcome)

    @property
    def busy(self):
        """The settler's threads that have something to do."""
        both = (self.settler._threads, self.settler._storing)
        return [threads for threads in both if threads.calls]

    @precondition(lambda self: self.busy)
    @rule(which=st.integers(0, 1))
    def work(self, which=0):
        self.busy[which % len(self.busy)].run_one()

    @precondition(lambda self: self.broker.up)
    @rule(
        name=st.sampled_from(["late", "late", "early"]),
        far=st.sampled_from(["take", "start", "finish", "finish", "work"]),
        how=HOW,
    )
    def bring(self, name, far, how):
        """A message comes and all goes well so far."""
        self.publish(name)
        while self.broker.queue:
            self.take()
        if far != "take" and self.pool.waiting:
            self.start()
            if far != "start":
                self.finish(len(self.pool.running) - 1, how)
                while far == "work" and self.busy:
                    self.work()

    @precondition(lambda self: self.broker.up and not self.broker.breaks)
    @rule(times=st.integers(2, 3))
    def poison(self, times):
        """A message kills each process that runs it."""
        for _ in range(times):
            self.bring("late", "work", "crashed")
            while self.pool.waiting:
                self.start()
            while self.pool.running:
                self.finish(0, "crashed")

    @rule()
    def flush(self):
        self.broker.flush()

    @rule(seconds=st.sampled_from([0.0, 0.0, 3.0]), acks_arrive=st.booleans())
    def lose_session(self, seconds, acks_arrive):
        """What is here goes on for what is delivered again, and what was done is not done again."""
        if acks_arrive:
            self.broker.flush()
        self.may_run_again(self.ended_otherwise)
        self.broker.lose_session(seconds)

    def ended_otherwise(self, task_id):
        """Whether a task has ended here in what is not remembered."""
        here = self.worker.in_flight.find([task_id])
        return not here and self.known[task_id].last not in ("done", "linked", "failed")

    def may_never_run(self, task_id):
        """Its ack, before its run, has arrived, and the worker cannot know."""
        assert self.known[task_id].name == "early"
        self.known[task_id].excused = True

    @rule(where=st.sampled_from(["before", "after"]))
    def break_next(self, where):
        """The connection breaks in the middle of the next ack that is waited for."""
        self.broker.breaks = where

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def lose_store(self, seconds):
        self.world.store_back = self.world.now + seconds

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def wait(self, seconds):
        self.world.wait(seconds)

    @precondition(lambda self: self.worker.in_flight.all())
    @rule(which=st.integers(0, 10), terminate=st.booleans())
    def revoke(self, which, terminate):
        here = self.worker.in_flight.all()
        task_id = here[which % len(here)].id
        self.known[task_id].revoked = True
        revoke(self.consumer, [task_id], terminate)

    @rule(finishing=st.integers(0, 3), again=st.booleans())
    def signal(self, finishing, again):
        """TERM: the worker ends as `Worker.run` does it, perhaps by a second one."""
        self.worker.stop()
        assert self.worker.stopping and not self.pool.aborted

        def in_grace():
            for _ in range(min(finishing, len(self.pool.running))):
                self.finish(0, "done")
            if again:
                self.worker.stop()
                assert self.pool.aborted
            for job in self.pool.running:
                self.of(job).reasons += self.of(job).name == "late"
                self.of(job).excused |= self.of(job).name == "early"

        self.pool.in_grace = in_grace
        running = len(self.pool.running)
        bad = self.world.now < max(self.world.broker_back, self.world.store_back)
        self.worker.clean = self.pool.stop(self.worker.drain)
        assert self.worker.clean == (running <= finishing)
        self.settler.close(patient=self.worker.clean)
        assert not self.worker.in_flight.all()
        self.broker.flush()
        self.leave(counted=False, excused=bad)

    @rule(acks_arrive=st.booleans())
    def kill(self, acks_arrive):
        if acks_arrive:
            self.broker.flush()
        self.leave(counted=True, excused=True)

    def leave(self, *, counted, excused):
        """The worker is gone; what it had not settled goes back, unless it was acked early."""
        waiting = {item.id for item in [*self.broker.queue, *self.broker.held.values()]}
        for task_id, known in self.known.items():  # nobody remembers what this one did
            if known.name == "early":
                known.excused |= excused and task_id not in waiting
            elif task_id not in self.broker.gone:
                known.reasons += 1
        if counted:
            self.broker.lose_session()
        else:
            for token in list(self.broker.held):
                self.broker.give_back(token, counted=False)
            self.broker.session += 1
        self.boot()

    # --- the model --------------------------------------------------------------------------------

    def of(self, job):
        """What is known of a job's task."""
        return self.known[self.worker.in_flight.get(job.ticket).id]

    def may_run_again(self, why):
        """What the broker still holds is delivered again: a reason to run it, if it has begun."""
        for item in self.broker.held.values():
            known = self.known[item.id]
            if known.name == "late" and known.starts and why(item.id):
                known.reasons += 1

    @invariant()
    def nothing_is_wrong(self):
        if not hasattr(self, "broker"):
            return
        broker = self.broker
        assert not broker.wrong
        running = Counter(self.worker.in_flight.get(job.ticket).id for job in self.pool.running)
        assert all(count == 1 for count in running.values()), running
        for task_id, known in self.known.items():
            assert known.starts <= known.reasons, (task_id, known)
            assert broker.followers[task_id] <= 1, task_id
            assert broker.dead[task_id] <= 1, task_id
            if broker.dead[task_id]:
                assert known.crashes >= (1 if broker.counted else 3), (task_id, known)
            if known.name == "late" and task_id in broker.gone:
                assert task_id in self.store.results, task_id


Machine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestSupervisor = Machine.TestCase
