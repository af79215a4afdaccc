"""Celery's protocol 2 as values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import DecodeError
from queue_core.worker.failure import MAX_REPR, describe_exception, short_repr
from queue_core.worker.protocol import Call, Embed, read_call, task_body, task_headers
from queue_core.worker.results.wire import RunInfo, failure, read_result, success

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
UNSAID = {
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "parent_id": None,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
}
CELERY_BODY = [[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


def test_our_message_has_the_body_of_celerys_and_its_headers_that_say_something():
    call = Call("proj.add", CELERY_HEADERS["id"], [2, 3], {})
    ours = task_headers(call, origin="gen4711@host")
    assert not UNSAID.keys() & ours.keys() and {**ours, **UNSAID} == CELERY_HEADERS
    assert task_body(call) == CELERY_BODY
    assert read_call(ours, CELERY_BODY) == read_call(CELERY_HEADERS, CELERY_BODY)


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


def wire(name, **fields):
    fixed = {"args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    return {"task": name, **fixed, **fields}


def test_what_celerys_message_says_of_followers_and_limits_is_read():
    headers = {
        **CELERY_HEADERS,
        "timelimit": [10, 5],
        "group": "g",
        "group_index": 3,
        "expires": "2026-01-01T00:00:00+00:00",
        "eta": "2025-01-01T00:00:00+00:00",
        "replaced_task_nesting": 1,
        "stamped_headers": ["who"],
        "stamps": {"who": "me"},
        "shadow": "other",
    }
    embed = {
        "callbacks": [wire("log")],
        "errbacks": [wire("alarm")],
        "chain": [wire("last"), wire("next")],
        "chord": wire("body", chord_size=2),
    }
    call = read_call(headers, [[2], {"b": 3}, embed], reply_to="replies")
    assert call.embed == Embed(**embed)
    assert (call.hard_limit, call.soft_limit) == (10, 5)
    assert (call.group, call.group_index, call.reply_to) == ("g", 3, "replies")
    unsaid = {"retries": 0, "parent_id": None}
    assert {**unsaid, **task_headers(call, origin="gen4711@host")} == {
        **headers,
        "argsrepr": "(2,)",
        "kwargsrepr": "{'b': 3}",
    }
    assert task_body(call) == [[2], {"b": 3}, embed]


def test_protocol_1_has_followers_too():
    body = {
        "task": "old.add",
        "id": "x",
        "taskset": "g",
        "timelimit": [None, 4],
        "callbacks": [wire("log")],
        "errbacks": None,
        "chord": wire("body"),
    }
    call = read_call({}, body)
    assert call.embed == Embed(callbacks=[wire("log")], chord=wire("body"))
    assert (call.group, call.soft_limit) == ("g", 4)


@pytest.mark.parametrize("part", ["callbacks", "errbacks", "chain", "chord"])
@pytest.mark.parametrize("damaged", [3, ["x"], [{}], [{"task": 4}], "text"])
def test_a_follower_that_cannot_be_read_is_an_error_and_not_dropped(part, damaged):
    with pytest.raises(DecodeError, match=part):
        read_call({"task": "t", "id": "x"}, [[], {}, {part: damaged}])


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
    except DecodeError:
        return
    assert isinstance(call.name, str) and isinstance(call.id, str)


@given(json_values)
def test_whatever_arrives_as_a_result_is_read_or_refused(payload):
    try:
        read_result(payload)
    except DecodeError:
        return


def test_a_success_makes_the_round_trip():
    call = Call("t", "x", [1], {"b": 2}, parent_id="p", group="g", retries=1)
    ran = RunInfo("worker@host", "q", ["child"])
    message = success(call, [1, 2], date_done="2026-01-01T00:00:00+00:00", ran=ran)
    message = json.loads(json.dumps(message))
    assert message == {
        "status": "SUCCESS",
        "result": [1, 2],
        "traceback": None,
        "children": [[["child", None], None]],
        "date_done": "2026-01-01T00:00:00+00:00",
        "task_id": "x",
        "name": "t",
        "args": [1],
        "kwargs": {"b": 2},
        "worker": "worker@host",
        "retries": 1,
        "queue": "q",
        "parent_id": "p",
        "group_id": "g",
    }
    result = read_result(message)
    assert (result.task_id, result.status, result.value) == ("x", "SUCCESS", [1, 2])
    assert (result.name, result.args, result.kwargs) == ("t", [1], {"b": 2})
    assert (result.worker, result.queue, result.retries) == ("worker@host", "q", 1)
    assert (result.parent_id, result.group_id, result.children) == ("p", "g", ["child"])


def test_a_group_among_the_children_is_its_members():
    one, two, three = ([[name, None], None] for name in ("one", "two", "three"))
    children = [one, [["group", None], [two, three]], "odd", [[7, None], None]]
    message = {"task_id": "x", "status": "SUCCESS", "result": 1, "children": children}
    assert read_result(message).children == ["one", "two", "three"]


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
