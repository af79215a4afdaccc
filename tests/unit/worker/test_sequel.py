"""What is sent together with an ack, with a broker in memory."""

from __future__ import annotations

import itertools
import json

import pytest

from queue_core import Connection, Queue
from queue_core.testing.eventually import eventually
from queue_core.worker import App, Signature, chord
from queue_core.worker.composing import composer_of
from queue_core.worker.following import children, chord_part
from queue_core.worker.message_template import call_of
from queue_core.worker.outcome import (
    Crashed,
    Done,
    Failed,
    Rejected,
    Retried,
    Returned,
    Skipped,
    TimedOut,
)
from queue_core.worker.protocol import Call, Embed, task_body, task_headers
from queue_core.worker.results.chords import KeyValueChords
from queue_core.worker.results.rpc import RpcDeliverer
from queue_core.worker.results.wire import success
from queue_core.worker.sequel import Sequel
from queue_core.worker.settings import plain_queue
from queue_core.worker.settler import Settler
from queue_core.worker.unfolding import freeze, unfold

numbers = itertools.count()
COMPOSER = composer_of(App("sequel", default_queue="next").info())


@pytest.fixture
def connection():
    with Connection(f"memory://sequel-{next(numbers)}") as made:
        made.declare(plain_queue("q"))
        made.declare(Queue("replies"))
        yield made


@pytest.fixture
def settler(connection):
    sequel = Sequel(
        connection,
        RpcDeliverer(connection.producer()),
        composer=COMPOSER,
        chords=KeyValueChords(connection, 60.0),
    )
    made = Settler(connection, sequel, {})
    yield made
    made.close()


@pytest.fixture
def take(connection):
    with connection.consumer("q", decode=False, prefetch=10) as consumer:

        def send_and_receive(call):
            connection.producer().publish(
                task_body(call),
                "q",
                headers=task_headers(call, origin="o"),
                correlation_id=call.id,
                reply_to="replies",
            )
            message = consumer.receive(30)
            assert message is not None
            return message

        yield send_and_receive


@pytest.fixture
def arrived(connection):
    """Everything that comes to a queue: headers and payload."""

    def read(queue, count=1):
        connection.declare(plain_queue(queue) if queue != "replies" else Queue(queue))
        found = []
        with connection.consumer(queue) as consumer:
            for _ in range(count):
                message = consumer.receive(30)
                assert message is not None, f"{len(found)} of {count} came to {queue}"
                found.append(message)
                message.ack()
            assert consumer.receive(0.02) is None
            consumer.flush()
        return found

    return read


def call(**fields):
    return Call("t", "id-t", [1], {"b": 2}, **fields)


def alarm(**options):
    return Signature("alarm", options=options).as_wire()


def letter(name="after", **options):
    return COMPOSER.compose(Signature(name, options={"task_id": f"id-{name}", **options}))


def test_letters_are_sent_with_the_ack_to_queues_that_are_made_for_them(
    connection, settler, take, arrived
):
    settler.settle(take(call()), Done(b"{}", 0.1, [letter(), letter(queue="other")]))
    assert [message.headers["task"] for message in arrived("next")] == ["after"]
    assert len(arrived("other")) == 1 and len(arrived("replies")) == 1
    assert connection.inspect("q").unacked == 0


def test_a_queue_that_was_deleted_is_made_again(connection, settler, take, arrived):
    settler.settle(take(call()), Done(b"", 0.1, [letter()]))
    assert len(arrived("next")) == 1
    connection.delete(plain_queue("next"))
    settler.settle(take(call()), Done(b"", 0.1, [letter()]))
    eventually(lambda: settler.idle)
    assert len(arrived("next")) == 1


def test_what_a_failure_takes_with_it_is_told(settler, take, arrived):
    failed = Failed(b'{"x": 1}', "E", 0.1, "", [letter("alarm")])
    settler.settle(take(call()), failed)
    assert [message.headers["task"] for message in arrived("next")] == ["alarm"]
    assert [message.payload for message in arrived("replies")] == [{"x": 1}]


