"""What a message says of what follows its task may be anything; it costs that message at most."""

from __future__ import annotations

import itertools

import pytest

from queue_core import Backoff, Connection, Properties, Publication, encode
from queue_core.testing.eventually import eventually
from queue_core.worker import App
from queue_core.worker import settler as settling
from queue_core.worker.composing import composer_of
from queue_core.worker.outcome import Job
from queue_core.worker.results.chords import PREFIX, KeyValueChords
from queue_core.worker.results.deliver import choose_deliverer
from queue_core.worker.results.key_value import result_key
from queue_core.worker.results.options import ResultOptions
from queue_core.worker.sequel import Sequel
from queue_core.worker.settings import plain_queue
from queue_core.worker.settler import Settler
from queue_core.worker.trace import run_job

numbers = itertools.count()
app = App("damaged", default_queue="next")


@app.task(name="good")
def good(*_args: object) -> str:
    return "fine"


@app.task(name="bad")
def bad(*_args: object) -> None:
    raise ValueError("no")


@app.task(name="again", max_retries=1)
def again(*_args: object) -> None:
    raise again.retry(countdown=3600)


@pytest.fixture
def connection():
    with Connection(f"memory://damaged-{next(numbers)}") as made:
        made.declare(plain_queue("q"))
        yield made


@pytest.fixture
def settle(connection, monkeypatch):
    """Run a message and settle it; return what became of it. It must not come again."""
    monkeypatch.setattr(settling, "_PATIENCE", Backoff(base=0.001, cap=0.002))
    deliverer = choose_deliverer(connection, None, rpc_only=False, options=ResultOptions())
    sequel = Sequel(
        connection,
        deliverer,
        composer=composer_of(app.info()),
        chords=KeyValueChords(connection, 60.0),
    )
    settler = Settler(connection, sequel, {"q": plain_queue("q")})

    def run(task, embed=None, reply_to=None, **headers):
        task_id = f"id-{next(numbers)}"
        known = {"task": task, "id": task_id, **headers}
        body = encode([[], {}, embed or {}], "json").body
        properties = Properties("application/json", "utf-8", known, 0, task_id, reply_to)
        connection.producer().publish_many([Publication("", "q", body, properties, task_id)])
        with connection.consumer("q", decode=False) as consumer:
            message = consumer.receive(30)
            assert message is not None
            delivery = message.delivery
            job = Job(1, task, "q", 1, False, delivery.raw, delivery.reader.home, delivery.body)
            outcome, _ = run_job(app, job)
            settler.settle(message, outcome)
            eventually(lambda: settler.idle)
            assert message.settled
        left = connection.inspect("q")
        assert (left.ready, left.delayed, left.unacked) == (0, 1 if task == "again" else 0, 0)
        connection.purge("q")
        return outcome

    yield run
    settler.close()


def signature(task="good", options=None, **fields):
    return {
        "task": task,
        "args": [],
        "kwargs": {},
        "options": options or {"task_id": "x"},
        **fields,
    }


FORGED = {
    "chunks of nothing": signature("celery.chunks"),
    "chunks of none": signature(
        "celery.chunks", kwargs={"task": signature(), "it": [1, 2], "n": 0}
    ),
    "a chord without parts": signature("celery.chord", kwargs={"header": [5], "body": signature()}),
    "a chord without a body": signature("celery.chord", kwargs={"header": [signature()]}),
    "arguments for all that are none": signature(
        "celery.group", kwargs={"tasks": [signature()], "kwargs": 5}
    ),
    "a linked group": signature(
        "celery.group", {"link": [signature()]}, kwargs={"tasks": [signature()]}
    ),
    "an id that is none": signature(options={"task_id": 5}),
    "headers that are none": signature(options={"headers": 5}),
    "links that are none": signature(options={"link": [5]}),
    "stamps that are none": signature(options={"stamped_headers": 5}),
    "a place that is none": signature(
        options={"group_id": "g", "group_index": "a", "chord": signature(chord_size=2)}
    ),
    "a place in a group that is none": signature(options={"group_id": 5, "chord": signature()}),
}


@pytest.mark.parametrize("task", ["good", "bad", "again"])
@pytest.mark.parametrize("what", FORGED)
def test_a_damaged_follower_is_given_up_and_its_task_is_settled_once(settle, what, task):
    forged = FORGED[what]
    for embed in (
        {"callbacks": [forged]},
        {"errbacks": [forged]},
        {"chain": [forged]},
        {"chain": [forged, signature()]},
    ):
        settle(task, embed)
    for size in (1, 2):
        group = f"g-{next(numbers)}"
        settle(task, {"chord": {**forged, "chord_size": size}}, group=group, group_index=0)


def test_a_sound_error_link_is_sent_beside_a_damaged_one(settle, connection):
    for forged in FORGED.values():
        links = [forged, signature(options={"task_id": "sound", "queue": "sound"})]
        outcome = settle("bad", {"errbacks": links})
        assert "sound" in [
            letter.publication.properties.correlation_id for letter in outcome.letters
        ]


@pytest.mark.parametrize("task", ["good", "bad"])
@pytest.mark.parametrize("group", ["g" * 600, "nul\0"])
def test_a_chord_that_no_store_can_count_keeps_no_message(settle, caplog, task, group):
    settle(task, {"chord": signature(chord_size=2)}, group=group, group_index=0)
    assert "cannot go on" in caplog.text


@pytest.mark.parametrize("size", [10**10, 10**30])
def test_a_chord_of_more_parts_than_any_has_takes_no_memory(settle, caplog, size):
    for index in (0, size - 1 if size < 2**63 else 2**62):
        settle("good", {"chord": signature(chord_size=size)}, group="g", group_index=index)
    assert "cannot go on" in caplog.text


@pytest.mark.parametrize("queue", ["r" * 300, "nul\0", "line\n"])
def test_a_result_for_a_queue_that_no_queue_can_be_called_is_dropped(settle, caplog, queue):
    settle("good", reply_to=queue)
    assert "is dropped" in caplog.text


def test_who_waits_is_told_although_another_one_left_a_name_that_no_queue_can_have(
    settle, connection
):
    connection.declare(plain_queue("waiting"))
    known = f'{{"status":"PENDING","task_id":"known","waiting":["{"r" * 300}","waiting"]}}'
    connection.key_value().key_set(result_key("known"), known.encode())
    settle("good", id="known")
    assert connection.inspect("waiting").ready == 1


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{}", b"", b"\x91\x01"])
def test_a_chord_whose_count_is_damaged_fails_once(settle, connection, damage):
    connection.key_value().key_set(f"{PREFIX}g", damage)
    body = signature(options={"task_id": "body"}, chord_size=2)
    for index in (0, 1):
        settle("good", {"chord": body}, group="g", group_index=index)
    found = connection.key_value().key_get(result_key("body"))
    assert found is not None and b"ChordError" in found.value
    assert found.version == 1 or b"damaged" in found.value
