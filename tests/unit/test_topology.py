"""Topology values: what is refused, in the same words for every transport."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.errors import ConfigError
from queue_core.topology import Binding, Exchange, Queue, check_name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "needs a name"),
        (7, "needs a name"),
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("amq.direct", "belong to the broker"),
        ("a\x00b", "control characters"),
        ("a\nb", "control characters"),
        ("{tag}", "cannot be used"),
        ("jobs.*", "cannot be used"),
        ("[a]", "cannot be used"),
        ("\ud800", "Unicode"),
    ],
)
def test_hostile_names_are_refused_with_the_reason(name, words):
    with pytest.raises(ConfigError, match=words):
        check_name("queue", name)
    with pytest.raises(ConfigError):
        Exchange(name)


@pytest.mark.parametrize(
    "name", ["celery@host.celery.pidbox", "a b", "ü" * 127, "q'; DROP TABLE", "%s", "#", "a/b:c|d"]
)
def test_harmless_names_are_accepted(name):
    assert Queue(name).name == name
    assert Exchange(name).name == name


@given(st.text(min_size=1, max_size=300))
def test_every_accepted_name_fits_amqp(name):
    try:
        check_name("queue", name)
    except ConfigError:
        return
    assert 1 <= len(name.encode()) <= 255


@pytest.mark.parametrize(
    "options",
    [
        {"expires": 0},
        {"expires": -1},
        {"expires": "1h"},
        {"expires": float("nan")},
        {"message_ttl": -0.1},
        {"message_ttl": 10**9},
        {"max_length": -1},
        {"max_length": 1.5},
        {"max_length": True},
        {"max_priority": 0},
        {"max_priority": 10},
        {"max_deliveries": 0},
        {"max_deliveries": 2**31},
        {"max_length": 2**31},
        {"overflow": "drop"},
        {"dead_letter_routing_key": "k"},
        {"routing_key": "k" * 256},
        {"bindings": (Binding("x", "other"),)},
        {"bindings": ("x",)},
    ],
)
def test_wrong_queue_arguments_are_refused_when_the_value_is_made(options):
    with pytest.raises(ConfigError):
        Queue("q", **options)


def test_a_queue_whose_name_is_none_is_refused_and_not_given_a_generated_one():
    with pytest.raises(ConfigError, match="needs a name.*None"):
        Queue(None)


def test_an_unknown_exchange_type_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="direct, topic, fanout, headers"):
        Exchange("x", type="topics")


def test_a_wrong_x_match_is_refused():
    with pytest.raises(ConfigError, match="x-match"):
        Binding("x", "q", arguments={"x-match": "some"})


def test_a_queue_lists_the_binding_of_its_exchange_first():
    more = Binding("y", "q", "other")
    queue = Queue("q", exchange=Exchange("x"), routing_key="key", bindings=(more,))
    assert queue.all_bindings() == (Binding("x", "q", "key"), more)
    assert Queue("q", exchange="x").all_bindings() == (Binding("x", "q"),)
    assert Queue("q").all_bindings() == ()


def test_the_dead_letter_target_is_a_name_or_none():
    assert Queue("q", dead_letter_exchange=Exchange("dlx")).dead_letter_target == "dlx"
    assert Queue("q", dead_letter_exchange="").dead_letter_target == ""
    assert Queue("q").dead_letter_target is None


def test_values_are_immutable_and_hashable():
    queue = Queue("q", arguments={"x-queue-type": "classic"})
    with pytest.raises(AttributeError):
        queue.name = "other"
    assert len({queue, Queue("q", arguments={"x-queue-type": "classic"})}) == 1


def test_what_a_value_says_of_itself_is_what_was_said_of_it():
    queue = Queue("mail", exchange=Exchange("out", type="topic"), max_priority=5)
    said = "exchange=Exchange(name='out', type='topic'), max_priority=5"
    assert repr(queue) == f"Queue(name='mail', {said})"
