"""Messages in flight, with a worker in this process on the memory broker."""

from __future__ import annotations

import itertools
import signal
import threading
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import ClassVar
from zoneinfo import ZoneInfo

import pytest

from queue_core import (
    Closed,
    ConfigError,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    Consumer,
    DecodeError,
    Message,
    Properties,
    Publication,
    Queue,
    RemoteError,
)
from queue_core.settling import SessionSettler
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from queue_core.worker.blueprint import ConsumerStep, StartStopStep
from queue_core.worker.consumer import intake, loop
from queue_core.worker.consumer.intake import Intake
from queue_core.worker.control import telling
from queue_core.worker.delivery import ActiveRequest
from queue_core.worker.endings import Reject
from queue_core.worker.in_flight import InFlight
from queue_core.worker.outcome import TaskInfo
from queue_core.worker.pools import runs
from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.runner import DRAINED, Worker, WorkerOptions
from queue_core.worker.strategy import default
from queue_core.worker.timestamps import seconds_until

numbers = itertools.count()


@pytest.fixture
def app():
    made = App("flight", broker=f"memory://flight-{next(numbers)}")
    yield made
    made.close()


def send(app, name, **headers):
    """Send a task as a program of celery's may, with these headers."""
    task_id = str(uuid.uuid4())
    app.connection().declare(app.queue())
    app.connection().producer().publish(
        [[], {}, {}],
        app.queue().name,
        headers={"lang": "py", "task": name, "id": task_id, **headers},
        correlation_id=task_id,
    )
    return app.AsyncResult(task_id)


def test_moments_are_read_with_and_without_a_zone(caplog):
    past = datetime.now(UTC) - timedelta(seconds=60)
    assert seconds_until(past.isoformat(), "eta") == pytest.approx(-60, abs=5)
    assert seconds_until(past.replace(tzinfo=None).isoformat(), "eta") == pytest.approx(-60, abs=5)
    assert seconds_until(None, "eta") is None
    assert seconds_until("soon", "eta") is None and seconds_until(3, "eta") is None
    assert "the eta 'soon' of a task is no ISO 8601 time" in caplog.text
    there = past.astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None).isoformat()
    assert seconds_until(there, "eta", ZoneInfo("Asia/Tokyo")) == pytest.approx(-60, abs=5)


def test_a_time_without_a_zone_is_in_that_of_the_app(app, run):
    app.config_from_object({"timezone": "Asia/Tokyo"})
    app.task(name="now")(lambda: "ran")
    run()
    there = datetime.now(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    times = {"eta": there - timedelta(seconds=5), "expires": there + timedelta(seconds=60)}
    result = send(app, "now", **{name: time.isoformat() for name, time in times.items()})
    assert result.get(30) == "ran"


def test_a_retry_at_a_time_without_a_zone_is_in_that_of_the_app(app, run):
    app.config_from_object({"timezone": "Asia/Tokyo"})

    @app.task(name="later", bind=True)
    def later(self) -> str:
        if self.request.retries:
            return "again"
        there = datetime.now(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
        raise self.retry(eta=there + timedelta(seconds=0.1))

    run()
    assert send(app, "later").get(30) == "again"


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        ({"a\nb": 1, "nan": float("nan"), "mine": 2}, {"mine": 2}),
        ({"large": "x" * 70_000, "mine": 2}, {"mine": 2}),
        ({f"h{number}": number for number in range(1_500)}, {}),
    ],
)
def test_a_retry_leaves_out_the_headers_that_only_another_program_sends(app, run, others, kept):
    seen = []

    @app.task(name="once_more", bind=True)
    def once_more(self) -> str:
        seen.append({name: self.request.headers.get(name) for name in [*others, "mine"]})
        if len(seen) == 1:
            raise self.retry(countdown=0)
        return "ran"

    run()
    headers = {"lang": "py", "task": "once_more", "id": "i", **others}
    properties = Properties("application/json", "utf-8", headers, correlation_id="i")
    sent = Publication("", app.queue().name, b"[[], {}, {}]", properties, "1")
    result = app.AsyncResult("i")
    app.connection().producer().publish_many([sent])
    assert result.get(30) == "ran"
    assert {name: value for name, value in seen[1].items() if value is not None} == kept


