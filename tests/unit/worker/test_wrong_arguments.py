"""What is wrong where an app or a task is made is refused there, by name, with what is right."""

from __future__ import annotations

import functools

import pytest

from queue_core import Queue, UsageError
from queue_core.worker import App, Task


def plain(number: int) -> int:
    return number


class Callable:
    def __call__(self) -> None: ...


APPS = {
    "a name": (dict(name=5), "the name of an app is a string, not 5"),
    "a broker": (dict(broker=5), "broker_url .*: a text was expected, not 5"),
    "modules": (dict(include=5), "include .*: a list of names was expected, not 5"),
    "one queue's name": (dict(queues="mail"), r"task_queues .*: .*write \['mail'\]"),
    "no queues": (dict(queues=5), "task_queues .*: queues were expected, not 5"),
    "an empty name": (dict(default_queue=""), "task_default_queue .*: a text was expected, not ''"),
    "a number": (dict(settings=5), "settings are a module, .* or a dict, not 5"),
    "a list": (dict(settings=["a"]), "settings are a module, .* or a dict, not"),
    "nearly a word": (dict(includ=["a"]), "App has no 'includ'; did you mean 'include'?"),
    "a setting": (dict(timezone="UTC"), r"App has no 'timezone'; .*settings={'timezone': \.\.\.}"),
    "nearly a setting": (
        dict(worker_concurency=3),
        r"App has no 'worker_concurency'; .*settings={'worker_concurrency': \.\.\.}",
    ),
    "celery's": (dict(set_as_current=True), "App has no 'set_as_current'; it has name, broker"),
}


@pytest.mark.parametrize("case", APPS)
def test_an_argument_of_an_app_is_checked_where_the_app_is_made(case):
    arguments, words = APPS[case]
    with pytest.raises(UsageError, match=words):
        App(**arguments)


@pytest.mark.parametrize("name", ["redis_password", "database_url", "control_key", "security_key"])
def test_what_an_unknown_argument_of_an_app_holds_is_not_shown(name):
    with pytest.raises(UsageError) as caught:
        App(**{name: "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_modules_with_tasks_and_one_queue_can_be_said_to_an_app():
    app = App(include=["shop.mail", "shop.bills"], queues=Queue("mail"))
    assert app.settings.include == ("shop.mail", "shop.bills")
    assert [queue.name for queue in app.settings.task_queues] == ["mail"]


OPTIONS = {
    "name": (5, "name is a string, not 5"),
    "bind": ("yes", "bind is True or False, not 'yes'"),
    "base": (int, "base is a class derived from Task, not <class 'int'>"),
    "autoretry_for": (5, "autoretry_for is a list of exception classes, not 5"),
    "throws": (None, "throws is a list of exception classes, not None"),
    "retry_kwargs": ({"max_retries": "x"}, "retry_kwargs: max_retries is a whole number"),
    "request_class": (5, "request_class is a class, or its name, not 5"),
    "time_limit": (float("inf"), "time_limit is a number of seconds, not inf"),
    "queue": ("", "queue is a name or a Queue, not ''"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_task_is_checked_where_the_task_is_made(option):
    value, words = OPTIONS[option]
    with pytest.raises(UsageError, match=words):
        App().task(**{option: value})(plain)


FUNCTIONS = {
    "a name": ("mail", "a task is made of a function, not of 'mail'; .*name='mail'"),
    "a number": (5, "a task is made of a function, not of 5"),
    "without parameters": (int, "what .*int.* takes cannot be told; wrap it in a function"),
    "of C": (max, "what .*max.* takes cannot be told; wrap it in a function"),
    "nameless": (functools.partial(plain, 1), "has no name of its own; .*name="),
    "an object": (Callable(), "has no name of its own; .*name="),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_what_cannot_be_a_task_is_refused_with_what_can(case):
    found, words = FUNCTIONS[case]
    with pytest.raises(UsageError, match=words):
        App().task(found)


def test_a_bound_task_needs_a_parameter_for_itself():
    with pytest.raises(UsageError, match="bind=True .* takes its task as the first argument"):
        App().task(bind=True)(lambda: 1)


def test_a_function_without_a_name_is_a_task_if_it_is_given_one():
    app = App()
    for _ in range(2):  # a module that is imported again
        task = app.task(name="one")(functools.partial(plain, 1))
    assert task() == 1 and task.name == "one"


OTHERS = {
    "a class of tasks": (lambda app: app.register_task(Task), "an instance of a class derived"),
    "no task": (lambda app: app.register_task(5), "an instance of a class derived .*, not 5"),
    "middleware": (lambda app: app.middleware(5), "middleware is a function, not 5"),
    "one package": (lambda app: app.autodiscover_tasks("shop"), r"packages .*write \['shop'\]"),
    "no packages": (lambda app: app.autodiscover_tasks(5), "packages are .* names, not 5"),
    "None": (lambda app: app.config_from_object(None), "settings are a module, .*, not None"),
    "a task's name": (lambda app: app.send_task(5), "the name of a task is a string, not 5"),
    "no name": (lambda app: app.send_task(""), "the name of a task is a string, not ''"),
    "a link": (lambda app: app.send_task("a", link=5), "link is a signature or a task, not 5"),
    "headers": (lambda app: app.send_task("a", headers=5), "headers is a mapping .*, not 5"),
    "an id": (lambda app: app.send_task("a", task_id=5), "task_id is a string, not 5"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_wrong_argument_of_an_app_s_method_is_refused_by_name(case):
    call, words = OTHERS[case]
    app = App(broker="memory://wrong-arguments")
    try:
        with pytest.raises(UsageError, match=words):
            call(app)
    finally:
        app.close()
