"""Celery's protocol 2 as values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import DecodeError, Unsupported
from queue_core.worker.protocol import (
    MAX_REPR,
    Call,
    describe_exception,
    failure,
    read_call,
    read_result,
    short_repr,
    success,
    task_body,
    task_headers,
)

# What celery 5.7 sends for add.delay(2, 3): captured, shortened where values are free.
CELERY_HEADERS = {
    "lang": "py",
    "task": "proj.add",
    "id": "3f2c5e4c-0a4e-4b6e-8f5e-0d7f6a1c2b3d",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "root_id": "3f2c5e4c-0a4e-4b6e-8f5e-0d7f6a1c2b3d",
    "parent_id": None,
    "argsrepr": "(2, 3)",
    "kwargsrepr": "{}",
    "origin": "gen4711@host",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
CELERY_BODY = [[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


def test_our_message_has_the_same_headers_and_body_as_celerys():
    task_id = CELERY_HEADERS["id"]
    ours = task_headers("proj.add", task_id, (2, 3), {}, origin="gen4711@host")
    assert ours == CELERY_HEADERS
    assert list(ours) == list(CELERY_HEADERS)
    assert task_body((2, 3), {}) == CELERY_BODY


def test_celerys_message_is_read():
    assert read_call(CELERY_HEADERS, CELERY_BODY) == Call(
        "proj.add", CELERY_HEADERS["id"], [2, 3], {}, root_id=CELERY_HEADERS["root_id"]
    )


def test_the_correlation_id_stands_in_for_a_missing_id():
    headers = {"task": "t"}
    assert read_call(headers, [[], {}, {}], "abc").id == "abc"


def test_protocol_1_is_read():
    body = {"task": "old.add", "id": "x", "args": [1], "kwargs": {"b": 2}, "retries": 3}
    assert read_call({}, body) == Call("old.add", "x", [1], {"b": 2}, retries=3)


@pytest.mark.parametrize("part", ["callbacks", "errbacks", "chain", "chord"])
def test_what_cannot_be_honoured_is_refused_and_not_dropped(part):
    body = [[], {}, {part: [{"task": "next"}]}]
    with pytest.raises(Unsupported, match=part):
        read_call({"task": "t", "id": "x"}, body)


@pytest.mark.parametrize(
    "body",
    [None, 3, [], [1, 2], [1, {}, {}], ["ab", {}, {}], [[], [], {}], [[], {1: 2}, {}], {"id": "x"}],
)
def test_a_body_that_is_no_task_is_a_decode_error(body):
    with pytest.raises(DecodeError):
        read_call({"task": "t", "id": "x"}, body)


@pytest.mark.parametrize("headers", [{}, {"task": 3, "id": "x"}, {"task": "t", "id": 4}])
def test_headers_that_name_no_task_are_a_decode_error(headers):
    with pytest.raises(DecodeError):
        read_call(headers, [[], {}, {}])


@given(st.dictionaries(st.sampled_from(["task", "id", "eta", "x"]), json_values), json_values)
def test_whatever_arrives_is_read_or_refused(headers, body):
    try:
        call = read_call(headers, body)
    except (DecodeError, Unsupported):
        return
    assert isinstance(call.name, str) and isinstance(call.id, str)


@given(json_values)
def test_whatever_arrives_as_a_result_is_read_or_refused(payload):
    try:
        read_result(payload)
    except DecodeError:
        return


def test_a_success_makes_the_round_trip():
    call = Call("t", "x", [], {}, parent_id="p", group="g")
    message = json.loads(json.dumps(success(call, [1, 2], date_done="2026-01-01T00:00:00+00:00")))
    assert message == {
        "status": "SUCCESS",
        "result": [1, 2],
        "traceback": None,
        "children": [],
        "date_done": "2026-01-01T00:00:00+00:00",
        "task_id": "x",
        "parent_id": "p",
        "group_id": "g",
    }
    result = read_result(message)
    assert (result.task_id, result.status, result.value) == ("x", "SUCCESS", [1, 2])


def test_a_failure_travels_as_data():
    try:
        raise ValueError("bad", {"a": object})
    except ValueError as error:
        failed = describe_exception(error)
    message = json.loads(json.dumps(failure(Call("t", "x", [], {}), failed, date_done="")))
    assert message["result"]["exc_type"] == "ValueError"
    assert message["result"]["exc_module"] == "builtins"
    assert message["result"]["exc_message"][0] == "bad"
    assert "ValueError" in message["traceback"]
    read = read_result(message)
    assert read.status == "FAILURE" and read.failure is not None
    assert str(read.failure).startswith("ValueError: bad, ")


def test_an_exception_that_cannot_be_shown_is_still_described():
    class Hostile(Exception):
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    failed = describe_exception(Hostile(Hostile()))
    assert failed.type_name.endswith("Hostile")
    assert isinstance(failed.arguments[0], str)


def test_a_repr_is_bounded_and_never_raises():
    class Hostile:
        def __repr__(self):
            raise RuntimeError("no")

    assert len(short_repr(["x" * 10_000] * 100)) <= MAX_REPR
    assert "Hostile" in short_repr((Hostile(),))
