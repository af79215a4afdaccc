"""Where tasks go: rules, their order, and how they are combined."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError, Exchange, Queue, UsageError
from queue_core.worker import App
from queue_core.worker.annotations import annotations_of
from queue_core.worker.composing import composer_of
from queue_core.worker.outcome import AppInfo
from queue_core.worker.routes import QueueDefinitions, Router, merged
from queue_core.worker.settings import Settings, plain_queue
from queue_core.worker.signature import Signature


def queue_of(routes: object, name: str, **more: Any) -> Any:
    found = Router(routes).find(name, **more)
    return None if found is None else found.options.get("queue")


# --- one rule after the other --------------------------------------------------------------------


def test_a_full_name_goes_before_patterns_and_those_in_their_order() -> None:
    routes = {"shop.*": "first", "shop.m*": "second", "shop.mail": "exact"}
    assert queue_of(routes, "shop.mail") == "exact"
    assert queue_of(routes, "shop.mall") == "first"
    assert queue_of(routes, "other") is None


def test_regular_expressions_are_compiled_or_text_that_says_so() -> None:
    for key in (re.compile(r"shop\.(image|video)"), r"re:shop\.(image|video)"):
        assert queue_of({key: "media"}, "shop.image.cut") == "media"
        assert queue_of({key: "media"}, "my.shop.image") is None
    with pytest.raises(ConfigError, match="no regular expression"):
        Router({"re:(": "x"})


def test_in_a_list_the_first_one_that_answers_counts() -> None:
    asked = []

    def by_function(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        asked.append((name, args, kwargs, options))
        return {"queue": "slow"} if args else None

    routes = [{"a": "one"}, by_function, [("b*", "two"), (re.compile("c"), "three")]]
    assert queue_of(routes, "a") == "one"
    assert asked == []
    assert queue_of(routes, "b1", args=[1], kwargs={"x": 2}, options={"priority": 3}) == "slow"
    assert asked == [("b1", [1], {"x": 2}, {"priority": 3})]
    assert queue_of(routes, "b1") == "two"
    assert queue_of(routes, "c") == "three"
    assert not Router(routes).static and Router(routes[:1]).static


def by_name(name: str, *_: Any, **__: Any) -> str | None:
    return "named" if name == "n" else None


class OldRouter:
    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return {"queue": "old", "routing_key": "key"} if task == "o" else None


def test_functions_may_be_named_and_routers_may_be_classes() -> None:
    for routes in (f"{__name__}:by_name", [f"{__name__}.by_name"], by_name):
        assert queue_of(routes, "n") == "named"
        assert queue_of(routes, "m") is None
    for routes in (OldRouter, [OldRouter()]):
        assert queue_of(routes, "o") == "old"
        assert queue_of(routes, "m") is None


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ({"a": {"qeue": "x"}}, "did you mean 'queue'"),
        ({"a": 3}, "a route is the name of a queue"),
        ({3: "a"}, "no name of a task"),
        ({"": "a"}, "no name of a task"),
        ([3], "neither a dict nor a function"),
        ([["a", "b", "c"]], "not of \\(name, route\\)"),
        ("no_such_module:router", "cannot be imported"),
    ],
)
def test_what_is_no_route_is_refused_when_it_is_read(routes: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Router(routes)


def test_a_function_that_returns_nonsense_is_an_error_at_the_call() -> None:
    with pytest.raises(ConfigError, match="function .*: a route is"):
        queue_of(lambda *_, **__: 3, "a")


NAMES = st.text("ab.", min_size=1, max_size=4)
KEYS = st.text("ab.*?", min_size=1, max_size=4)


@given(st.dictionaries(KEYS, st.sampled_from("xyz")), NAMES)
def test_a_dict_answers_as_its_description_says(routes: dict[str, str], name: str) -> None:
    matching = [key for key in routes if fnmatch.fnmatchcase(name, key)]
    expected = routes.get(name) or (routes[matching[0]] if matching else None)
    assert queue_of(routes, name) == expected


@given(st.dictionaries(KEYS, st.sampled_from("xyz")), NAMES)
def test_what_travels_to_the_worker_routes_alike(routes: dict[str, str], name: str) -> None:
    assert queue_of(Router(routes).portable(), name) == queue_of(routes, name)


# --- the destination -----------------------------------------------------------------------------


def test_who_names_a_queue_or_an_exchange_decides_on_the_whole_destination() -> None:
    weaker = {"queue": "a", "routing_key": "a.key", "priority": 3}
    assert merged(weaker, {"queue": "b"}) == {"queue": "b", "priority": 3}
    assert merged(weaker, {"exchange": "e"}) == {"exchange": "e", "priority": 3}
    assert merged(weaker, {"routing_key": "k"}) == {**weaker, "routing_key": "k"}
    assert merged(weaker, {"priority": 5}) == {**weaker, "priority": 5}


def test_call_task_route_and_default_queue_in_this_order() -> None:
    app = App(
        "routes",
        broker="memory://routes",
        settings={
            "task_routes": {"own": "routed", "plain": {"queue": "routed", "priority": 4}},
            "task_default_priority": 2,
        },
    )
    app.task(name="own", queue="own-queue")(lambda: None)

    def sent(name: str, **options: Any) -> tuple[str, str, int]:
        letter = app.composer.compose(app.signature(name, task_id="x", **options))
        assert letter.queue is not None
        properties = letter.publication.properties
        return letter.queue.name, letter.publication.routing_key, properties.priority

    assert sent("own", queue="called") == ("called", "called", 2)
    assert sent("own") == ("own-queue", "own-queue", 2)
    assert sent("plain") == ("routed", "routed", 4)
    assert sent("plain", priority=9) == ("routed", "routed", 9)
    assert sent("other") == ("celery", "celery", 2)


def test_the_worker_composes_by_the_same_routes() -> None:
    app = App(
        "routes",
        broker="memory://routes",
        settings={
            "task_routes": [{"mail.*": {"queue": Queue("post", max_priority=3)}}, by_name],
            "task_default_queue": "usual",
        },
    )
    info: AppInfo = app.info()
    composer = composer_of(info)
    for name, queue in (("mail.bill", "post"), ("other", "usual")):
        letter = composer.compose(Signature(name, options={"task_id": "x"}))
        assert letter.queue is not None and letter.queue.name == queue
        if queue == "post":
            assert letter.queue.max_priority == 3


def test_each_option_is_explained_by_who_says_it() -> None:
    app = App("routes", broker="memory://routes", settings={"task_routes": {"a*": "routed"}})
    app.task(name="a1", priority=3)(lambda: None)
    settled = app.settled
    said = settled.rules.explain(Signature("a1"), settled.origins)
    assert [(one.option, one.value) for one in said] == [("queue", "routed"), ("priority", 3)]
    assert said[0].because == "task_routes['a*'] (a dict in the program)"
    assert said[1].because == "the task's own options"
    (only,) = settled.rules.explain(Signature("b"), settled.origins)
    assert (only.shown, only.because) == ("'celery'", "task_default_queue, by default")


# --- queues --------------------------------------------------------------------------------------


def test_queues_that_are_not_there_are_made_or_refused() -> None:
    known = (Queue("mail", max_priority=3),)
    book = QueueDefinitions(Settings(task_queues=known, task_queue_max_priority=5))
    assert book.find("mail").max_priority == 3
    assert book.find("other").max_priority == 5
    assert book.find().name == "celery" and book.find().max_priority == 5
    assert book.find(Queue("own")).max_priority is None
    strict = QueueDefinitions(Settings(task_queues=known, task_create_missing_queues=False))
    assert strict.find("mail") is known[0]
    with pytest.raises(UsageError, match="'mial' is not in task_queues.*did you mean 'mail'"):
        strict.find("mial")


def test_the_default_queue_is_bound_as_the_settings_say() -> None:
    queue = QueueDefinitions(
        Settings(
            task_default_queue="orders",
            task_default_exchange="shop",
            task_default_exchange_type="topic",
            task_default_routing_key="orders.#",
        )
    ).find()
    assert (queue.name, queue.routing_key) == ("orders", "orders.#")
    assert (queue.exchange.name, queue.exchange.type) == ("shop", "topic")  # type: ignore[union-attr]


# --- annotations ---------------------------------------------------------------------------------


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class Annotation:
    def annotate(self, task: Any) -> dict[str, Any] | None:
        return {"max_retries": 1} if task.name == "a" else None

    def annotate_any(self) -> dict[str, Any]:
        return {"max_retries": 2, "priority": 2}


def test_a_full_name_goes_before_globs_and_all_before_the_star() -> None:
    setting = {
        "a.b": {"rate_limit": "1/s"},
        "*": {"rate_limit": "4/s", "priority": 4},
        "a.*": {"rate_limit": "3/s", "max_retries": 3},
        "?.?": {"rate_limit": "2/s"},
    }
    assert annotations_of(setting, Named("a.b")) == {
        "rate_limit": "1/s",
        "priority": 4,
        "max_retries": 3,
    }
    assert annotations_of(setting, Named("a.x"))["rate_limit"] == "2/s"
    assert annotations_of(setting, Named("xx"))["rate_limit"] == "4/s"
    assert annotations_of(None, Named("a")) == {}


def test_annotations_may_be_objects_and_lists_in_which_the_later_counts() -> None:
    for setting in (
        Annotation(),
        [f"{__name__}:Annotation"],
        [{"a": {"max_retries": 9}}, Annotation()],
    ):
        assert annotations_of(setting, Named("a")) == {"max_retries": 1, "priority": 2}
    assert annotations_of(Annotation(), Named("b"))["max_retries"] == 2


def test_wrong_annotations_are_refused_with_their_place() -> None:
    for setting, words in (
        ({"a": 3}, "is a dict of options"),
        (3, "neither a dict"),
        ({"a": {"@__call__": len}}, "app.middleware"),
        ({"a": {"max_retry": 1}}, "a task has no option 'max_retry'"),
        ({"a": {"rate_limit": "often"}}, "no rate"),
    ):
        app = App("annotations", broker="memory://a", settings={"task_annotations": setting})
        app.task(name="a")(lambda: None)
        with pytest.raises(
            ConfigError, match=rf"task_annotations \(a dict in the program\): .*{words}"
        ):
            app.info()


def test_a_function_can_be_a_hook() -> None:
    failed = []

    def note(self: Any, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: str) -> None:
        failed.append((self.name, args))

    app = App("a", broker="memory://a", settings={"task_annotations": {"*": {"on_failure": note}}})
    task = app.task(name="a")(lambda number: 1 / number)
    assert "on_failure" not in task.hooks
    assert task.apply((0,)).failed()
    assert failed == [("a", [0])]
    assert app.info().settings.task_annotations is None


def test_functions_are_asked_for_the_workers_own_process_which_does_not_run_them() -> None:
    def route(name: str, args: Any, *_: Any, **__: Any) -> Any:
        if name == "shop.picky":
            return {"queue": f"shard-{args[0]}"}
        return {"shop.mail": "mail", "shop.bill": {"queue": Queue("money")}}.get(name)

    app = App("shop", settings={"task_routes": [route, {"shop.*": "shop"}]})
    for name in ("mail", "bill", "other", "picky"):
        app.task(name=f"shop.{name}")(lambda *args: None)
    app.task(name="shop.own", queue="own")(lambda: None)
    composer = composer_of(app.info())
    found = {
        name: composer.compose(Signature(f"shop.{name}", options={"task_id": "1"})).queue
        for name in ("mail", "bill", "other", "picky", "own")
    }
    assert {name: queue.name for name, queue in found.items() if queue is not None} == {
        "mail": "mail",
        "bill": "money",
        "other": "shop",
        "picky": "shop",  # what it needs, only a call has; the next rule counts
        "own": "own",
    }


BIG = Queue("big", exchange=Exchange("big"), routing_key="big", max_priority=9)


def app_with(route, **settings):
    app = App("routed", broker="memory://routed", settings={"task_routes": [route], **settings})
    app.task(name="report")(lambda pages=1: pages)
    return app


def test_a_queue_with_arguments_that_a_function_returns_is_known_to_workers():
    app = app_with(lambda name, *_, **__: BIG if name == "report" else None)
    assert app.info().queues == [BIG]
    assert app.composer.compose(app.signature("report", task_id="x")).queue == BIG


@pytest.mark.parametrize("known", [{}, {"task_queues": [BIG]}])
def test_one_that_workers_cannot_know_is_refused_with_where_to_put_it(known):
    app = app_with(lambda name, args, *_, **__: BIG if args else None, **known)
    assert app.info().queues == list(known.get("task_queues", []))
    call = app.signature("report", (9,), task_id="x")
    if known:
        assert app.composer.compose(call).queue == BIG
    else:
        with pytest.raises(ConfigError, match="queue 'big' .*; put it in task_queues"):
            app.composer.compose(call)


def test_a_plain_queue_may_be_returned_for_certain_arguments_only():
    app = app_with(lambda name, args, *_, **__: plain_queue("big") if args else None)
    assert app.composer.compose(app.signature("report", (9,), task_id="x")).queue.name == "big"