def test_a_task_that_came_too_late_is_not_run_and_says_so(app, run):
    ran = threading.Event()

    @app.task(name="never")
    def never() -> None:
        ran.set()

    past = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    result = send(app, "never", expires=past)
    run()
    with pytest.raises(RemoteError, match="(?i)expired"):
        result.get(30)
    assert not ran.is_set()


def test_a_task_that_would_come_too_late_is_revoked_before_the_broker_drops_it(app, run):
    app.task(name="never")(lambda: None)
    run()
    now = datetime.now(UTC)
    times = {"eta": now + timedelta(seconds=300), "expires": now + timedelta(seconds=200)}
    result = send(app, "never", **{name: time.isoformat() for name, time in times.items()})
    with pytest.raises(RemoteError, match="(?i)expired"):
        result.get(30)


def test_a_task_that_is_early_waits_in_the_broker(app, run):
    @app.task(name="now")
    def now() -> str:
        return "ran"

    worker, _, _ = run()
    due = datetime.now(UTC) + timedelta(seconds=1)
    result = send(app, "now", eta=due.isoformat())
    assert result.get(30) == "ran"
    assert datetime.now(UTC) >= due
    eventually(lambda: len(worker.in_flight) == 0)


def test_a_task_that_is_earlier_than_a_broker_can_wait_goes_back_again(app, run):
    app.task(name="next_year")(lambda: None)
    worker, _, _ = run()
    send(app, "next_year", eta=(datetime.now(UTC) + timedelta(days=365)).isoformat())
    queue = app.queue().name
    eventually(lambda: app.connection().inspect(queue).delayed == 1)
    assert len(worker.in_flight) == 0 and not worker.consumer.counts


def test_where_the_broker_holds_nothing_back_the_worker_does(app, run, monkeypatch):
    monkeypatch.setattr("queue_core.worker.settler.Settler.can_delay", False)

    @app.task(name="now")
    def now() -> str:
        return "ran"

    worker, _, _ = run(prefetch=10)
    later = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    waiting = send(app, "now", eta=later)
    revoked = send(app, "now", eta=later)
    eventually(lambda: len(worker.in_flight.all("scheduled")) == 2)
    takers = {request.taker for request in worker.in_flight.all("scheduled")}
    assert takers == {worker.consumer.intake.taker}, "which is not closed before they are settled"
    assert send(app, "now", eta=soon).get(30) == "ran"
    worker.revoked.add([revoked.id])
    (request,) = worker.in_flight.find([revoked.id])
    assert request.terminate(worker.pool, 0)
    assert not request.terminate(worker.pool, 0)
    with pytest.raises(RemoteError, match="(?i)revoked"):
        revoked.get(30)
    worker.stop()
    eventually(lambda: app.connection().inspect(app.queue()).ready == 1)
    assert not waiting.ready()


def test_what_was_held_back_and_cannot_start_now_goes_back(app, run, monkeypatch, caplog):
    monkeypatch.setattr("queue_core.worker.settler.Settler.can_delay", False)

    @app.task(name="now", acks_late=False)
    def now() -> str:
        return "ran"

    acknowledge, tries = ActiveRequest.acknowledge, []

    def refused(request):
        tries.append(request)
        if len(tries) == 1:
            raise ConnectionLost("just now")
        acknowledge(request)

    monkeypatch.setattr(ActiveRequest, "acknowledge", refused)
    worker, _, _ = run(prefetch=10)
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    assert send(app, "now", eta=soon).get(30) == "ran"
    assert len(tries) == 2
    eventually(lambda: len(worker.in_flight) == 0)


def test_an_early_ack_is_certain_before_the_run_and_its_result_comes_all_the_same(app, run):
    seen = []

    @app.task(acks_late=False)
    def once() -> int:
        seen.append(len(worker.in_flight))
        info = app.connection().inspect(app.queue())
        seen.append((info.ready, info.unacked))
        return 5

    worker, _, _ = run()
    assert once.delay().get(30) == 5
    assert seen == [1, (0, 0)]


