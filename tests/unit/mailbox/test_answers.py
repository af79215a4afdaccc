"""What came back: every node that was asked ends in exactly one place."""

import pytest

from queue_core import RemoteError
from queue_core.mailbox import Answers
from queue_core.mailbox.wire import Reply

PLACES = ("errors", "refused", "expired", "missing", "unknown")


@pytest.fixture
def answers():
    made = Answers()
    for reply in (
        Reply("v", "t", "value", 1),
        Reply("s", "t", "item", "x"),
        Reply("s", "t", "item", "y", index=1),
        Reply("s", "t", "end", index=2),
        Reply("f", "t", "error", "no such file", "OSError"),
        Reply("r", "t", "refused", "it is not signed"),
        Reply("e", "t", "expired", "it came too late"),
        Reply("p", "t", "item", "z"),
    ):
        list(made.take(reply))
    made.missing = {"p", "m"}
    made.unknown = {"u"}
    return made


def test_each_node_is_in_one_place(answers):
    places = [set(answers), *(set(getattr(answers, name)) for name in PLACES)]
    assert sorted(node for place in places for node in place) == sorted("vsfrempu")
    assert dict(answers) == {"v": 1, "s": ["x", "y"]}
    assert answers.partial == {"p": ["z"]}
    assert answers.heard == set("vsfre")
    assert not answers.complete
    assert len(answers) == 2
    assert "v" in answers
    assert "f" not in answers


@pytest.mark.parametrize(
    ("node", "error", "why"),
    [
        ("f", RemoteError, "OSError: no such file"),
        ("r", RemoteError, "Refused: it is not signed"),
        ("e", KeyError, "got the command too late"),
        ("m", KeyError, "did not answer in time"),
        ("u", KeyError, "there is no node 'u'"),
    ],
)
def test_who_asks_for_one_that_did_not_answer_hears_why(answers, node, error, why):
    with pytest.raises(error, match=why):
        answers[node]


def test_what_comes_twice_or_out_of_turn_is_counted_and_changes_nothing(answers):
    before = repr(answers)
    for reply in (
        Reply("v", "t", "value", 2),
        Reply("s", "t", "item", "x"),
        Reply("f", "t", "value", 3),
        Reply("p", "t", "item", "later", index=5),
    ):
        assert list(answers.take(reply)) == []
    assert answers.duplicates == 4
    assert repr(answers) == before


def test_all_that_answered_well_is_complete():
    answers = Answers()
    assert list(answers.take(Reply("v", "t", "value", 1))) == [("v", 1)]
    assert answers.complete
    assert answers.late == 0
    assert repr(answers) == "<Answers {'v': 1}>"
