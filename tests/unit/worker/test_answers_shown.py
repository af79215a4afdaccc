"""How the command line shows what nodes answered."""

import pytest

from queue_core.mailbox import Answers
from queue_core.mailbox.wire import Reply
from queue_core.worker.cli.answers import print_answers


def shown(capsys, **values):
    answers = Answers()
    for node, value in values.items():
        list(answers.take(Reply(node, "ticket", "value", value)))
    print_answers(answers)
    return capsys.readouterr().out


@pytest.mark.parametrize("value", ["one\ntwo", {"ok": "one\ntwo"}])
def test_a_text_of_several_lines_is_shown_as_lines(capsys, value):
    assert shown(capsys, a=value) == "a:\n  one\n  two\n"


def test_a_terminal_gets_nothing_of_a_text_of_several_lines_that_it_would_obey(capsys):
    assert shown(capsys, a={"ok": "one\n\x1b[2Jtwo"}) == "a:\n  one\n  \\x1b[2Jtwo\n"


def test_short_values_stay_on_one_line(capsys):
    assert shown(capsys, b={"ok": "pong"}, a=[1, "two"]) == 'a: [1, "two"]\nb: {"ok": "pong"}\n'
