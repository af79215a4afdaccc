"""From outcomes to settlements, with a broker in memory and messages that fail on demand."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest

from queue_core import (
    AccessRefused,
    Backoff,
    Connection,
    ConnectionLost,
    DecodeError,
    Exchange,
    Properties,
    Publication,
    Queue,
    StaleDelivery,
    TooLarge,
)
from queue_core.testing.eventually import eventually
from queue_core.worker import App, Signature
from queue_core.worker import settler as settling
from queue_core.worker.composing import composer_of
from queue_core.worker.outcome import (
    Abandoned,
    ChordPart,
    Crashed,
    Done,
    Failed,
    Rejected,
    Retried,
    Returned,
)
from queue_core.worker.protocol import Call, task_headers
from queue_core.worker.results.chords import KeyValueChords
from queue_core.worker.results.key_value import KeyValueDeliverer
from queue_core.worker.results.rpc import RpcDeliverer
from queue_core.worker.sequel import Sequel
from queue_core.worker.settings import plain_queue
from queue_core.worker.settler import Settler

numbers = itertools.count()


class Deliverer:
    """Stores results, failing as often as told before it does."""

    def __init__(self, failures=0, error=None):
        self.failures = failures
        self.error = error or ConnectionLost("the result store is away")
        self.stored = []

    def deliver(self, replies):
        if self.failures:
            self.failures -= 1
            raise self.error
        self.stored += [(task_id, body) for _, task_id, body in replies]
        return []


COMPOSER = composer_of(App("settler").info())


def make(connection, deliverer, queues, **options):
    sequel = Sequel(connection, deliverer, composer=COMPOSER, **options)
    return Settler(connection, sequel, queues)


@pytest.fixture
def connection():
    with Connection(f"memory://settler-{next(numbers)}") as made:
        made.declare(plain_queue("q"))
        yield made


@pytest.fixture
def consumer(connection):
    with connection.consumer("q", decode=False) as made:
        yield made


@pytest.fixture
def settler(connection):
    made = make(connection, RpcDeliverer(connection.producer()), {"q": plain_queue("q")})
    yield made
    made.close()


def take(connection, consumer, **options):
    headers = task_headers(Call("t", "id-1", [], {}), origin="o") | options.pop("headers", {})
    connection.producer().publish(
        [[], {}, {}], "q", headers=headers, correlation_id="id-1", **options
    )
    message = consumer.receive(30)
    assert message is not None
    return message


def empty(connection, name="q"):
    info = connection.inspect(name)
    return not info.ready and not info.unacked


def test_the_result_is_sent_with_the_ack(connection, consumer, settler):
    connection.declare(Queue("replies"))
    settler.settle(take(connection, consumer, reply_to="replies"), Done(b'{"x": 1}', 0.1))
    with connection.consumer("replies") as replies:
        reply = replies.receive(30)
        assert reply is not None
        assert reply.payload == {"x": 1} and reply.properties.correlation_id == "id-1"
    eventually(lambda: empty(connection))


FOREIGN = {
    "a header that has no room for a reason": {
        "headers": {"task": "t", "id": "i", "x": "y" * 10**5}
    },
    "a name of a header that we refuse": {"headers": {"task": "t", "a\nb": 1}},
    "more headers than we send": {"headers": {f"h{number}": number for number in range(1_500)}},
    "a priority that we refuse": {"priority": 255},
    "texts that we refuse": {"type": "t\0", "correlation_id": "c" * 255},
    "a body that is larger than ours": {"body": b"x" * (17 << 20)},
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("outcome", [Rejected("no such task"), Crashed("SIGKILL")])
def test_what_another_program_sent_is_settled_though_we_would_not_send_it(
    connection, consumer, settler, what, outcome
):
    given = dict(FOREIGN[what])
    body = given.pop("body", b"[]")
    sent = Publication("", "q", body, Properties("application/json", "utf-8", **given), "1")
    connection.producer().publish_many([sent])
    for _ in range(1 if isinstance(outcome, Rejected) else 3):
        message = consumer.receive(20)
        assert message is not None
        settler.settle(message, outcome)
    eventually(lambda: empty(connection))
    with connection.consumer("q.dlq", decode=False) as letters:
        letter = letters.receive(30)
    assert letter is not None and letter.body == body
    assert letter.headers["qc-error"] and letter.properties.priority == given.get("priority", 0)


@pytest.mark.parametrize("known", ["i" * 256, "nul\0"])
@pytest.mark.parametrize("part", [None, ChordPart("g", 0, 2, {})])
def test_a_result_whose_id_cannot_be_told_keeps_no_message(connection, consumer, known, part):
    kept = make(connection, KeyValueDeliverer(connection, connection.producer()), {})
    headers = {"task": "t", "id": known}
    connection.producer().publish([[], {}, {}], "q", headers=headers, correlation_id="c")
    kept.settle(consumer.receive(30), Done(b"{}", 0.1, [], part))
    eventually(lambda: empty(connection), 30.0)
    kept.close()


def test_outcomes_that_come_at_once_are_all_counted(connection, consumer, settler):
    two = [take(connection, consumer) for _ in range(2)]
    later = threading.Thread(target=settler.settle, args=(two[1], Done(b"", 0.1)))

    class Slow(Counter):
        def __missing__(self, name):
            if later.ident is None:
                later.start()
                later.join(0.1)  # it waits for this one
            return 0

    settler.counts = Slow()
    settler.settle(two[0], Done(b"", 0.1))
    later.join(30)
    assert settler.counts == {"done": 2}


def test_nobody_waits_any_more_and_the_message_is_acked(connection, consumer, settler):
    settler.settle(take(connection, consumer, reply_to="gone"), Done(b"{}", 0.1))
    eventually(lambda: empty(connection))


def test_the_message_is_acked_only_once_the_result_is_stored(connection, consumer):
    message, settled = take(connection, consumer), []

    class Looking(Deliverer):
        def deliver(self, replies):
            settled.append(message.settled)
            return super().deliver(replies)

    deliverer = Looking(failures=2)
    settler = make(connection, deliverer, {})
    settler.settle(message, Done(b"{}", 0.1))
    eventually(lambda: empty(connection))
    assert deliverer.stored == [("id-1", b"{}")] and settled == [False] * 3
    settler.close()


def test_a_message_whose_result_cannot_be_stored_stays_unacked(connection, consumer):
    settler = make(connection, Deliverer(failures=10**6), {})
    message = take(connection, consumer)
    settler.settle(message, Done(b"{}", 0.1))
    began = time.monotonic()
    settler.close(patient=False)
    assert time.monotonic() - began < 10.0
    assert not message.settled


def test_an_outcome_that_comes_after_the_end_is_settled_or_left(connection, consumer):
    connection.declare(Queue("replies"))
    settler = make(connection, RpcDeliverer(connection.producer()), {})
    first = take(connection, consumer, reply_to="replies")
    second = take(connection, consumer)
    third = take(connection, consumer, reply_to="replies")
    settler.close()
    settler.settle(first, Done(b"{}", 0.1))
    settler.settle(second, Rejected("no"))
    assert first.settled and second.settled and settler.idle
    assert connection.inspect("replies").ready == 1
    connection.close()
    settler.settle(third, Done(b"{}", 0.1))
    assert not third.settled and settler.idle


def test_what_was_not_started_goes_back_uncounted(connection, consumer, settler):
    settler.settle(take(connection, consumer), Returned())
    again = consumer.receive(30)
    assert again is not None and again.attempts == 1 and not again.redelivered
    again.ack()


@pytest.mark.parametrize("outcome", [Abandoned(), Crashed("SIGKILL")])
def test_what_was_cut_off_goes_back_counted(connection, consumer, settler, outcome):
    settler.settle(take(connection, consumer), outcome)
    again = consumer.receive(30)
    assert again is not None and again.attempts == 2 and again.redelivered
    again.ack()


def test_the_third_crash_is_the_last(connection, consumer, settler):
    connection.declare(Queue("replies"))
    message = take(connection, consumer, reply_to="replies")
    for attempt in (1, 2, 3):
        assert message is not None and message.attempts == attempt
        settler.settle(message, Crashed("SIGSEGV"))
        message = consumer.receive(5 if attempt < 3 else 0.2)
    assert message is None
    eventually(lambda: connection.inspect("q.dlq").ready == 1)
    with connection.consumer("replies") as replies:
        reply = replies.receive(30)
        assert reply is not None and reply.payload["result"]["exc_type"] == "WorkerLostError"


def test_dead_letters_go_where_the_queue_says(connection):
    connection.declare(Queue("graveyard"))
    definition = Queue("own", dead_letter_exchange="", dead_letter_routing_key="graveyard")
    connection.declare(definition)
    settler = make(connection, RpcDeliverer(connection.producer()), {"own": definition})
    connection.producer().publish(b"odd", "own")
    with connection.consumer("own", decode=False) as consumer:
        message = consumer.receive(30)
        assert message is not None
        settler.settle(message, Rejected("no task"))
        settler.close()
    with connection.consumer("graveyard", decode=False) as consumer:
        dead = consumer.receive(30)
        assert dead is not None
        assert dead.body == b"odd"
        assert dead.headers["qc-error"] == "no task" and dead.headers["qc-queue"] == "own"


class Damaged:
    """A message whose properties cannot be read."""

    queue, routing_key, body, attempts, settled = "q", "q", b"body", 1, False

    def __init__(self):
        self.sent = None

    @property
    def properties(self):
        raise DecodeError("damaged")

    headers = properties

    def ack(self, then=None):
        self.sent = list(then or ())
        self.settled = True


def test_a_message_with_damaged_properties_is_kept_too(connection, settler):
    message = Damaged()
    settler.settle(message, Rejected("DecodeError: damaged"))
    eventually(lambda: message.settled)
    (copy,) = message.sent
    assert copy.routing_key == "q.dlq" and copy.body == b"body"


class Stale(Damaged):
    """A message that was given to somebody else."""

    properties = Properties()

    def requeue(self, delay=0.0, *, counted=True):
        raise StaleDelivery("somebody else has it")


def test_a_message_that_somebody_else_has_is_let_go(settler, caplog):
    settler.settle(Stale(), Returned())
    assert "may be done twice" in caplog.text


class Small(Deliverer):
    """A store that takes no large results, as MariaDB with a small max_allowed_packet."""

    def deliver(self, replies):
        if any(len(body) > 1000 for _, _, body in replies):
            raise TooLarge("a statement is more than the server takes")
        return super().deliver(replies)


@pytest.mark.parametrize("linked", [False, True])
def test_a_result_that_is_too_large_for_its_store_is_a_failure_and_its_task_is_done(
    connection, consumer, monkeypatch, linked
):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    connection.declare(Queue("next"))
    letter = COMPOSER.compose(Signature("after", options={"task_id": "after", "queue": "next"}))
    deliverer = Small()
    settler = make(connection, deliverer, {})
    settler.settle(take(connection, consumer), Done(b"x" * 2000, 0.1, [letter] * linked))
    eventually(lambda: settler.idle and empty(connection))
    ((task_id, body),) = deliverer.stored
    assert task_id == "id-1" and b"TooLarge" in body and b"more than the server takes" in body
    assert connection.inspect("q").delayed == 0 and connection.inspect("next").ready == linked
    settler.close()


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_too_large_for_the_broker_fails_its_task_once(
    connection, consumer, monkeypatch, linked
):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    for name in ("replies", "next"):
        connection.declare(Queue(name))
    letter = COMPOSER.compose(
        Signature("after", ["x" * 2000], options={"task_id": "after", "queue": "next"})
    )
    settler = make(connection, RpcDeliverer(connection.producer()), {})
    ack = settler._ack

    def ack_little(message, then, **how):
        if any(len(publication.body) > 1500 for publication in then):
            raise TooLarge("a statement is more than the server takes")
        ack(message, then, **how)

    monkeypatch.setattr(settler, "_ack", ack_little)
    reply = b"{}" if linked else b"x" * 2000
    message = take(connection, consumer, reply_to="replies")
    settler.settle(message, Done(reply, 0.1, [letter] * linked))
    eventually(lambda: settler.idle and empty(connection))
    with connection.consumer("replies") as replies:
        told = replies.receive(30)
    assert told is not None and told.payload["result"]["exc_type"] == "TooLarge"
    assert connection.inspect("q").delayed == connection.inspect("next").ready == 0
    settler.close()


def nowhere(task_id):
    """What asks for a task, by way of an exchange that is not there."""
    options = {"task_id": task_id, "exchange": "nowhere", "routing_key": "key"}
    return COMPOSER.compose(Signature("after", options=options))


@pytest.mark.parametrize("acked", [False, True])
@pytest.mark.parametrize(
    ("outcome", "stored"),
    [
        (lambda letters: Done(b"{}", 0.1, letters), {"id-1": b"{}"}),
        (lambda letters: Failed(b"{}", "E", 0.1, letters=letters), {"id-1": b"{}"}),
        (lambda letters: Retried(*letters, b"", "E", 0.1, 0.1), {}),
    ],
)
def test_what_goes_to_an_exchange_that_is_not_there_is_set_aside(
    connection, consumer, monkeypatch, outcome, stored, acked
):
    """Else its task would be run again for ever, or what follows would be lost."""
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    deliverer = Deliverer()
    settler = make(connection, deliverer, {})
    message = take(connection, consumer)
    if acked:
        message.ack(then=())
    settler.settle(message, outcome([nowhere("after")]))
    eventually(lambda: settler.idle and empty(connection))
    assert connection.inspect("q").delayed == 0
    with connection.consumer("q.dlq") as consumer:
        dead = consumer.receive(30)
    assert dead is not None and dead.headers["task"] == "after" and dead.headers["id"] == "after"
    reason = "there is no exchange 'nowhere' to send it to, with the routing key 'key'"
    assert dead.headers["qc-error"] == reason and dead.headers["qc-queue"] == "q"
    kept = dict(deliverer.stored)
    assert "QueueNotFound" in str(kept.pop("after")) and kept == stored
    settler.close()


@pytest.mark.parametrize("acked", [False, True])
def test_what_no_queue_is_bound_for_is_set_aside_and_the_rest_is_sent(
    connection, consumer, monkeypatch, acked
):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    connection.declare(Exchange("unbound"), Queue("next"))
    deliverer = Deliverer()
    settler = make(connection, deliverer, {})
    message = take(connection, consumer)
    if acked:
        message.ack(then=())
    letters = [
        COMPOSER.compose(Signature("after", options={"task_id": name, **target}))
        for name, target in {
            "one": {"exchange": "unbound", "routing_key": "a"},
            "two": {"queue": "next"},
            "three": {"exchange": "unbound", "routing_key": "b"},
        }.items()
    ]
    settler.settle(message, Done(b"{}", 0.1, letters))
    eventually(lambda: settler.idle and empty(connection))
    assert connection.inspect("q").delayed == 0 and connection.inspect("next").ready == 1
    with connection.consumer("q.dlq") as consumer:
        dead = [consumer.receive(30).headers for _ in range(2)]
    assert {headers["id"] for headers in dead} == {"one", "three"}
    assert all("is unroutable: no queue is bound" in found["qc-error"] for found in dead)
    kept = dict(deliverer.stored)
    assert kept.pop("id-1") == b"{}" and set(kept) == {"one", "three"}
    assert all("Unroutable" in str(body) for body in kept.values())
    settler.close()


@pytest.mark.parametrize("is_there", [False, True])
def test_dead_letters_whose_exchange_takes_none_go_to_the_last_resort(
    connection, consumer, monkeypatch, is_there
):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    if is_there:
        connection.declare(Exchange("graves"))
    queues = {"q": Queue("q", dead_letter_exchange="graves")}
    settler = make(connection, Deliverer(), queues)
    settler.settle(take(connection, consumer), Rejected("no such task"))
    eventually(lambda: settler.idle and empty(connection))
    assert connection.inspect("q").delayed == 0
    with connection.consumer("q.dlq") as consumer:
        assert consumer.receive(30).headers["qc-error"] == "no such task"
    settler.close()


def test_a_dead_letter_is_in_one_place(connection, consumer, settler):
    """RabbitMQ would send a copy that still has the header CC to those queues once more."""
    settler.settle(take(connection, consumer, headers={"CC": ["q"]}), Rejected("no such task"))
    eventually(lambda: empty(connection))
    with connection.consumer("q.dlq") as consumer:
        assert "CC" not in consumer.receive(30).headers


def test_an_exchange_that_comes_late_gets_what_waits_for_it(connection, consumer, monkeypatch):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    settler = make(connection, Deliverer(), {})
    tries = itertools.count(1)

    def then(*_, **__):
        if next(tries) == 3:
            connection.declare(Queue("late", exchange=Exchange("nowhere"), routing_key="key"))
        return []

    monkeypatch.setattr(settler._sequel._deliverer, "deliver", then)
    settler.settle(take(connection, consumer), Done(b"{}", 0.1, [nowhere("after")]))
    eventually(lambda: settler.idle and empty(connection))
    assert connection.inspect("late").ready == 1
    settler.close()


def test_a_task_that_is_given_up_keeps_its_error_link_that_goes_nowhere(
    connection, consumer, monkeypatch
):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    deliverer = Deliverer()
    settler = make(connection, deliverer, {})
    handler = Signature("handler", options={"exchange": "nowhere", "routing_key": "key"})
    letter = COMPOSER.compose(Signature("t", options={"task_id": "id-1", "link_error": handler}))
    sent = letter.publication
    sent.exchange, sent.routing_key = "", "q"
    connection.producer().publish_many([sent])
    settler.settle(consumer.receive(30), Rejected("no such task"))
    eventually(lambda: settler.idle and empty(connection))
    with connection.consumer("q.dlq") as consumer:
        dead = [consumer.receive(30) for _ in range(2)]
    reasons = {message.headers["task"]: message.headers["qc-error"] for message in dead}
    assert reasons["t"] == "no such task" and "nowhere" in reasons["handler"]
    assert b"no such task" in dict(deliverer.stored)["id-1"]
    settler.close()


def test_a_part_that_is_too_large_to_be_counted_fails_its_chord(connection, consumer, monkeypatch):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))

    class Full(KeyValueChords):
        def succeeded(self, part, reply):
            raise TooLarge("a statement is more than the server takes")

    deliverer = Deliverer()
    settler = make(connection, deliverer, {}, chords=Full(connection, 60.0))
    part = ChordPart("large", 0, 2, Signature("body", options={"task_id": "body"}).as_wire())
    settler.settle(take(connection, consumer), Done(b"{}", 0.1, [], part))
    eventually(lambda: settler.idle and empty(connection))
    assert connection.inspect("q").delayed == 0
    assert "ChordError" in str(dict(deliverer.stored)["body"])
    settler.close()


class Picky(Deliverer):
    """Takes the results of good tasks only; the others have to `wait`, if anything."""

    def __init__(self, wait=None):
        super().__init__()
        self.wait = wait

    def deliver(self, replies):
        if any(b"bad" in body for _, _, body in replies):
            if self.wait is None:
                raise AccessRefused("this result may not be written")
            self.wait()
        return super().deliver(replies)


def test_results_that_cannot_be_stored_keep_no_other_waiting(connection, consumer, monkeypatch):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=3600.0, cap=3600.0))
    settler = make(connection, Picky(), {})
    bad = [take(connection, consumer) for _ in range(3 * settling.THREADS)]
    for message in bad:
        settler.settle(message, Done(b'"bad"', 0.1))
    good = take(connection, consumer)
    settler.settle(good, Done(b'"good"', 0.1))
    eventually(lambda: good.settled, 20.0)
    assert not any(message.settled for message in bad) and not settler.idle
    settler.close(patient=False)


def test_a_store_that_does_not_answer_keeps_nobody_waiting_who_stores_nothing(connection, consumer):
    answered = threading.Event()
    settler = make(connection, Picky(answered.wait), {})
    connection.declare(Queue("next"))
    letter = COMPOSER.compose(Signature("after", options={"task_id": "after", "queue": "next"}))
    for _ in range(3 * settling.THREADS):
        settler.settle(take(connection, consumer), Done(b'"bad"', 0.1, [letter]))
    linked, crashed = take(connection, consumer), take(connection, consumer)
    settler.settle(linked, Done(b"", 0.1, [letter]))
    settler.settle(crashed, Crashed("SIGKILL"))
    try:
        eventually(lambda: linked.settled and crashed.settled, 20.0)
        assert connection.inspect("next").ready == 1
    finally:
        answered.set()
        settler.close()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))


@pytest.mark.usefixtures("hasty")
def test_a_result_store_that_is_away_for_long_is_waited_for(connection, consumer):
    deliverer = Deliverer(failures=50)
    settler = make(connection, deliverer, {})
    settler.settle(take(connection, consumer), Done(b"{}", 0.1))
    eventually(lambda: empty(connection))
    assert deliverer.stored == [("id-1", b"{}")]
    settler.close()


@pytest.mark.usefixtures("hasty")
def test_a_message_that_cannot_be_settled_goes_back_and_is_not_kept(connection, consumer):
    deliverer = Deliverer(failures=10**9, error=AccessRefused("may not write results"))
    settler = make(connection, deliverer, {})
    settler.settle(take(connection, consumer), Done(b"{}", 0.1))
    eventually(lambda: connection.inspect("q").delayed == 1)
    assert connection.inspect("q").unacked == 0
    settler.close()


@pytest.mark.parametrize("outcome", [Returned(), Abandoned()])
def test_a_pool_never_waits_for_what_was_acked_before_its_run(
    connection, consumer, monkeypatch, outcome
):
    """Such a message is sent again, which takes as long as the broker is away."""
    settler = make(connection, Deliverer(), {})
    message = take(connection, consumer)
    message.ack()
    away = threading.Event()

    def publish_many(publications):
        away.set()
        raise ConnectionLost("it is away")

    monkeypatch.setattr(settler._producer, "publish_many", publish_many)
    monkeypatch.setattr(settler._sequel, "of_unfinished", lambda *_: [None])
    settling_it = threading.Thread(target=settler.settle, args=(message, outcome), daemon=True)
    settling_it.start()
    settling_it.join(20.0)
    assert not settling_it.is_alive()
    assert away.wait(20.0) and not settler.idle
    settler.close(patient=False)


def test_closing_does_not_wait_long_for_a_result_store_that_is_away(
    connection, consumer, monkeypatch
):
    monkeypatch.setattr(settling, "_FINISH", 0.2)
    settler = make(connection, Deliverer(failures=10**9), {})
    for _ in range(20):
        settler.settle(take(connection, consumer), Done(b"{}", 0.1))
    began = time.monotonic()
    settler.close()
    assert time.monotonic() - began < 10
    consumer.close()
    assert connection.inspect("q").ready == 20


def test_a_dead_letter_queue_with_other_arguments_is_used_as_it_is(connection, consumer, settler):
    connection.declare(Queue("q.dlq", max_length=5))
    settler.settle(take(connection, consumer), Rejected("no task"))
    eventually(lambda: empty(connection))
    assert connection.inspect("q.dlq").ready == 1


@pytest.mark.parametrize("error", [None, ConnectionLost("the broker is away")])
def test_results_that_end_while_others_are_sent_are_sent_together(
    connection, consumer, settler, monkeypatch, error
):
    connection.declare(Queue("replies"))
    sizes, busy = [], threading.Event()
    publish = settler._producer.publish_many

    def publish_many(publications):
        sizes.append(len(publications))
        if error is not None:
            raise error
        return publish(publications)

    monkeypatch.setattr(settler._producer, "publish_many", publish_many)
    for _ in range(settling.THREADS):
        settler._storing.submit(busy.wait, 10)
    for number in range(42):
        message = take(connection, consumer, reply_to="replies")
        settler.settle(message, Done(b'{"x": %d}' % number, 0.1))
    busy.set()
    eventually(lambda: empty(connection) and settler.idle)
    assert sizes == [42]
    with connection.consumer("replies") as replies:
        assert sorted(replies.receive(30).payload["x"] for _ in range(42)) == list(range(42))
        assert replies.receive(0.01) is None