def test_an_early_ack_is_not_taken_for_lost_with_the_acks_of_an_earlier_session(app, run):
    @app.task(name="late", ignore_result=True)
    def late() -> None:
        ran.set()

    ran = threading.Event()
    app.task(name="early", acks_late=False)(lambda: "ran")
    worker, _, _ = run()
    app.send_task("late")
    assert ran.wait(30)
    eventually(lambda: len(worker.in_flight) == 0)
    worker.consumer.connection._recovery.session.close()
    assert app.send_task("early").get(30) == "ran"


def test_an_early_ack_that_is_not_certain_in_time_is_waited_for(app, run, monkeypatch, caplog):
    app.task(name="early", acks_late=False)(lambda: "ran")
    settle_then, tries = SessionSettler.settle_then, []

    def slow(settler, delivery, then):
        tries.append(delivery.token)
        if len(tries) < 3:
            raise ConnectTimeout("no answer yet")
        return settle_then(settler, delivery, then)

    monkeypatch.setattr(SessionSettler, "settle_then", slow)
    run()
    assert app.send_task("early", ignore_result=False).get(30) == "ran"
    assert tries[0] == tries[1] == tries[2]
    assert "is not certain yet" in caplog.text


def test_an_early_ack_in_doubt_when_its_session_ends_is_told_of(app, run, monkeypatch, caplog):
    app.task(name="early", acks_late=False)(lambda: "ran")
    settle_then, tries = SessionSettler.settle_then, []

    def lost(settler, delivery, then):
        tries.append(delivery.token)
        if len(tries) == 1:
            settler.session.close()
            raise ConnectionLost("cut")
        return settle_then(settler, delivery, then)

    monkeypatch.setattr(SessionSettler, "settle_then", lost)
    worker, _, _ = run()
    assert app.send_task("early").get(30) == "ran"  # the broker had not heard of it
    assert "if the broker has heard of its ack, it never runs" in caplog.text
    eventually(lambda: len(worker.in_flight) == 0)


def test_a_task_that_is_revoked_while_it_is_acked_before_its_run_does_not_run(
    app, run, monkeypatch
):
    ran = []
    app.task(name="early", acks_late=False)(lambda: ran.append(1))
    settle_then = SessionSettler.settle_then

    def ack_late(settler, delivery, then):
        for request in worker.in_flight.all("reserved"):
            telling.revoke(worker.consumer, request.id)
        return settle_then(settler, delivery, then)

    worker, _, _ = run()
    monkeypatch.setattr(SessionSettler, "settle_then", ack_late)
    with pytest.raises(RemoteError, match="revoked"):
        app.send_task("early").get(30)
    assert not ran


class Handing:
    """A pool that gets a job just after somebody has looked for it there in vain."""

    def __init__(self, request, *, begun):
        self.request = request
        self.begun = begun
        self.has = False
        self.told = []

    def submit(self, job):
        assert not self.request.terminate(self, signal.SIGTERM)
        self.has = True

    def withdraw(self, ticket):
        self.told += ["withdraw"] * self.has
        return self.has and not self.begun

    def terminate(self, ticket, number):
        self.told += [number] * self.has
        return self.has


@pytest.mark.parametrize("begun", [False, True])
def test_a_task_that_is_revoked_just_before_the_pool_has_it_is_taken_out_again(app, begun):
    here = InFlight((), "w")
    app.connection().declare(app.queue())
    send(app, "t")
    with app.connection().consumer(app.queue(), decode=False) as consumer:
        message = consumer.receive(30)
        assert message is not None
        request = ActiveRequest(message, {"task": "t", "id": "i"}, TaskInfo("t"), here)
        pool = Handing(request, begun=begun)
        request.execute_using_pool(pool)
    assert pool.told == (["withdraw", signal.SIGTERM] if begun else ["withdraw"])


class Counting(ActiveRequest):
    """Counts what becomes of its messages."""

    __slots__ = ()
    seen: list[str] = []

    def on_success(self, outcome):
        self.seen.append(f"success {self.name}")
        super().on_success(outcome)

    def on_failure(self, outcome):
        self.seen.append(f"failure {self.name}")
        super().on_failure(outcome)