def test_a_retry_waits_in_the_broker(connection, settler, take):
    again = letter("t", queue="q", countdown=60, retries=1)
    settler.settle(take(call()), Retried(again, b"", "E", 60, 0.1))
    eventually(lambda: connection.inspect("q").delayed == 1)
    assert connection.inspect("q").unacked == 0


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (TimedOut(3.0), "TimeLimitExceeded"),
        (Rejected("no such task", "NotRegistered"), "NotRegistered"),
    ],
)
def test_a_task_that_could_not_fail_by_itself_has_error_links_and_a_chain(
    settler, take, arrived, outcome, kind
):
    rest = [Signature("last", options={"task_id": "id-last"}).as_wire()]
    embed = Embed(errbacks=[alarm(queue="alarms")], chain=rest)
    settler.settle(take(call(embed=embed)), outcome)
    (handler,) = arrived("alarms")
    assert handler.payload[0] == ["id-t"]
    failed = handler.payload[2]["failed"]
    assert (failed["args"], failed["kwargs"], failed["queue"]) == ([1], {"b": 2}, "q")
    assert failed["exc"]["exc_type"] == kind
    replies = {m.payload["task_id"]: m.payload for m in arrived("replies", 2)}
    assert {one["result"]["exc_type"] for one in replies.values()} == {kind}
    assert (replies["id-t"]["args"], replies["id-t"]["name"]) == ([1], "t")
    assert replies.keys() == {"id-t", "id-last"}


@pytest.mark.parametrize("reason", ["revoked", "expired"])
def test_what_was_skipped_has_a_result_and_no_error_links(
    connection, settler, take, arrived, reason
):
    connection.declare(plain_queue("alarms"))
    settler.settle(take(call(embed=Embed(errbacks=[alarm(queue="alarms")]))), Skipped(reason))
    (reply,) = arrived("replies")
    assert reply.payload["status"] == "REVOKED"
    assert reply.payload["result"]["exc_message"] == [reason]
    assert connection.inspect("alarms").ready == 0


def test_a_task_whose_result_is_ignored_has_none_but_its_error_links(
    connection, settler, take, arrived
):
    embed = Embed(errbacks=[alarm(queue="alarms")])
    settler.settle(take(call(embed=embed, ignore_result=True)), TimedOut(1.0))
    assert len(arrived("alarms")) == 1
    assert connection.inspect("replies").ready == 0


# --- chords --------------------------------------------------------------------------------------


def parts(header, body, **options):
    """The calls of the header of a chord, and their parts."""
    frozen, handle = freeze(chord(header, body).set(**options), reply_to="replies")
    tasks = children(unfold(frozen), None)
    return [call_of(task, task.options) for task in tasks], handle


def done(part, value):
    reply = json.dumps(success(part, value, date_done="")).encode()
    return Done(reply, 0.1, [], chord_part(part))


def test_the_last_part_of_a_chord_sends_the_body_with_the_results(settler, take, arrived):
    (a, b), handle = parts([Signature("a"), Signature("b")], Signature("body", ["x"]))
    settler.settle(take(b), done(b, 2))
    eventually(lambda: settler.idle)
    settler.settle(take(a), done(a, 1))
    (body,) = arrived("next")
    assert (body.headers["task"], body.headers["id"]) == ("body", handle.id)
    assert body.payload[0] == [[1, 2], "x"]
    assert body.headers["parent_id"] == a.id


def test_a_part_that_fails_fails_the_body_once(connection, settler, take, arrived):
    body = Signature("body").on_error(Signature("alarm", options={"queue": "alarms"}))
    (a, b, c), handle = parts(
        [Signature("a"), Signature("b"), Signature("c")], body | Signature("d")
    )
    settler.settle(take(a), Failed(b"", "ValueError: no", 0.1, "", [], chord_part(a)))
    eventually(lambda: settler.idle)
    settler.settle(take(b), Failed(b"", "ValueError: no", 0.1, "", [], chord_part(b)))
    settler.settle(take(c), done(c, 3))
    (handler,) = arrived("alarms")
    told = handler.payload[2]["failed"]["exc"]
    assert told["exc_type"] == "ChordError"
    assert told["exc_message"] == ["a part of the chord failed: ValueError: no"]
    eventually(lambda: settler.idle)
    told = [message.payload for message in arrived("replies", 3)]
    failed = [one for one in told if one["status"] == "FAILURE"]
    assert handle.id in [one["task_id"] for one in failed] and len(failed) == 2


