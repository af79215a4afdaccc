"""Commands and replies as they stand in messages, ours and those of celery and kombu."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.mailbox.wire import (
    Address,
    Command,
    Malformed,
    Reply,
    ReplyAddress,
    read_command,
    read_reply,
)

names = st.text(min_size=1, max_size=20)
keys = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f"), min_size=1, max_size=20)
words = names.filter(str.isprintable)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


class Sent:
    """A message with this payload and these headers."""

    def __init__(self, payload, headers):
        self.payload = payload
        self.headers = headers


addresses = st.builds(
    Address,
    st.none() | st.lists(names, max_size=3).map(tuple),
    st.none(),
    st.none(),
    st.dictionaries(names, names, max_size=2),
)


@given(
    st.builds(
        Command,
        words,
        st.dictionaries(names, plain, max_size=3),
        words,
        addresses,
        st.none() | st.builds(ReplyAddress, names, keys),
        ttl=st.none() | st.floats(0, 1e6),
        expires=st.none() | st.floats(1, 1e12),
        clock=st.integers(0, 2**60),
        peers=st.booleans(),
    )
)
def test_a_command_is_read_as_it_was_written(command):
    assert read_command(Sent(command.body(), command.headers())) == command


@given(
    st.builds(
        Reply,
        names,
        names,
        st.sampled_from(["value", "item", "end"]),
        plain,
        index=st.just(0),
        clock=st.integers(0, 99),
        peers=st.none() | st.just(("a", "b")),
    )
)
def test_an_answer_is_read_as_it_was_written(reply):
    assert read_reply(Sent(reply.body(), reply.headers())) == reply


@pytest.mark.parametrize("kind", ["error", "expired", "refused"])
def test_a_failure_has_celerys_shape_and_is_read_as_it_was_written(kind):
    reply = Reply("a", "t", kind, "no such thing", "KeyError" if kind == "error" else "", clock=1)
    assert reply.body() == {"a": {"error": "no such thing"}}
    assert read_reply(Sent(reply.body(), reply.headers())) == reply


def test_celerys_own_inspect_is_understood():
    body = {
        "method": "ping",
        "arguments": {},
        "destination": None,
        "pattern": None,
        "matcher": None,
        "ticket": "9c0a",
        "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "oid"},
    }
    command = read_command(Sent(body, {"clock": 3, "expires": 1.7e9}))
    assert command.method == "ping"
    assert command.reply_to == ReplyAddress("reply.celery.pidbox", "oid")
    assert command.expires == 1.7e9
    assert command.ttl is None
    assert command.address.includes("anybody", {})


def test_a_cast_of_kombu_without_ticket_or_reply_is_understood():
    command = read_command(Sent({"method": "shutdown", "arguments": {}, "destination": ["a"]}, {}))
    assert command.ticket == ""
    assert command.reply_to is None
    assert command.address.includes("a", {})
    assert not command.address.includes("b", {})


def test_answers_of_celery_are_understood():
    assert read_reply(Sent({"c@h": {"ok": "pong"}}, {"ticket": "t", "clock": 1})).value == {
        "ok": "pong"
    }
    failed = read_reply(Sent({"c@h": {"error": "KeyError('x')"}}, {"ticket": "t"}))
    assert (failed.kind, failed.value) == ("error", "KeyError('x')")


@pytest.mark.parametrize(
    ("address", "name", "labels", "meant"),
    [
        (Address(), "a", {}, True),
        (Address(("a", "b")), "b", {}, True),
        (Address(("a",)), "A", {}, False),
        (Address(None, "web-*", "glob"), "web-1", {}, True),
        (Address(None, "web-*", "glob"), "Web-1", {}, False),
        (Address(None, "w.b", "pcre"), "web-1", {}, True),
        (Address(None, "eb", "pcre"), "web-1", {}, False),
        (Address(labels={"role": "web"}), "x", {"role": "web", "zone": "1"}, True),
        (Address(labels={"role": "web"}), "x", {"role": "db"}, False),
        (Address(("x",), labels={"role": "web"}), "x", {}, False),
    ],
)
def test_who_is_meant(address, name, labels, meant):
    assert address.includes(name, labels) is meant


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ([], "no object"),
        ("ping", "no object"),
        ({}, "missing required field `method`"),
        ({"method": 5}, r"Expected `str`, got `int` - at `\$.method`"),
        ({"method": ""}, "names no method"),
        ({"method": "a", "arguments": [1]}, r"got `array` - at `\$.arguments`"),
        ({"method": "a", "ticket": 5}, r"got `int` - at `\$.ticket`"),
        ({"method": "a", "destination": 5}, r"got `int` - at `\$.destination`"),
        ({"method": "a", "destination": [5]}, r"got `int` - at `\$.destination\[0\]`"),
        ({"method": "a", "pattern": "x"}, "needs a matcher"),
        ({"method": "a", "pattern": "(", "matcher": "pcre"}, "its pattern is no good"),
        ({"method": "a", "reply_to": "x"}, r"got `str` - at `\$.reply_to`"),
        ({"method": "a", "reply_to": {"exchange": "x"}}, "missing required field `routing_key`"),
    ],
)
def test_what_is_no_command_says_why(body, why):
    with pytest.raises(Malformed, match=why):
        read_command(Sent(body, {}))


@given(plain, st.dictionaries(st.sampled_from(["ticket", "clock", "qc-kind", "qc-index"]), plain))
def test_nothing_that_comes_breaks_the_reading(payload, headers):
    for read in (read_command, read_reply):
        try:
            read(Sent(payload, headers))
        except Malformed:
            pass