def counting(task, consumer):
    """A strategy with requests of another class."""
    return default(task, consumer, Counting)


class Clumsy(ActiveRequest):
    """Fails at what it wants to do when its task has ended."""

    __slots__ = ()

    def on_success(self, outcome):
        raise LookupError("no such counter")

    def on_failure(self, outcome):
        super().on_failure(outcome)
        raise LookupError("no such counter")


def broken(task, consumer):
    """A strategy that cannot cope."""

    def strategy(message, headers):
        raise LookupError("no idea")

    return strategy


def test_a_task_may_have_requests_of_its_own(app, run):
    Counting.seen.clear()

    @app.task(name="good", request_class=Counting)
    def good() -> int:
        return 1

    @app.task(name="bad", strategy=f"{__name__}:counting")
    def bad() -> int:
        raise ValueError("x")

    run()
    assert good.delay().get(30) == 1
    with pytest.raises(ValueError):
        bad.delay().get(30)
    assert Counting.seen == ["success good", "failure bad"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"request_class": "decimal:Decimal"}, "no subclass of .*ActiveRequest"),
        ({"request_class": "shop.requests:Mine"}, "cannot be imported"),
        ({"strategy": "shop.requests:mine"}, "cannot be imported"),
    ],
)
def test_a_class_or_strategy_that_is_none_is_said_at_the_start(app, options, words):
    app.task(name="odd", **options)(lambda: None)
    worker = Worker(ThreadPool(1, app), WorkerOptions(broker=app.broker, control=False))
    with pytest.raises(ConfigError, match=words):
        worker.run()


def test_requests_that_fail_when_their_tasks_have_ended_settle_them_all_the_same(app, run, caplog):
    @app.task(name="good", request_class=Clumsy)
    def good() -> int:
        return 1

    @app.task(name="bad", request_class=Clumsy)
    def bad() -> int:
        raise ValueError("x")

    worker, _, _ = run()
    assert good.delay().get(30) == 1
    with pytest.raises(ValueError):
        bad.delay().get(30)
    eventually(lambda: app.connection().inspect(app.queue()).unacked == 0)
    eventually(lambda: worker.consumer.settler.counts == {"done": 1, "failed": 1})
    eventually(lambda: caplog.text.count("no such counter") >= 2)


def confused(task, consumer):
    """A strategy that returns what is no request."""
    return lambda message, headers: "no idea"


@pytest.mark.parametrize("strategy", ["broken", "confused"])
def test_a_strategy_that_fails_gives_up_its_message_and_nothing_else(app, run, strategy):
    @app.task(strategy=f"{__name__}:{strategy}")
    def lost() -> int:
        return 1

    @app.task
    def good() -> int:
        return 2

    worker, _, _ = run()
    with pytest.raises(RemoteError, match="no idea|'str'"):
        lost.delay().get(30)
    assert good.delay().get(30) == 2
    assert worker.consumer.counts == {"invalid task": 1}
    eventually(lambda: app.connection().inspect("celery.dlq").ready == 1)


def test_a_message_with_damaged_properties_hides_no_other_one():
    """As one of another program on RabbitMQ, whose header ``task`` can be read."""

    class Damaged(Message):
        @property
        def properties(self):
            raise DecodeError("damaged")

    here = InFlight((), "w")
    with Connection(f"memory://flight-{next(numbers)}") as connection:
        connection.declare(Queue("q"))
        connection.producer().publish([[], {}, {}], "q", headers={"task": "t"})
        with connection.consumer("q", decode=False) as consumer:
            sound = consumer.receive(30)
            assert sound is not None
            damaged = Damaged(sound.delivery, sound._settler)
            for message, headers in ((damaged, {"task": "t"}), (sound, {"task": "t", "id": "i"})):
                here.add(ActiveRequest(message, headers, TaskInfo("t"), here))
            assert [request.headers["id"] for request in here.find(["i"])] == ["i"]
            assert [request.info()["id"] for request in here.all()] == ["", "i"]


def test_unknown_tasks_are_counted_and_given_up(app, run):
    worker, _, _ = run()
    with pytest.raises(RemoteError, match="there is no task 'no.such'"):
        app.send_task("no.such").get(30)
    assert worker.consumer.counts == {"unknown task": 1}