def test_a_part_that_was_never_run_fails_the_body_too(settler, take, arrived):
    (a, _), handle = parts([Signature("a") | Signature("a2"), Signature("b")], Signature("body"))
    settler.settle(take(a), TimedOut(1.0))
    told = {message.payload["task_id"]: message.payload for message in arrived("replies", 3)}
    assert told[handle.id]["result"]["exc_type"] == "ChordError"
    assert a.id in told


def test_a_deadline_fails_a_chord_that_is_not_complete_and_no_other(
    connection, settler, take, arrived
):
    for complete in (False, True):
        (a, late), handle = parts([Signature("a")], Signature("body"), deadline=60)
        if complete:
            settler.settle(take(a), done(a, 1))
            assert len(arrived("next")) == 1
            assert len(arrived("replies")) == 1
        settler.settle(take(late), Failed(b"", "ChordTooLate", 0.1, "", [], chord_part(late)))
        eventually(lambda: settler.idle)
        if complete:
            assert connection.inspect("replies").ready == 0
        else:
            (reply,) = arrived("replies")
            assert reply.payload["task_id"] == handle.id


def test_a_body_that_cannot_be_sent_fails(settler, take, arrived, caplog):
    body = Signature("body", options={"priority": "high"})
    (a,), handle = parts([Signature("a")], body)
    settler.settle(take(a), done(a, 1))
    told = {message.payload["task_id"]: message.payload for message in arrived("replies", 2)}
    assert told[handle.id]["result"]["exc_type"] == "ChordError"
    assert "cannot be sent" in caplog.text


def test_a_chord_whose_parts_somebody_else_counts_is_logged_and_the_part_is_acked(
    connection, settler, take, caplog
):
    part = call(group="g", group_index=0, embed=Embed(chord=Signature("body").as_wire()))
    settler.settle(take(part), done(part, 1))
    eventually(lambda: settler.idle and connection.inspect("q").unacked == 0)
    assert "its sender counts its parts elsewhere" in caplog.text


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_the_body_of_a_chord_that_nobody_can_count_fails(connection, take, arrived, outcome):
    """As where a task of an app with rpc results is replaced by a chord."""
    (a, b), handle = parts([Signature("a"), Signature("b")], Signature("body"))
    sequel = Sequel(connection, RpcDeliverer(connection.producer()), composer=COMPOSER)
    without = Settler(connection, sequel, {})
    try:
        for part in (a, b):
            failed = Failed(b"", "ValueError: no", 0.1, "", [], chord_part(part))
            without.settle(take(part), done(part, 1) if outcome == "done" else failed)
        told = [message.payload for message in arrived("replies", 3 if outcome == "done" else 1)]
        (body,) = (one for one in told if one["task_id"] == handle.id)
        assert "there is no store" in body["result"]["exc_message"][0]
    finally:
        without.close()


# --- acked before the run ------------------------------------------------------------------------


def acked(message):
    message.ack()
    return message


def test_what_was_acked_before_its_run_still_has_a_result_and_followers(settler, take, arrived):
    settler.settle(acked(take(call())), Done(b'{"x": 1}', 0.1, [letter()]))
    assert len(arrived("next")) == 1 and len(arrived("replies")) == 1


def test_what_was_acked_and_not_begun_is_sent_again(connection, settler, take):
    settler.settle(acked(take(call())), Returned())
    eventually(lambda: connection.inspect("q").ready == 1)


def test_what_was_acked_and_broken_off_fails_and_does_not_run_again(
    connection, settler, take, arrived
):
    settler.settle(acked(take(call())), Crashed("SIGKILL"))
    (reply,) = arrived("replies")
    assert reply.payload["result"]["exc_type"] == "WorkerLostError"
    eventually(lambda: settler.idle)
    assert connection.inspect("q").ready == 0


@pytest.mark.parametrize("kept", [True, False])
def test_the_failure_of_a_killed_task_is_kept_if_it_says_so_though_its_results_are_ignored(
    connection, take, kept
):
    sequel = Sequel(
        connection,
        RpcDeliverer(connection.producer()),
        composer=COMPOSER,
        keep_errors={"t"} if kept else (),
    )
    then = sequel.of_unfinished(take(call(ignore_result=True)), "TimeLimitExceeded", "late")
    assert [one.properties.correlation_id for one in then] == (["id-t"] if kept else [])
