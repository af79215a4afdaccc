"""Signatures and canvas: pure values, until somebody sends them."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import DecodeError, Queue, UsageError, encode
from queue_core.worker import App, Signature, chain, chord, group
from queue_core.worker.failure import Failure
from queue_core.worker.following import after_failure, after_success, chord_part, lost
from queue_core.worker.message_template import call_of
from queue_core.worker.protocol import Call, Embed
from queue_core.worker.signature import as_signature, members
from queue_core.worker.unfolding import freeze, unfold

app = App("canvas")


@app.task(name="add")
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


def s(name, *args, **options):
    return Signature(name, list(args), {}, options)


def counting(prefix="id"):
    return map(f"{prefix}-{{}}".format, itertools.count(1)).__next__


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
names = st.text("abc", min_size=1, max_size=3)
singles = st.builds(
    Signature,
    names,
    st.lists(values, max_size=3),
    st.dictionaries(names, values, max_size=2),
    st.dictionaries(st.sampled_from(["queue", "priority"]), st.integers(0, 9)),
    st.none(),
    st.booleans(),
)
canvases = st.recursive(
    singles,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(chain)
        | st.lists(inner, min_size=1, max_size=3).map(group)
        | st.builds(chord, st.lists(inner, min_size=1, max_size=3), inner)
    ),
    max_leaves=6,
)


# --- signatures ----------------------------------------------------------------------------------


@given(singles, st.lists(values, max_size=2), st.lists(values, max_size=2))
def test_arguments_given_later_come_first(signature, later, latest):
    twice = signature.clone(later).clone(latest)
    assert twice.args == ([] if signature.immutable else [*latest, *later]) + signature.args


@given(singles, st.dictionaries(names, values), st.dictionaries(names, values))
def test_keyword_arguments_given_later_win(signature, later, latest):
    twice = signature.clone((), later).clone((), latest)
    given_later = {} if signature.immutable else {**later, **latest}
    assert twice.kwargs == {**signature.kwargs, **given_later}


@given(canvases)
def test_a_signature_makes_the_round_trip_over_json(signature):
    wire = json.loads(encode(signature.as_wire(), "json").body)
    assert as_signature(wire).as_wire() == wire
    assert set(wire) == {"task", "args", "kwargs", "options", "subtask_type", "immutable"}


@given(canvases)
def test_a_signature_is_an_argument_like_any_other(signature):
    wire = json.loads(encode([signature], "json").body)[0]
    assert as_signature(wire).as_wire() == json.loads(json.dumps(signature.as_wire()))


@given(canvases, canvases, canvases)
def test_chaining_is_associative(a, b, c):
    assert (a | b) | c == a | (b | c)
    assert members((a | b) | c) == members(chain(a, b, c))


@given(canvases)
def test_a_copy_shares_nothing_that_set_and_link_change(signature):
    before = json.dumps(signature.as_wire())
    copy = signature.clone(priority=3)
    copy.link_error(s("alarm"))
    copy.set(queue="other", immutable=True)
    assert json.dumps(signature.as_wire()) == before


def test_a_signature_is_what_celery_writes():
    signature = add.s(1, 2).set(queue="q")
    assert signature.as_wire() == {
        "task": "add",
        "args": [1, 2],
        "kwargs": {},
        "options": {"queue": "q"},
        "subtask_type": None,
        "immutable": False,
    }
    two = {"args": [3], "options": {}}
    assert (add.s(1, 2).set(queue="q") | add.s(3)).as_wire() == {
        "task": "celery.chain",
        "args": [],
        "kwargs": {"tasks": [signature.as_wire(), {**signature.as_wire(), **two}]},
        "options": {},
        "subtask_type": "chain",
        "immutable": False,
    }


def test_links_are_kept_once_and_in_order():
    signature = add.s(1)
    assert signature.link(add.s(2)) == add.s(2)
    signature.link(add.s(3))
    signature.link(add.s(2))
    assert signature.options["link"] == [add.s(2), add.s(3)]
    assert add.s(1).on_error(add.s(2)).options["link_error"] == [add.s(2)]


def test_a_task_stands_for_its_signature():
    assert (add.s(1) | total) == (add.s(1) | total.s())
    assert chain(add.s(1), total) == chain(add.s(1), total.s())
    assert group(add) == group(add.s()) and chord([add], total) == chord([add.s()], total.s())
    signature = add.s(1)
    assert signature.link(total) == total.s() and signature.options["link"] == [total.s()]
    linked = add.signature((1,), link=total, link_error=[total])
    (sent,) = unfold(freeze(linked)[0])
    assert call_of(sent, sent.options).embed == Embed([total.s().as_wire()], [total.s().as_wire()])


def test_a_group_has_no_result_to_link_to():
    with pytest.raises(UsageError, match=r"group \| callback"):
        group(add.s(1)).link(add.s(2))
    linked = group(add.s(1)).set(link=add.s(2))
    for whole in (linked, group(linked), chord(linked, total.s())):
        with pytest.raises(UsageError, match=r"group \| callback"):
            freeze(whole)


@pytest.mark.parametrize("value", [3, {}, {"task": 4}, {"task": "t", "args": 3}, None])
def test_what_is_no_signature_is_a_decode_error(value):
    with pytest.raises(DecodeError):
        as_signature(value)


def test_a_queue_travels_by_its_name():
    assert add.s(1).set(queue=Queue("mail")).as_wire()["options"] == {"queue": "mail"}


def test_a_signature_without_an_app_says_how_to_make_one():
    with pytest.raises(UsageError, match=r"task\.s\(\)"):
        s("add").delay()
    with pytest.raises(UsageError, match="no task 'elsewhere'"):
        app.signature("elsewhere")()


# --- what is sent --------------------------------------------------------------------------------


def test_a_chain_sends_its_first_task_with_the_rest_in_reverse_order():
    frozen, handle = freeze(s("a", 1) | s("b") | s("c"), reply_to="r", ids=counting())
    (first,) = unfold(frozen)
    assert (first.task, first.args, first.id) == ("a", [1], "id-1")
    assert [(step["task"], step["options"]) for step in first.options["chain"]] == [
        ("c", {"task_id": "id-3", "reply_to": "r"}),
        ("b", {"task_id": "id-2", "reply_to": "r"}),
    ]
    assert (handle.id, handle.parent.id, handle.parent.parent.id) == ("id-3", "id-2", "id-1")


def test_options_of_a_chain_are_those_of_its_steps_that_have_none():
    whole = (s("a") | s("b", queue="own") | s("c")).set(queue="q", countdown=3)
    whole.link(s("done"))
    whole.link_error(s("alarm"))
    (first,) = unfold(freeze(whole)[0])
    c, b = first.options["chain"]
    assert (first.options["queue"], b["options"]["queue"], c["options"]["queue"]) == (
        "q",
        "own",
        "q",
    )
    assert first.options["countdown"] == 3 and "countdown" not in c["options"]
    assert [len(x["options"]["link_error"]) for x in (b, c)] == [1, 1]
    assert first.options["link_error"] == [s("alarm")]
    assert [x["options"].get("link") for x in (b, c)] == [None, [s("done").as_wire()]]


def test_a_group_sends_each_task_with_its_place():
    frozen, handle = freeze(group(s("a"), s("b") | s("c")), ids=counting())
    a, b = unfold(frozen)
    assert a.options["group_id"] == handle.id == frozen.options["task_id"]
    assert a.options["group_index"] == 0
    assert "group_id" not in b.options
    assert b.options["chain"][0]["options"]["group_index"] == 1
    assert [member.id for member in handle.members] == [
        a.id,
        b.options["chain"][0]["options"]["task_id"],
    ]


def test_groups_in_groups_are_one():
    frozen, handle = freeze(group(s("a"), group(s("b"), s("c"))))
    assert [task.task for task in unfold(frozen)] == ["a", "b", "c"]
    assert len(handle.members) == 3


def test_a_chord_sends_its_header_and_each_part_carries_the_body():
    frozen, handle = freeze(chord([s("a"), s("b")], s("body")), ids=counting())
    a, b = unfold(frozen)
    body = a.options["chord"]
    assert body == b.options["chord"]
    assert (body["task"], body["chord_size"]) == ("body", 2)
    assert body["options"]["task_id"] == handle.id
    assert [a.options["group_index"], b.options["group_index"]] == [0, 1]
    assert handle.parent.id == a.options["group_id"]


def test_options_of_a_group_are_those_of_the_header_that_it_is():
    header = group(add.s(1, 1), add.s(2, 2).set(queue="own")).set(queue="slow")
    for whole in (chord(header, total.s()), header | total.s()):
        sent = unfold(freeze(whole)[0])
        assert [task.options["queue"] for task in sent] == ["slow", "own"]
        assert "queue" not in sent[0].options["chord"]["options"]


def test_an_empty_chord_sends_its_body_at_once():
    (body,) = unfold(freeze(chord([], s("body", 1)))[0])
    assert (body.task, body.args) == ("body", [[], 1])


def test_a_group_in_a_chain_is_a_chord_with_the_rest():
    whole = s("a") | group(s("b"), s("c")) | s("d") | s("e")
    frozen, handle = freeze(whole, ids=counting())
    (a,) = unfold(frozen)
    (step,) = a.options["chain"]
    assert step["task"] == "celery.chord"
    assert [part["task"] for part in step["kwargs"]["body"]["kwargs"]["tasks"]] == ["d", "e"]
    assert handle.parent.id and handle.parent.parent.members is not None


def test_what_celery_puts_behind_a_chord_in_a_chain_follows_its_body():
    chord_wire = freeze(chord([s("b")], s("c")))[0].as_wire()
    rest = s("d").set(task_id="id-d").as_wire()
    call = Call("a", "id-a", [], {}, Embed(chain=[rest, chord_wire]))
    (b,) = after_success(call, 7)
    assert (b.task, b.args) == ("b", [7])
    assert [part["task"] for part in b.options["chord"]["kwargs"]["tasks"]] == ["c", "d"]


def test_a_group_as_part_of_a_chord_hands_on_its_list():
    frozen, _ = freeze(chord([s("a") | group(s("b"), s("c")), s("d")], s("body")))
    a, d = unfold(frozen)
    inner = a.options["chain"][0]
    assert inner["task"] == "celery.chord"
    last = inner["kwargs"]["body"]
    assert last["task"] == "celery.accumulate"
    assert last["options"]["group_index"] == 0 and d.options["group_index"] == 1
    assert last["options"]["chord"]["task"] == "body"


def test_a_deadline_is_one_part_more_that_comes_late_and_fails():
    whole = (group(s("a"), s("b")) | s("body")).set(deadline=60, queue="q")
    *parts, deadline = unfold(freeze(whole)[0])
    assert all("deadline" not in part.options for part in parts)
    assert deadline.task == "queue_core.chord_deadline"
    assert deadline.options["countdown"] == 60 and deadline.options["queue"] == "q"
    part = chord_part(call_of(deadline, deadline.options))
    assert (part.index, part.size) == (2, 2)
    assert part.body == parts[0].options["chord"] and "deadline" not in part.body["options"]


def test_chunks_are_a_group_of_starmaps():
    frozen, handle = freeze(add.chunks([(n, n) for n in range(5)], 2))
    tasks = unfold(frozen)
    assert [task.task for task in tasks] == ["celery.starmap"] * 3
    assert [len(task.kwargs["it"]) for task in tasks] == [2, 2, 1]
    assert len(handle.members) == 3


@given(canvases)
def test_freezing_twice_changes_nothing(signature):
    once, handle = freeze(signature, ids=counting())
    twice, again = freeze(once, ids=counting("other"))
    assert twice.as_wire() == once.as_wire()
    assert again == handle


@given(canvases)
def test_sending_changes_no_signature(signature):
    before = json.dumps(signature.as_wire())
    unfold(freeze(signature, reply_to="r")[0], [1])
    assert json.dumps(signature.as_wire()) == before


@given(canvases)
def test_whatever_is_sent_is_single_tasks_with_ids(signature):
    for task in unfold(freeze(signature)[0]):
        assert task.subtask_type is None and task.id


# --- what follows --------------------------------------------------------------------------------


def test_links_get_the_result_and_the_chain_goes_on():
    embed = Embed(
        callbacks=[s("log", "x").as_wire(), s("log").set(immutable=True).as_wire()],
        chain=[s("last").as_wire(), s("next", 2).set(task_id="id-n").as_wire()],
    )
    call = Call("t", "id-t", [], {}, embed, root_id="root", reply_to="replies")
    log, silent, following = after_success(call, 5)
    assert log.options["reply_to"] == silent.options["reply_to"] == "replies"
    assert (log.args, silent.args, following.args) == ([5, "x"], [], [5, 2])
    assert following.id == "id-n"
    assert [step["task"] for step in following.options["chain"]] == ["last"]
    for task in (log, silent, following):
        assert task.options["root_id"] == "root" and task.options["parent_id"] == "id-t"


def test_error_links_get_the_id_and_carry_the_rest():
    call, failure = Call("t", "id-t", [1], {"b": 0}), Failure("ZeroDivisionError", "", ["no"], "at")
    (alarm,) = after_failure(call, s("alarm", "x").as_wire(), failure, "q")
    assert alarm.args == ["id-t", "x"]
    failed = alarm.options["failed"]
    assert (failed["id"], failed["args"], failed["kwargs"]) == ("id-t", [1], {"b": 0})
    assert failed["exc"]["exc_type"] == "ZeroDivisionError" and failed["traceback"] == "at"


def test_what_is_lost_with_a_task_is_known():
    part = {"group_id": "g", "group_index": 1, "chord": s("body").as_wire() | {"chord_size": 2}}
    rest = [s("c", **part, task_id="c").as_wire(), s("b", task_id="b").as_wire()]
    ids, chord_lost = lost(Call("a", "a", [], {}, Embed(chain=rest)))
    assert ids == ["b", "c"]
    assert (chord_lost.group, chord_lost.index, chord_lost.size) == ("g", 1, 2)
    assert lost(Call("a", "a", [], {})) == ([], None)


def test_the_part_in_a_chord_is_known_to_the_task_that_plays_it():
    frozen, _ = freeze(chord([s("a"), s("b")], s("body")))
    call = call_of(unfold(frozen)[1], unfold(frozen)[1].options)
    part = chord_part(call)
    assert (part.index, part.size, part.body["task"]) == (1, 2, "body")


# --- eagerly -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whole", "value"),
    [
        (add.s(1, 2), 3),
        (add.s(1, 2) | add.s(3) | add.s(4), 10),
        (group(add.s(n, n) for n in range(3)), [0, 2, 4]),
        (chord([add.s(n, n) for n in range(3)], total.s()), 6),
        (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s() | add.s(5), 12),
        (add.s(1, 1) | group(add.s(1), add.s(2)), [3, 4]),
        (group(add.s(1, 1), add.s(2, 2)) | group(total.s(), total.s()), [6, 6]),
        (chord([], total.s()), 0),
        (chord([add.s(1, 1) | add.s(1), chord([add.s(1, 1)], total.s())], total.s()), 5),
        (add.chunks([(1, 2), (3, 4), (5, 6)], 2), [[3, 7], [11]]),
        (add.map([1, 2]), [1, 2]),
        (add.starmap([(1, 2), (3, 4)]), [3, 7]),
        (add.si(1, 1) | add.si(2, 2), 4),
    ],
)
def test_canvas_runs_eagerly(whole, value):
    assert whole.apply().get() == value


@app.task(name="collect")
def collect(*args: object, tag: str = "") -> list[object]:
    """Return what was given, so that the shape of the whole call can be seen in its result."""
    return [tag, *args]


leaves = st.builds(
    lambda tag, given, fixed: (collect.si if fixed else collect.s)(*given, tag=tag),
    st.sampled_from("abc"),
    st.lists(st.integers(0, 3), max_size=2),
    st.booleans(),
)
wholes = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(chain)
        | st.lists(inner, min_size=1, max_size=3).map(group)
        | st.builds(chord, st.lists(inner, min_size=1, max_size=3), inner)
    ),
    max_leaves=8,
)


def meaning(whole, *args):
    """What a canvas is to return: a model in a few lines."""
    if whole.subtask_type == "chain":
        for step in members(whole):
            args = [meaning(step, *args)]
        return args[0]
    if whole.subtask_type == "group":
        return [value for part in members(whole) for value in spread(part, *args)]
    if whole.subtask_type == "chord":
        *parts, body = members(whole)
        return meaning(body, [value for part in parts for value in spread(part, *args)])
    return collect(*([] if whole.immutable else args), *whole.args, **whole.kwargs)


def spread(part, *args):
    """A group in a group gives its members, everything else one value."""
    return meaning(part, *args) if part.subtask_type == "group" else [meaning(part, *args)]


@given(wholes)
def test_a_canvas_means_what_the_model_says(whole):
    assert whole.apply().get() == meaning(whole)


@given(wholes, wholes)
def test_a_chain_of_two_canvases_passes_the_result_on(first, second):
    assert (first | second).apply().get() == meaning(second, meaning(first))


@given(wholes, st.integers(0, 3))
def test_arguments_given_when_it_is_sent_go_to_what_runs_first(whole, argument):
    assert whole.apply((argument,)).get() == meaning(whole, argument)