def test_a_burst_ends_when_the_queues_are_empty(app):
    ran = []

    @app.task
    def note(number: int) -> None:
        ran.append(number)

    note.send_many([(number,) for number in range(20)])
    worker = Worker(ThreadPool(2, app), WorkerOptions(broker=app.broker, burst=True, control=False))
    assert worker.run() == DRAINED
    assert sorted(ran) == list(range(20))


def test_a_burst_does_not_end_when_a_message_is_pushed_just_after_a_wait_for_one(app, monkeypatch):
    """As by RabbitMQ: what a task that ends brings is here before anybody looks into a queue."""
    go, runs, pushed = threading.Event(), [], []

    @app.task(name="again")
    def again() -> None:
        runs.append(1)
        if len(runs) == 1:
            assert go.wait(30)
            raise Reject("not now", requeue=True)

    receive = Consumer.receive

    def receive_and_be_late(consumer, timeout=None, **options):
        if pushed:
            return pushed.pop()
        found = receive(consumer, timeout, **options)
        if found is None and worker.in_flight and not go.is_set():
            go.set()
            eventually(lambda: not worker.in_flight and worker.consumer.settler.idle)
            pushed.append(receive(consumer, 30.0))
        return found

    monkeypatch.setattr(loop, "BURST", 0.1)
    monkeypatch.setattr(Consumer, "receive", receive_and_be_late)
    again.apply_async(ignore_result=True)
    worker = Worker(ThreadPool(1, app), WorkerOptions(broker=app.broker, burst=True, control=False))
    assert worker.run() == DRAINED
    assert len(runs) == 2


def test_a_check_takes_nothing(app):
    @app.task
    def never() -> None:
        raise AssertionError("taken")

    never.delay()
    worker = Worker(ThreadPool(2, app), WorkerOptions(broker=app.broker, check=True, control=False))
    assert worker.run() == DRAINED
    assert app.connection().inspect(app.queue()).ready == 1


def test_queues_can_be_left_out():
    app = App("many", broker=f"memory://flight-{next(numbers)}", queues=[Queue("a"), Queue("b")])
    worker = Worker(
        ThreadPool(1, app),
        WorkerOptions(broker=app.broker, check=True, control=False, exclude=["celery", "a"]),
    )
    assert worker.run() == DRAINED
    assert list(worker.consumer.queues) == ["b"]
    app.close()


def test_a_message_that_comes_again_since_its_session_ended_is_not_run_again(app, run):
    gate, runs = threading.Event(), []

    @app.task
    def hold() -> str:
        runs.append(1)
        gate.wait(20)
        return "done"

    worker, _, _ = run(node="n", prefetch=10)
    results = [hold.delay() for _ in range(2)]
    eventually(lambda: runs and len(worker.in_flight) == 2)
    with Connection(app.broker, node="n") as thief:
        thief.connect()  # the session of the same name ends, and its messages go back
        eventually(lambda: all(item.message.redelivered for item in worker.in_flight.all()))
        assert len(worker.in_flight) == 2
    gate.set()
    assert [result.get(30) for result in results] == ["done", "done"]
    assert len(runs) == 2
    eventually(lambda: app.connection().inspect(app.queue()).ready == 0)


def test_a_message_that_comes_again_since_its_ack_was_lost_is_acked_again(app, run, monkeypatch):
    runs = []

    @app.task
    def once() -> int:
        runs.append(1)
        return len(runs)

    lost = []
    ack = Message.ack

    def lose(message, then=None):
        if lost or message.queue != app.queue().name:
            return ack(message, then)
        lost.append(message)
        with Connection(app.broker, node="n") as thief:
            thief.connect()  # the session of the same name ends, and its messages go back
        return ack(message, then)

    monkeypatch.setattr(Message, "ack", lose)
    run(node="n")
    assert once.delay().get(30) == 1
    eventually(lambda: app.connection().inspect(app.queue()).ready == 0)
    assert once.delay().get(30) == 2
    assert len(lost) == 1 and len(runs) == 2


