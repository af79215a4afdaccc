"""Results: states, waiting, and who is told; with a broker in memory and no worker."""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queue_core import Connection, ConnectionLost, RemoteError, Unsupported, UsageError
from queue_core.testing.eventually import eventually
from queue_core.worker import App, chain, group
from queue_core.worker.failure import Failure, describe_exception
from queue_core.worker.protocol import Call
from queue_core.worker.results.base import Reply
from queue_core.worker.results.key_value import _LOOKS, KeyValueDeliverer, result_key
from queue_core.worker.results.options import ResultOptions
from queue_core.worker.results.rpc import RpcDeliverer
from queue_core.worker.results.wire import (
    encode_failure,
    encode_success,
    read_head,
    state,
    with_waiting,
)

numbers = itertools.count()


@pytest.fixture
def broker():
    return f"memory://results-{next(numbers)}"


@pytest.fixture(params=["key_value", "rpc"])
def way(request):
    return request.param


@pytest.fixture
def app(broker, way):
    made = App("sender", broker=broker, backend="rpc://" if way == "rpc" else None)
    yield made
    made.close()


@pytest.fixture
def stored(broker):
    """An app whose results are kept."""
    made = App("sender", broker=broker)
    yield made
    made.close()


class Worker:
    """Settles what an app sent as it is told."""

    def __init__(self, app, queue="celery"):
        self.connection = app.connection()
        self.consumer = self.connection.consumer(queue)
        producer = self.connection.producer()
        kept = KeyValueDeliverer(self.connection, producer, ResultOptions(ttl=60.0))
        self.deliverers = {True: RpcDeliverer(producer), False: kept}
        self.producer = producer

    def take(self):
        message = self.consumer.receive(30)
        assert message is not None
        return message

    def end(self, value=None, error=None, message=None, status="FAILURE"):
        message = message or self.take()
        call = Call("t", message.headers["id"], [1], {"b": 2}, retries=1)
        if error is not None:
            reply = encode_failure(call, describe_exception(error), status=status)
        else:
            reply = encode_success(call, value)
        message.ack(then=self.deliverer(message).deliver([Reply(message, call.id, reply)]))

    def tell(self, message, status, info=None):
        task_id = message.headers["id"]
        body = state(task_id, status, info)
        self.producer.publish_many(self.deliverer(message).note(Reply(message, task_id, body)))

    def deliverer(self, message):
        return self.deliverers[bool(message.properties.reply_to)]


def later(call):
    thread = threading.Timer(0.05, call)
    thread.daemon = True
    thread.start()


# --- states --------------------------------------------------------------------------------------


def test_a_task_goes_through_its_states(app):
    result = app.send_task("t")
    worker = Worker(app)
    message = worker.take()
    assert (result.state, result.ready(), result.info) == ("PENDING", False, None)
    worker.tell(message, "RECEIVED")
    eventually(lambda: result.state == "RECEIVED")
    worker.tell(message, "STARTED", {"pid": 7})
    eventually(lambda: result.state == "STARTED")
    assert result.info == {"pid": 7} and not result.ready()
    worker.end(error=ConnectionError("away"), message=message, status="RETRY")
    eventually(lambda: result.state == "RETRY")
    assert repr(result.info) == "ConnectionError('away')"
    assert not (result.ready() or result.failed() or result.successful())
    again = app.send_task("t", task_id=result.id) if app.backend != "rpc://" else None
    if again is not None:
        worker.end("done")
        assert result.get(30) == "done"
        assert (result.state, result.args, result.kwargs) == ("SUCCESS", [1], {"b": 2})
        assert (result.name, result.retries) == ("t", 1) and result.date_done is not None


