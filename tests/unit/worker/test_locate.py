"""From module:attribute to an app."""

import itertools
import sys

import pytest

from queue_core.worker.absent import AppNotFound
from queue_core.worker.locate import find_app

numbers = itertools.count()
APP = "from queue_core.worker import App\napp = App('x')\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported, and return its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def write(text, name=None):
        name = name or f"located_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_an_app_is_found_by_module_and_attribute(module):
    assert find_app(f"{module(APP)}:app").name == "x"


def test_the_only_app_of_a_module_needs_no_attribute(module):
    assert find_app(module(APP)).name == "x"


def test_a_mistyped_attribute_names_the_nearest(module):
    name = module(APP)
    with pytest.raises(AppNotFound) as caught:
        find_app(f"{name}:ap")
    assert caught.value.advice == f"-A {name}:app"


def test_a_mistyped_module_names_the_nearest(module):
    module(APP, "warehouse")
    with pytest.raises(AppNotFound) as caught:
        find_app("warehose:app")
    assert caught.value.advice == "-A warehouse:app"
    assert caught.value.trace == ""


def test_a_file_name_is_turned_into_a_module_name():
    with pytest.raises(AppNotFound) as caught:
        find_app("shop/tasks.py:app")
    assert caught.value.advice == "-A shop.tasks:app"


def test_something_else_than_an_app_is_said_to_be_so(module):
    name = module(APP + "other = 3\n")
    with pytest.raises(AppNotFound, match="is no App, but of type int") as caught:
        find_app(f"{name}:other")
    assert caught.value.advice == f"-A {name}:app"


@pytest.mark.parametrize("attribute", ["x", "other"])
def test_a_module_without_an_app_is_told_how_to_have_one(module, attribute):
    name = module("x = 5\n")
    with pytest.raises(AppNotFound) as caught:
        find_app(f"{name}:{attribute}")
    assert caught.value.advice.endswith("app = App(...)")


@pytest.mark.parametrize(
    ("text", "because", "advice"),
    [
        ("raise RuntimeError('early')", "RuntimeError: early", "python -c 'import {name}'"),
        ("def broken(:\n", "SyntaxError", "python -c 'import {name}'"),
        ("import no_such_library.at_all", "ModuleNotFoundError", "pip install no_such_library"),
        ("raise ModuleNotFoundError('x', name=__name__ + '.y')", "x", "python -c 'import {name}'"),
        ("raise ModuleNotFoundError('x', name='celery.result')", "x", "from queue_core.worker"),
        ("raise ModuleNotFoundError('x', name='kombu')", "x", "import it from queue_core instead"),
        ("raise SystemExit(3)", "SystemExit: 3", "python -c 'import {name}'"),
    ],
)
def test_a_module_that_fails_says_how_and_where_and_what_to_do(module, text, because, advice):
    name = module(text)
    with pytest.raises(AppNotFound) as caught:
        find_app(f"{name}:app")
    assert because in caught.value.because
    assert advice.format(name=name) in caught.value.advice
    assert f"{name}.py:1" in caught.value.because
    assert caught.value.trace


def test_two_apps_need_an_attribute(module):
    name = module(APP + "second = App('y')\n")
    with pytest.raises(AppNotFound, match="several apps: app, second"):
        find_app(name)