def test_a_task_that_is_sent_again_under_its_id_is_run_again_also_if_its_first_taker_died(app, run):
    runs = []

    @app.task
    def once() -> int:
        runs.append(1)
        return len(runs)

    worker, _, _ = run()
    once.apply_async(task_id="the same").get(30)
    worker.consumer.intake.pause()
    with Connection(app.broker, node="taker") as taker:
        with taker.consumer(app.queue(), decode=False) as consumer:
            once.apply_async(task_id="the same")
            assert consumer.receive(30)
            with Connection(app.broker, node="taker") as thief:
                thief.connect()  # the session of the same name ends: its messages are redelivered
    worker.consumer.intake.resume()
    eventually(lambda: len(runs) == 2, what="the second one is run, too")
    eventually(lambda: not len(worker.in_flight))


def test_an_outcome_settles_one_message_that_comes_again_and_no_second_one(app, run, monkeypatch):
    runs = []

    @app.task
    def once() -> int:
        runs.append(1)
        return len(runs)

    ack = Message.ack
    acked = []

    def lose(message, then=None):
        """Lose the first ack with its session."""
        if message.queue == app.queue().name:
            acked.append(message.redelivered)
            if len(acked) == 1:
                with Connection(app.broker, node="n") as thief:
                    thief.connect()
        return ack(message, then)

    monkeypatch.setattr(Message, "ack", lose)
    worker, _, _ = run(node="n")
    assert once.apply_async(task_id="the same").get(30) == 1
    eventually(lambda: True in acked, what="the lost ack is given again")
    worker.consumer.intake.pause()
    with Connection(app.broker, node="taker") as taker:
        with taker.consumer(app.queue(), decode=False) as consumer:
            once.apply_async(task_id="the same")
            assert consumer.receive(30)
            with Connection(app.broker, node="taker") as thief:
                thief.connect()
    worker.consumer.intake.resume()
    eventually(lambda: len(runs) == 2, what="the second one is run, too")


def test_an_idle_worker_holds_what_it_held_until_messages_come_again(app, run, monkeypatch):
    """Another window costs round trips, which a worker that has nothing to do need not make."""
    waits = []
    receive = Consumer.receive

    def counted(consumer, timeout=None, **options):
        waits.append(timeout)
        return receive(consumer, timeout, **options)

    ahead = [4]
    monkeypatch.setattr(Consumer, "receive", counted)
    monkeypatch.setattr(ThreadPool, "ahead", property(lambda pool: ahead[0]))
    monkeypatch.setattr(loop, "RECEIVE", 0.01)
    monkeypatch.setattr(loop, "LOOK", 0.0)
    go = threading.Event()
    held = app.task(name="held")(lambda: go.wait(30.0))
    worker, _, _ = run()
    taker = worker.consumer.intake.taker
    ahead[0] = 64
    before = len(waits)
    eventually(lambda: len(waits) > before + 3, what="it has nothing to do")
    assert worker.consumer.intake.taker is taker
    result = held.delay()
    eventually(lambda: worker.consumer.intake.taker is not taker, what="it holds more")
    go.set()
    assert result.get(30)


def ready(app, name=None):
    """How many messages wait in a queue of the app's for somebody to take them."""
    return app.connection().inspect(app.queue(name)).ready


@pytest.mark.parametrize("queues", [("one",), ("one", "two")])
def test_what_was_given_back_is_not_taken_again_before_there_is_room(app, run, monkeypatch, queues):
    """After short tasks many messages are held; of two queues it is one of each at least."""
    monkeypatch.setattr(runs, "LONG", 0.1)
    monkeypatch.setattr(loop, "RECEIVE", 0.01)
    looks = itertools.count()
    tend = Intake.tend
    monkeypatch.setattr(Intake, "tend", lambda intake: (next(looks), tend(intake)))
    go = threading.Event()
    quick = app.task(name="quick")(lambda: "done")
    held = app.task(name="held")(lambda: go.wait(30.0))
    worker, _, _ = run(queues=queues)

    def much_is_held():
        results = [quick.apply_async(queue="one") for _ in range(50)]
        return all(result.get(30) == "done" for result in results) and worker.pool.ahead > 1

    eventually(much_is_held)
    results = [held.apply_async(queue=queues[number % len(queues)]) for number in range(4)]
    eventually(lambda: sum(ready(app, name) for name in queues) == 3, what="one is held")
    before = next(looks)
    eventually(lambda: next(looks) > before + 40)
    assert worker.consumer.ended()["returned"] <= 3
    assert sum(ready(app, name) for name in queues) == 3
    go.set()
    assert all(result.get(30) for result in results)