def test_a_failure_is_raised_or_returned(app):
    result = app.send_task("t")
    worker = Worker(app)
    worker.end(error=ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        result.get(30)
    assert "ZeroDivisionError" in caught.value.__notes__[0] and result.traceback
    assert isinstance(result.get(propagate=False), ZeroDivisionError)
    assert result.failed() and result.ready() and isinstance(result.info, ZeroDivisionError)


def test_what_was_revoked_says_so(app):
    result = app.send_task("t")
    worker = Worker(app)
    error = Failure("TaskRevokedError", "celery.exceptions", ["revoked"])
    message = worker.take()
    call = Call("t", result.id, [], {})
    reply = encode_failure(call, error, status="REVOKED")
    message.ack(then=worker.deliverer(message).deliver([Reply(message, call.id, reply)]))
    with pytest.raises(RemoteError, match="TaskRevokedError: revoked"):
        result.get(30)
    assert result.state == "REVOKED" and result.ready()
    assert not (result.failed() or result.successful())


def test_an_unknown_id_is_not_pending(stored):
    result = stored.AsyncResult("no-such-task")
    assert result.state == "UNKNOWN" and not result.known and not result.ready()
    with pytest.raises(TimeoutError, match="no-such-task within 0.01 s"):
        result.get(0.01)
    assert result.state == "UNKNOWN"  # though somebody has left word that it waits


def test_what_was_sent_is_known_to_others_if_the_sender_said_so(broker):
    sender = App("sender", broker=broker, settings={"task_track_sent": True})
    other = App("other", broker=broker)
    result = sender.send_task("t")
    assert other.AsyncResult(result.id).state == "PENDING"
    assert other.AsyncResult(result.id).known
    sender.close()
    other.close()


def test_a_state_never_replaces_the_end(stored):
    result = stored.send_task("t")
    worker = Worker(stored)
    message = worker.take()
    worker.end(5, message=message)
    worker.tell(message, "STARTED")
    assert stored.AsyncResult(result.id).state == "SUCCESS"


def test_the_result_of_a_task_that_is_ignored_cannot_be_had(app):
    result = app.send_task("t", ignore_result=True)
    with pytest.raises(UsageError, match="ignore_result=False"):
        result.get(1)


# --- waiting -------------------------------------------------------------------------------------


def test_who_waits_is_woken_by_a_message(stored, monkeypatch):
    polls = []
    result = stored.send_task("t")
    worker = Worker(stored)
    results = stored._sender.get().results()
    poll = results.poll

    def polled(*given):
        polls.append(poll(*given))
        if len(polls) == 1 + len(_LOOKS):
            later(lambda: worker.end(5))
        return polls[-1]

    monkeypatch.setattr(results, "poll", polled)
    assert result.get(30) == 5
    assert len(polls) == 1 + len(_LOOKS)


def test_nobody_is_told_of_what_nobody_waits_for(stored):
    stored.send_task("t")
    worker = Worker(stored)
    message = worker.take()
    reply = encode_success(Call("t", message.headers["id"], [], {}), 5)
    assert worker.deliverer(message).deliver([Reply(message, message.headers["id"], reply)]) == []


def test_sixteen_threads_wait_each_for_its_own(app):
    worker = Worker(app)
    results = [app.send_task("t", (number,)) for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        values = [threads.submit(result.get, 30) for result in results]
        for _ in results:
            message = worker.take()
            worker.end(message.payload[0][0], message=message)
        assert [value.result(30) for value in values] == list(range(16))


def test_sixteen_threads_wait_for_the_same(app):
    result = app.send_task("t")
    worker = Worker(app)
    with ThreadPoolExecutor(16) as threads:
        values = [threads.submit(app.AsyncResult(result.id).get, 30) for _ in range(16)]
        worker.end("same")
        assert {value.result(30) for value in values} == {"same"}


def test_who_waits_in_another_process_is_told_too(broker):
    """Two apps stand for two processes: each has its own connection and reply queue."""
    sender, other = App("sender", broker=broker), App("other", broker=broker)
    result = sender.send_task("t")
    worker = Worker(sender)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(result.get, 30)
        second = threads.submit(other.AsyncResult(result.id).get, 30)
        store = sender.connection().key_value()
        eventually(lambda: _waiting(store, result.id) == 2)
        worker.end("both")
        assert (first.result(30), second.result(30)) == ("both", "both")
    sender.close()
    other.close()


def _waiting(store, task_id):
    entry = store.key_get(result_key(task_id))
    return 0 if entry is None else len(read_head(entry.value).waiting)


def test_a_message_that_was_lost_costs_only_time(stored, monkeypatch):
    monkeypatch.setattr("queue_core.worker.results.key_value._FIRST", 0.05)
    result = stored.send_task("t")
    worker = Worker(stored)

    def end_in_silence():
        message = worker.take()
        reply = encode_success(Call("t", message.headers["id"], [], {}), 5)
        worker.deliverer(message).deliver([Reply(message, message.headers["id"], reply)])
        message.ack()

    later(end_in_silence)
    assert result.get(30) == 5


def test_a_worker_that_died_between_storing_and_acking_has_told_nobody_and_the_next_does(stored):
    result = stored.send_task("t")
    worker = Worker(stored)
    store = stored.connection().key_value()
    with ThreadPoolExecutor(1) as threads:
        value = threads.submit(result.get, 30)
        eventually(lambda: _waiting(store, result.id) == 1)
        message = worker.take()
        reply = encode_success(Call("t", result.id, [], {}), 5)
        deliverer = worker.deliverer(message)
        assert len(deliverer.deliver([Reply(message, result.id, reply)])) == 1  # and then it dies
        then = deliverer.deliver([Reply(message, result.id, reply)])
        assert len(then) == 1
        message.ack(then=then)
        assert value.result(30) == 5


def test_time_runs_out(app):
    result = app.send_task("t")
    with pytest.raises(TimeoutError, match="within 0.02 s"):
        result.get(0.02)


def test_a_hundred_coroutines_wait_in_one_thread(app):
    worker = Worker(app)

    async def wait():
        results = [app.send_task("t", (number,)) for number in range(100)]
        later(lambda: [worker.end(7) for _ in results])
        return sum([await result for result in results])

    assert asyncio.run(wait()) == 700


def test_a_coroutine_gets_the_error(app):
    result = app.send_task("t")
    Worker(app).end(error=KeyError("x"))

    async def wait():
        return await result

    with pytest.raises(KeyError):
        asyncio.run(wait())


# --- what is kept --------------------------------------------------------------------------------


def test_a_result_can_be_forgotten(stored):
    result = stored.send_task("t")
    Worker(stored).end(5)
    assert stored.AsyncResult(result.id).get(30) == 5
    result.forget()
    assert stored.AsyncResult(result.id).state == "UNKNOWN"


def test_failures_are_kept_longer(broker):
    options = ResultOptions(ttl=0.05, failure_ttl=60.0)
    with Connection(broker) as connection:
        deliverer = KeyValueDeliverer(connection, connection.producer(), options)
        store = connection.key_value()
        good = encode_success(Call("t", "good", [], {}), 5)
        bad = encode_failure(Call("t", "bad", [], {}), Failure("ValueError", "builtins", []))
        nowhere: Any = None
        deliverer.deliver([Reply(nowhere, "good", good), Reply(nowhere, "bad", bad)])
        eventually(lambda: store.key_get(result_key("good")) is None)
        assert store.key_get(result_key("bad")) is not None


def test_who_waits_is_part_of_a_result_that_everybody_can_read():
    body = encode_success(Call("t", "id", ["}"], {}), {"waiting": "no"})
    assert read_head(body).waiting == []
    assert read_head(with_waiting(body, ["q1", "q2"])).waiting == ["q1", "q2"]
    assert with_waiting(body, []) is body
    assert read_head(b"damaged").waiting == [] and not read_head(b"{}").ended


# --- groups --------------------------------------------------------------------------------------


def test_a_group_is_waited_for_as_a_whole(app):
    worker = Worker(app)
    result = group(app.signature("t", (number,)) for number in range(3)).apply_async()
    assert (len(result), result.completed_count(), result.state) == (3, 0, "PENDING")
    for _ in result:
        message = worker.take()
        worker.end(message.payload[0][0], message=message)
    assert result.join(30) == result.get(30) == [0, 1, 2]
    assert result.completed_count() == 3 and result.state == "SUCCESS" and not result.waiting()

    async def wait():
        return await result

    assert asyncio.run(wait()) == [0, 1, 2]


def test_who_waits_for_a_group_does_not_wait_for_those_whose_results_are_ignored(app):
    worker = Worker(app)
    app.task(name="quiet", ignore_result=True)(lambda: None)
    first, last = app.signature("t", (1,)), app.signature("t", (2,))
    unheard = app.signature("t", (3,)).set(ignore_result=True)
    result = group(first, app.signature("quiet"), unheard, last).apply_async()
    assert [one.ignored for one in result] == [False, True, True, False]
    for _ in result:
        message = worker.take()
        if message.headers["task"] == "t" and message.payload[0][0] != 3:
            worker.end(message.payload[0][0], message=message)
        else:
            message.ack()
    assert result.get(30) == [1, None, None, 2]
    assert (result.completed_count(), result.ready(), result.state) == (2, True, "SUCCESS")
    assert [value for value in result.iterate(5)] == [1, 2]

    async def wait():
        return await result

    assert asyncio.run(wait()) == [1, None, None, 2]
    result.forget()


def test_the_end_of_a_chain_that_is_ignored_cannot_be_waited_for(app):
    app.task(name="quiet", ignore_result=True)(lambda: None)
    result = chain(app.signature("t"), app.signature("quiet", immutable=True)).apply_async()
    assert result.ignored and not result.parent.ignored
    with pytest.raises(UsageError, match="ignore_result=False"):
        result.get(30)


def test_a_group_can_be_saved_and_waited_for_elsewhere(stored, broker):
    result = group(stored.signature("t") for _ in range(2)).apply_async()
    result.save()
    other = App("other", broker=broker)
    found = other.GroupResult(result.id)
    assert found is not None and [one.id for one in found] == [one.id for one in result]
    worker = Worker(stored)
    worker.end(1)
    worker.end(2)
    assert sorted(found.get(30)) == [1, 2]
    found.forget()
    assert found[0].id and other.AsyncResult(found[0].id).state == "UNKNOWN"
    found.delete()
    assert other.GroupResult(result.id) is None
    other.close()


def test_by_rpc_there_is_no_place_for_groups_nor_for_others_tasks():
    app = App("rpc", broker="amqp://nobody@127.0.0.1:1//", backend="rpc://")
    with pytest.raises(Unsupported, match="backend="):
        app.GroupResult("g")
    with pytest.raises(Unsupported, match="name a backend"):
        app.AsyncResult("x")


def test_a_task_and_what_it_sent_are_collected(stored):
    first = stored.send_task("t")
    second = stored.send_task("t")
    worker = Worker(stored)
    message = worker.take()
    from queue_core.worker.results.wire import RunInfo  # noqa: PLC0415

    reply = encode_success(Call("t", first.id, [], {}), 1, ran=RunInfo(children=[second.id]))
    message.ack(then=worker.deliverer(message).deliver([Reply(message, first.id, reply)]))
    worker.end(2)
    assert [(one.id, value) for one, value in first.collect(5)] == [(first.id, 1), (second.id, 2)]
    assert first.children == [second]


def test_who_waits_for_a_backend_that_is_away_is_told_so(broker, caplog):
    app = App("sender", broker=broker, backend="redis://127.0.0.1:1")
    try:
        result = app.send_task("t")
        with pytest.raises(TimeoutError, match="in time: Redis at 127.0.0.1:1") as caught:
            result.get(timeout=0.5)
    finally:
        app.close()
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert caplog.text.count("is asked for again: Redis at 127.0.0.1:1") == 1
