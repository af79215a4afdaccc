"""Functions that hear of what an app does, and functions around each run."""

from __future__ import annotations

import itertools

import pytest

from queue_core import ConfigError
from queue_core.worker import App, Task
from queue_core.worker.hooks import TOLD, WorkerHooks

numbers = itertools.count()


@pytest.fixture
def app():
    made = App("hooks", broker=f"memory://hooks-{next(numbers)}")
    yield made
    made.close()


@pytest.fixture
def heard(app):
    """Everything that is told of runs."""
    said = []
    hooks = app.hooks
    hooks.prerun(lambda task, request: said.append(("prerun", task.name, request.args)))
    hooks.success(lambda task, request, value: said.append(("success", value)))
    hooks.failure(lambda task, request, error, trace: said.append(("failure", repr(error))))
    hooks.retry(lambda task, request, error: said.append(("retry", repr(error))))
    hooks.postrun(lambda task, request, status: said.append(("postrun", status)))
    return said


def test_who_wants_to_hears_how_tasks_begin_and_end(app, heard):
    @app.task(name="divide", bind=True, max_retries=1)
    def divide(self: Task, a: int, b: int) -> float:
        try:
            return a / b
        except ZeroDivisionError as error:
            raise self.retry(exc=error) from None

    divide.apply((4, 2))
    assert heard == [("prerun", "divide", [4, 2]), ("success", 2.0), ("postrun", "SUCCESS")]
    heard.clear()
    divide.apply((1, 0))
    error = "ZeroDivisionError('division by zero')"
    assert heard == [
        ("prerun", "divide", [1, 0]),
        ("retry", error),
        ("postrun", "RETRY"),
        ("prerun", "divide", [1, 0]),
        ("failure", error),
        ("postrun", "FAILURE"),
    ]


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("hook", ["prerun", "postrun"])
def test_one_that_raises_is_logged_and_the_others_hear_all_the_same(
    app, heard, caplog, hook, error
):
    def fail(*_told):
        raise error

    getattr(app.hooks, hook)(lambda task, request, status="": fail())

    @app.task
    def quiet() -> int:
        return 1

    assert quiet.apply().get() == 1
    assert f"{hook} failed" in caplog.text and heard[-1] == ("postrun", "SUCCESS")


def test_one_that_does_not_take_what_it_is_told_is_refused_with_what_it_would_be_told(app):
    def signal_style(sender=None, **more):
        raise AssertionError

    with pytest.raises(ConfigError, match=r"with \(task, request, status\).*signal_style does not"):
        app.hooks.postrun(signal_style)
    with pytest.raises(
        ConfigError, match=r"hooks.worker_ready calls its functions with \(worker\)"
    ):
        app.hooks.worker_ready(of_nothing)
    with pytest.raises(ConfigError, match="not a callable"):
        app.hooks.success("text")
    app.hooks.process_init(signal_style)
    app.hooks.success(print)
    assert not app.hooks.postrun


def test_each_hook_says_what_it_tells(app):
    assert TOLD.keys() == {name for name in vars(app.hooks) if name != "around"}


def of_nothing():
    raise AssertionError


def test_one_that_was_removed_hears_no_more(app, heard):
    function = app.hooks.success(lambda *told: heard.append("more"))
    app.hooks.success.remove(function)

    @app.task
    def quiet() -> int:
        return 1

    quiet.apply()
    assert "more" not in heard


def test_a_message_can_be_changed_before_it_is_sent(app):
    sent = []
    app.hooks.after_publish(sent.append)

    @app.hooks.before_publish
    def trace(signature):
        signature.options["headers"] = {"trace": signature.task}

    app.send_task("t")
    app.send_many("u", [(1,), (2,)])
    headers = [letter.publication.properties.headers for letter in sent]
    assert [(each["task"], each["trace"]) for each in headers] == [("t", "t")] + 2 * [("u", "u")]


def test_middleware_is_around_each_run_the_first_outermost(app):
    order = []

    @app.middleware
    def outer(task, request, call):
        order.append(("outer", task.name, request.id))
        try:
            return call() + 1
        finally:
            order.append("outer ends")

    @app.middleware
    def inner(task, request, call):
        order.append("inner")
        return call() * 10

    @app.task(name="two")
    def two() -> int:
        order.append("run")
        return 2

    result = two.apply()
    assert result.get() == 21
    assert order == [("outer", "two", result.id), "inner", "run", "outer ends"]


def test_middleware_may_refuse_a_run(app):
    @app.middleware
    def closed(task, request, call):
        raise PermissionError("closed")

    @app.task
    def never() -> None:
        raise AssertionError

    assert never.apply().failed()


def hears(*_: object) -> None:
    """At the top of a module, where another process finds it."""


def test_what_a_workers_own_process_tells_is_for_functions_that_it_can_import(app):
    assert app.hooks.worker_ready(hears) is hears
    app.hooks.worker_ready(hears)
    app.hooks.revoked.add("shop.hooks:note")
    here = f"{__name__}:hears"
    assert app.info().hooks == {"worker_ready": [here], "revoked": ["shop.hooks:note"]}
    with pytest.raises(ConfigError, match="define it at the top of a module"):
        app.hooks.received(lambda request: None)
    app.hooks.worker_ready.remove(hears)
    assert app.info().hooks == {"revoked": ["shop.hooks:note"]}
    with pytest.raises(ConfigError, match=r"'shop\.hooks:note' cannot be imported"):
        WorkerHooks(app.info().hooks)
    assert WorkerHooks({"worker_ready": [here]}).worker_ready
