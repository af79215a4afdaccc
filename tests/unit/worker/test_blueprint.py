"""Blueprints: the order of steps, and that each of them starts and stops as it should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError
from queue_core.worker.blueprint import Blueprint, StartStopStep, Step, Steps, arrange, load


def step(name, requires=(), *, last=False, base=StartStopStep, **methods):
    return type(name, (base,), {"requires": requires, "last": last, **methods})


class Log(list):
    """A parent that notes what its steps did."""


def noting(name, requires=(), *, last=False, fails=()):
    def method(what):
        def note(self, parent):
            parent.append((what, name))
            if what in fails:
                raise RuntimeError(f"{name} cannot {what}")

        return note

    what = ("create", "start", "close", "stop", "terminate", "shutdown")
    return step(name, requires, last=last, **{item: method(item) for item in what})


@st.composite
def graphs(draw):
    """Names in some order, each requiring some of those that come before it in another order."""
    names = [f"S{number}" for number in range(draw(st.integers(1, 8)))]
    requires = {
        name: draw(st.sets(st.sampled_from(names[:place]))) if place else set()
        for place, name in enumerate(names)
    }
    return requires, draw(st.permutations(names)), draw(st.sampled_from(names))


@given(graphs())
def test_steps_start_after_what_they_require_and_stop_in_reverse(graph):
    requires, given_order, last = graph
    is_last = {n for n in requires if n == last and not any(n in r for r in requires.values())}
    log = Log()
    blueprint = Blueprint(
        "b", [noting(name, requires[name], last=name in is_last) for name in given_order]
    )
    blueprint.start(log)
    blueprint.start(log)
    started = [name for what, name in log if what == "start"]
    assert sorted(started) == sorted(requires)
    for name, needed in requires.items():
        assert all(started.index(other) < started.index(name) for other in needed)
    assert not is_last or started[-1] == last
    assert log[: len(started)] == [("create", name) for name in started]
    for what in ("close", "stop", "shutdown"):
        log.clear()
        getattr(blueprint, what)(log)
        assert log == [(what, name) for name in reversed(started)]
    log.clear()
    blueprint.stop(log)
    blueprint.close(log)
    assert log == []


@given(graphs())
def test_the_order_does_not_depend_on_how_often_it_is_asked_for(graph):
    requires, given_order, _ = graph
    steps = [step(name, requires[name]) for name in given_order]
    assert list(arrange(steps)) == list(arrange(steps))


@given(graphs(), st.data())
def test_a_step_that_fails_to_start_stops_those_that_were_started(graph, data):
    requires, given_order, _ = graph
    bad = data.draw(st.sampled_from(given_order))
    steps = [
        noting(name, requires[name], fails=("start",) if name == bad else ())
        for name in given_order
    ]
    log = Log()
    with pytest.raises(RuntimeError, match=f"{bad} cannot start"):
        Blueprint("b", steps).start(log)
    started = [name for what, name in log if what == "start"]
    assert started[-1] == bad
    assert [name for what, name in log if what == "stop"] == started[::-1]


def test_a_step_that_fails_to_stop_keeps_no_other_from_stopping(caplog):
    log = Log()
    blueprint = Blueprint("b", [noting("A"), noting("B", ["A"], fails=("stop",)), noting("C", "B")])
    blueprint.start(log)
    log.clear()
    blueprint.stop(log)
    assert log == [("stop", "C"), ("stop", "B"), ("stop", "A")]
    assert "step B: stop failed" in caplog.text


def test_to_end_now_is_to_terminate():
    log = Log()
    blueprint = Blueprint("b", [noting("A"), noting("B")])
    blueprint.start(log)
    blueprint.stop(log, now=True)
    assert log[-2:] == [("terminate", "B"), ("terminate", "A")]


def test_a_stopped_step_can_be_started_again_and_is_created_once():
    log = Log()
    blueprint = Blueprint("b", [noting("A")])
    for _ in range(2):
        blueprint.start(log)
        blueprint.stop(log)
    assert [what for what, _ in log] == ["create", "start", "stop", "start", "stop"]


def test_a_step_that_is_not_included_is_neither_created_nor_started_nor_missed():
    log = Log()
    left_out = step("A", include_if=lambda self, parent: False)
    blueprint = Blueprint("b", [left_out, noting("B", ["A"])])
    blueprint.start(log)
    assert list(blueprint.steps) == ["B"]
    assert log == [("create", "B"), ("start", "B")]


def test_steps_that_require_one_another_are_named():
    with pytest.raises(ConfigError, match="require one another: .*A.*B"):
        arrange([step("A", ["B"]), step("B", ["A"])])
    with pytest.raises(ConfigError, match="require one another"):
        arrange([step("A", ["Z"]), step("Z", last=True)])


def test_a_requirement_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="'Mine' requires 'Pol', .*did you mean 'Pool'"):
        arrange([step("Pool"), step("Mine", ["Pol"])])
    with pytest.raises(ConfigError, match="'Mine' requires 'Xyz', .*there are Mine"):
        arrange([step("Mine", ["Xyz"])])


def test_two_steps_of_one_name_and_what_is_no_step_are_refused():
    with pytest.raises(ConfigError, match="two steps are called 'A'"):
        arrange([step("A"), step("A")])
    with pytest.raises(ConfigError, match="is no step"):
        arrange([int])
    with pytest.raises(ConfigError, match="'no.such:Thing' cannot be imported"):
        arrange(["no.such:Thing"])


def test_steps_are_required_by_class_by_name_and_by_path():
    steps = [step("C", [Named]), step("B", "named"), step("A", [PATH]), Named, PATH]
    assert list(arrange(steps)) == ["named", "C", "B", "Step", "A"]


def test_an_app_gives_its_steps_as_paths_that_another_process_can_import():
    steps = Steps()
    steps.add(Step, "a.b:C", "a.b:C")
    assert steps.paths == ["queue_core.worker.blueprint:Step", "a.b:C"]
    assert load(steps.paths[0]) is Step
    steps.discard("a.b:C", "d:E")
    assert list(steps) == [Step]
    steps.add(type("Local", (Step,), {"__qualname__": "f.<locals>.Local"}))
    with pytest.raises(ConfigError, match="cannot be imported by a worker"):
        _ = steps.paths


def test_info_is_what_the_steps_say_of_themselves():
    told = step("A", base=Step, info=lambda self, parent: {"x": parent})
    blueprint = Blueprint("b", [told, step("B")])
    blueprint.create(1)
    assert blueprint.info(1) == {"A": {"x": 1}}


class Named(Step):
    name = "named"


PATH = "queue_core.worker.blueprint:Step"


@pytest.mark.parametrize("nonsense", [lambda self, parent: 1 / 0, lambda self, parent: "words"])
def test_a_step_that_says_nonsense_of_itself_hides_no_other(nonsense, caplog):
    steps = [
        step("A", base=Step, info=nonsense),
        step("B", base=Step, info=lambda self, parent: {"x": parent}),
    ]
    blueprint = Blueprint("test", steps)
    blueprint.create(1)
    assert blueprint.info(1) == {"B": {"x": 1}}
    assert "step A: info failed" in caplog.text