def test_a_consumer_that_was_replaced_is_closed_when_the_last_message_it_took_is_settled(
    app, run, monkeypatch
):
    monkeypatch.setattr(intake, "RETIRED", 0.0)
    monkeypatch.setattr(loop, "RECEIVE", 0.01)
    go = threading.Event()
    held = app.task(name="held")(lambda: go.wait(30.0))
    quick = app.task(name="quick")(lambda: "done")
    worker, _, _ = run(prefetch=2)
    result = held.delay()
    eventually(lambda: worker.in_flight.all("reserved"))
    taker = worker.consumer.intake.taker
    worker.consumer.intake.renew()
    looked = threading.Event()
    tend = Intake.tend
    monkeypatch.setattr(Intake, "tend", lambda intake: (tend(intake), looked.set()))
    assert looked.wait(30)
    assert taker.receive(0.0) is None, "it takes nothing, and is not closed"
    go.set()
    assert result.get(30)

    def closed():
        try:
            return taker.receive(0.0)
        except Closed:
            return True

    eventually(closed)
    assert quick.delay().get(30) == "done"


class Taker:
    """A consumer that takes nothing."""

    closed = False

    def start(self):
        """Subscribe."""

    stop = start

    def flush(self, patience):
        """Wait."""

    def close(self):
        self.closed = True


def test_a_message_that_ends_between_two_looks_keeps_its_consumer_open(app, monkeypatch):
    """It goes from those in flight to the settler while the intake looks at one or the other."""
    monkeypatch.setattr(intake, "RETIRED", 0.0)
    request = SimpleNamespace(ticket=1, taker=None, state="reserved")

    class Leaving(InFlight):
        def all(self, state=None):
            found = super().all(state)
            self.remove(request)
            return found

    class Settler:
        queues: ClassVar = {}

        @property
        def idle(self):
            before = bool(len(here))
            here.remove(request)
            return before

    here = Leaving((), "w")
    options = WorkerOptions()
    worker = SimpleNamespace(in_flight=here, options=options, prefetch=1)
    connection = SimpleNamespace(declare=id, inspect=id, consumer=lambda *_, **__: Taker())
    taking = Intake(worker, [app.queue()])
    taking.open(connection, Settler())
    taking.renew()
    request.taker = taking.taker
    here.add(request)
    taking.renew()
    taking.tend()
    assert not request.taker.closed


class Prices(ConsumerStep):
    """A step that takes messages of its own."""

    heard: list[object] = []

    def get_consumers(self, parent):
        queue = parent.connection.declare(Queue("prices"))
        yield parent.connection.consumer(queue), lambda message: self.heard.append(message.payload)


def test_a_step_of_the_app_takes_messages_of_its_own_until_the_worker_stops(app, run):
    Prices.heard.clear()
    app.steps["consumer"].add(Prices)
    worker, thread, codes = run()
    producer = app.connection().producer()
    producer.publish({"tea": 3}, "prices")
    eventually(lambda: Prices.heard == [{"tea": 3}])
    eventually(lambda: app.connection().inspect("prices").unacked == 0)
    worker.stop()
    thread.join(20.0)
    assert codes == [DRAINED]
    producer.publish({"tea": 4}, "prices")
    assert app.connection().inspect("prices").ready == 1


class Unable(StartStopStep):
    """A step that does not start."""

    def start(self, parent):
        raise RuntimeError("no disk")


def test_a_step_of_the_app_that_does_not_start_ends_the_worker_with_its_error(app):
    app.steps["worker"].add(Unable)
    pool = ThreadPool(1, app)
    worker = Worker(pool, WorkerOptions(broker=app.broker, control=False))
    with pytest.raises(RuntimeError, match="no disk"):
        worker.run()
    assert not worker.ready.is_set()
