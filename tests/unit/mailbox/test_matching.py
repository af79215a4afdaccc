"""Patterns that strangers send: compared as `re` would, in a time that they cannot stretch."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.mailbox.matching import MAX_PATTERN, BadPattern, check, expression, matches

letters = st.sampled_from("ab-@.")
atoms = st.sampled_from(["a", "b", "-", "@", ".", r"\.", r"\w", r"\W", r"\d", "[ab]", "[^a-]", "$"])
repeats = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,}", "{,2}", "{0,3}", "{2}?"])
patterns = st.recursive(
    atoms | st.just(""),
    lambda inner: (
        st.lists(inner, max_size=4).map("".join)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("(?:{}){}".format, inner, repeats)
        | st.builds("({}){}".format, inner, repeats)
    ),
    max_leaves=12,
)


@given(patterns, st.text(letters, max_size=8))
def test_an_expression_means_what_it_means_to_re(pattern, name):
    assert expression(pattern).matches(name) == (re.match(pattern, name) is not None)


@pytest.mark.parametrize(
    ("pattern", "name", "matched"),
    [
        (r"\w+-1", "web-1", True),
        (r"\w+-1", "web-12", True),
        (r"^\w+-1$", "web-12", False),
        (r"^(web|db)-\d{1,2}$", "db-07", True),
        (r"^(web|db)-\d{1,2}$", "db-007", False),
        (r"celery@[a-z.]+", "celery@host.example", True),
        (r"eb", "web", False),
        (r"WEB", "web", False),
        ("", "web", True),
        ("a$$", "a", True),
        ("größe", "größe-1", True),
    ],
)
def test_names_match_as_operators_expect(pattern, name, matched):
    assert matches("pcre", pattern, name) is matched
    assert (re.match(pattern, name) is not None) is matched


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a|a)*$",
        r"(\w+-?)*!",
        r"(.*)*(.*)*(.*)*x",
        r".*.*.*.*.*.*.*.*.*.*.*.*!",
        r"(a|a)" * 40 + "!",
        r"a?" * 100 + "a" * 50 + "!",
        r"(((((a*)*)*)*)*)*!",
        r"((a{1,20}){1,20})+!",
    ],
)
def test_no_expression_takes_long(pattern):
    begun = time.process_time()
    matches("pcre", pattern, "a" * 255)
    assert time.process_time() - begun < 0.5


def test_no_glob_takes_long():
    begun = time.process_time()
    assert not matches("glob", "*a" * 120 + "!", "a" * 255)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", r"a \( has no \)"),
        ("a)", r"a \) has no \("),
        ("*a", "repeats what cannot be repeated"),
        ("a**", "repeats what cannot be repeated"),
        ("a*+", "repeats what cannot be repeated"),
        (r"(a)\1", r"\\1 is not supported"),
        (r"\bweb", r"\\b is not supported"),
        ("(?=a)", "at letter 1"),
        ("(?i)a", "at letter 1"),
        ("(?P<n>a)", "at letter 1"),
        ("a^", "at letter 2"),
        ("[a", "at letter 1"),
        ("[b-a]", "bad character range"),
        ("[a--b]", "different people"),
        ("a{3,1}", "no number of times"),
        ("a{999}", "no number of times up to 255"),
        ("a{,}", "no number of times"),
        ("((a{99}){99}){99}", "too large"),
        ("a" * (MAX_PATTERN + 1), "256 letters"),
    ],
)
def test_what_cannot_be_compared_says_why(pattern, why):
    with pytest.raises(BadPattern, match=why):
        check("pcre", pattern)


def test_a_glob_has_a_limit_too():
    check("glob", "*" * MAX_PATTERN)
    with pytest.raises(BadPattern, match="256 letters"):
        check("glob", "*" * (MAX_PATTERN + 1))


@given(st.text(max_size=30))
def test_whatever_comes_is_compared_or_refused(pattern):
    try:
        check("pcre", pattern)
    except BadPattern:
        pass
