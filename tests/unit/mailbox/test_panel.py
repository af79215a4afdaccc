"""The registry of commands: what is known about each, and what its arguments must be."""

from __future__ import annotations

import pytest

from queue_core import ConfigError
from queue_core.mailbox import Panel
from queue_core.mailbox.panel import BadArguments


@pytest.fixture
def panel():
    made = Panel()

    @made.inspect_command(alias="hi")
    def greet(state, name: str, times: int = 1, *, loud: bool = False) -> str:
        """Say hello.

        More about it.
        """
        return f"{state} {name} {times} {loud}"

    @made.control_command(journal=60, variadic="task_id")
    def revoke(state, task_id: list[str], **options):
        return task_id, options

    return made


def test_what_is_known_comes_from_the_handler(panel):
    meta = panel.meta["greet"]
    assert (meta.kind, meta.help, meta.alias) == ("inspect", "Say hello.", "hi")
    assert meta.signature == "greet NAME [TIMES] [LOUD]"
    assert [(a.name, a.type, a.required) for a in meta.arguments] == [
        ("name", str, True),
        ("times", int, False),
        ("loud", bool, False),
    ]
    assert panel.meta["revoke"].kind == "control"
    assert panel.meta["revoke"].signature == "revoke TASK_ID..."
    assert list(panel.data) == ["greet", "revoke"]


def test_a_command_is_found_by_name_and_alias_and_a_typo_names_the_nearest(panel):
    assert panel.find("hi") is panel.find("greet")
    assert "hi" in panel
    with pytest.raises(KeyError, match="did you mean 'greet'"):
        panel.find("gret")


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ({"name": "a"}, {"name": "a"}),
        ({"name": "a", "times": 3}, {"name": "a", "times": 3}),
        ({"name": "a", "times": "3", "loud": "true"}, {"name": "a", "times": 3, "loud": True}),
    ],
)
def test_arguments_get_their_declared_types(panel, arguments, bound):
    assert panel.find("greet").bind(arguments) == bound


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "needs the argument 'name'"),
        ({"name": 5}, "the argument 'name' is wrong: Expected `str`, got `int`"),
        ({"name": "a", "times": "x"}, "the argument 'times' is wrong"),
        ({"name": "a", "times": 1.5}, "the argument 'times' is wrong"),
        ({"name": "a", "size": 1}, "takes no argument 'size'; call it as: greet NAME"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(panel, arguments, why):
    with pytest.raises(BadArguments, match=why):
        panel.find("greet").bind(arguments)


def test_a_handler_with_keywords_takes_what_it_does_not_name(panel):
    arguments = {"task_id": ["a", "b"], "signal": "TERM"}
    assert panel.find("revoke").bind(arguments) == arguments


def test_a_panel_begins_with_the_commands_of_others(panel):
    child = Panel(panel)
    child.inspect_command(lambda state: None, name="mine")
    assert "mine" in child
    assert "mine" not in panel
    assert "hi" in child


def test_a_name_is_given_once(panel):
    with pytest.raises(ConfigError, match="there is a command 'hi' already"):
        panel.register(lambda state: None, name="hi")


def test_a_handler_needs_a_state():
    with pytest.raises(ConfigError, match="takes no state"):
        Panel().register(lambda: None, name="x")
