"""Failures as data, and as exceptions again where that is allowed."""

from __future__ import annotations

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import QueueNotFound, RemoteError, UsageError, encode
from queue_core.worker.endings import MaxRetriesExceeded
from queue_core.worker.failure import MAX_CAUSES, Errors, describe_exception, read_failure
from queue_core.worker.limits import SoftTimeLimitExceeded


def described(raiser):
    try:
        raiser()
    except BaseException as error:
        return describe_exception(error)
    raise AssertionError("it raised nothing")


def travelled(failure):
    """The failure after its way as JSON."""
    return read_failure(json.loads(json.dumps(failure.as_wire())), failure.trace)


def fail(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        KeyError("name"),
        ValueError("bad", 7, None),
        OSError(2, "No such file"),
        NotImplementedError(),
        QueueNotFound("queue q does not exist"),
    ],
)
def test_an_ordinary_error_is_itself_again(error):
    again = Errors().rebuild(travelled(described(lambda: fail(error))))
    assert type(again) is type(error) and again.args == error.args
    assert "in fail" in again.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        StopIteration(1),
        TimeoutError("slow"),
        DeprecationWarning(),
    ],
)
def test_what_would_mean_something_else_here_is_a_remote_error(error):
    again = Errors().rebuild(travelled(described(lambda: fail(error))))
    assert isinstance(again, RemoteError) and again.type_name == type(error).__name__


class Mine(Exception):
    """The program's own."""


class Awkward(Exception):
    """Its argument is not what it is made of."""

    def __init__(self, number):
        super().__init__(f"the number {number + 0}")


def test_a_class_of_the_programs_own_must_be_allowed():
    failure = travelled(described(lambda: fail(Mine("x", 1))))
    errors = Errors()
    assert isinstance(errors.rebuild(failure), RemoteError)
    assert errors.allow(Mine) is Mine
    again = errors.rebuild(failure)
    assert type(again) is Mine and again.args == ("x", 1)
    assert isinstance(Errors().rebuild(failure), RemoteError)  # another app has not allowed it


def test_a_class_that_cannot_be_made_again_is_a_remote_error():
    errors = Errors([Awkward])
    again = errors.rebuild(travelled(described(lambda: fail(Awkward(3)))))
    assert isinstance(again, RemoteError) and again.text == "the number 3"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (SoftTimeLimitExceeded(3.0), "SoftTimeLimitExceeded"),
        (MaxRetriesExceeded("often"), "MaxRetriesExceededError"),
    ],
)
def test_what_celery_has_a_class_for_is_called_as_there(error, name):
    failure = describe_exception(error)
    assert (failure.module, failure.type_name) == ("celery.exceptions", name)
    errors = Errors()
    assert errors.rebuild(failure).type_name == name
    errors.allow(MaxRetriesExceeded)
    assert isinstance(errors.rebuild(describe_exception(MaxRetriesExceeded())), MaxRetriesExceeded)


class Word(str):
    """A text of a library's own."""


class Undecided:
    """As an array or a table: neither true nor false."""

    def __bool__(self):
        raise ValueError("ambiguous")


class Shy:
    def __repr__(self):
        raise SystemExit


class Half:
    def __repr__(self):
        return "\udc80"


class Closed(Exception):
    @property
    def args(self):
        raise LookupError


@pytest.mark.parametrize(
    ("argument", "arrives"),
    [
        (Word("word"), "word"),
        (signal.SIGTERM, 15),
        (10**30, 10**30),
        (10**5000, "<<class 'int'> that cannot be shown: ValueError>"),
        (float("nan"), "nan"),
        ("name-\udc80", "name-\\udc80"),
        (Half(), "\\udc80"),
        (Shy(), "the arguments cannot be shown: SystemExit"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_an_exception_was_given_can_travel(argument, arrives):
    failure = described(lambda: fail(ValueError(argument)))
    assert failure.arguments == [arrives] and type(failure.arguments[0]) is type(arrives)
    assert encode(failure.as_wire(), "json") and encode(failure.trace, "json")


def test_an_exception_that_shows_nothing_is_told_by_its_name():
    failure = described(lambda: fail(ValueError(Undecided())))
    assert "Undecided object" in failure.text
    failure = described(lambda: fail(Closed()))
    assert (failure.type_name, failure.text) == (
        "Closed",
        "the arguments cannot be shown: LookupError",
    )


def test_only_exceptions_can_be_allowed():
    for kind in (SystemExit, int, "ValueError"):
        with pytest.raises(UsageError, match="no class of exceptions"):
            Errors().allow(kind)  # type: ignore[type-var]


def test_a_name_from_a_message_is_never_looked_up_anywhere_else():
    for name, module in (("system", "os"), ("Mine", __name__), ("ValueError", "mine")):
        failure = read_failure({"exc_type": name, "exc_module": module, "exc_message": ["x"]}, "")
        assert isinstance(Errors().rebuild(failure), RemoteError)


def chain():
    try:
        try:
            int("x")
        except ValueError as error:
            raise KeyError("row") from error
    except KeyError:
        raise RuntimeError("while handling")  # noqa: B904 - without from


def test_causes_travel():
    again = Errors().rebuild(travelled(described(chain)))
    assert type(again) is RuntimeError
    assert type(again.__cause__) is KeyError
    assert type(again.__cause__.__cause__) is ValueError
    assert "invalid literal" in str(again.__cause__.__cause__)


def test_a_cause_that_was_hidden_stays_hidden():
    def hide():
        try:
            int("x")
        except ValueError:
            raise KeyError("row") from None

    assert described(hide).cause is None


def test_not_too_many_causes_travel_nor_are_read():
    def nested(depth):
        try:
            if depth:
                nested(depth - 1)
        finally:
            raise ValueError(depth)

    failure = described(lambda: nested(50))
    wire = failure.as_wire()
    assert depth_of(failure) == MAX_CAUSES
    for _ in range(500):
        wire = {"exc_type": "ValueError", "exc_module": "builtins", "exc_cause": wire}
    assert depth_of(read_failure(wire, "")) == MAX_CAUSES


def depth_of(failure):
    return 0 if failure.cause is None else 1 + depth_of(failure.cause)


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["exc_type", "exc_module", "exc_message", "exc_cause", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(wild, wild)
def test_whatever_comes_an_exception_is_made_of_it(what, trace):
    assert isinstance(Errors().rebuild(read_failure(what, trace)), Exception)


def test_a_failure_that_is_cut_keeps_its_name_and_the_end_of_its_traceback():
    failure = described(lambda: fail(ValueError("x" * 10**6)))
    short = failure.shortened()
    assert short.type_name == "ValueError" and len(short.text) == 1000
    assert len(short.trace) == 10_000 and failure.trace.endswith(short.trace)
