"""Counting the parts of chords, in a store in memory."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import Connection, Unsupported
from queue_core.worker.outcome import ChordPart
from queue_core.worker.results.chords import PREFIX, KeyValueChords

numbers = itertools.count()


@pytest.fixture(scope="module")
def connection():
    with Connection("memory://chords") as made:
        yield made


@pytest.fixture
def chords(connection):
    return KeyValueChords(connection, 60.0)


def parts(size):
    group = f"g-{next(numbers)}"
    return [ChordPart(group, index, size, {"task": "body"}) for index in range(size)]


def reply(part):
    return f"result {part.index}".encode()


def test_the_last_part_gets_all_results_in_order(chords):
    a, b, c = parts(3)
    assert chords.succeeded(c, reply(c)) is None
    assert chords.succeeded(a, reply(a)) is None
    assert chords.succeeded(b, reply(b)) == [reply(a), reply(b), reply(c)]


def test_a_part_that_is_delivered_twice_counts_once(chords):
    a, b = parts(2)
    assert chords.succeeded(a, reply(a)) is None
    assert chords.succeeded(a, reply(a)) is None
    assert chords.succeeded(b, reply(b)) is not None


def test_the_last_part_is_told_again_until_the_body_is_on_its_way(chords, connection):
    a, b = parts(2)
    chords.succeeded(a, reply(a))
    first = chords.succeeded(b, reply(b))
    assert chords.succeeded(b, reply(b)) == first  # the worker died before it could send
    chords.forget(b)
    assert chords.succeeded(b, reply(b)) is None
    assert connection.key_value().key_get(f"{PREFIX}{a.group}-0") is None


def test_a_part_that_comes_again_after_the_last_and_before_the_body_starts_nothing(chords):
    a, b = parts(2)
    chords.succeeded(a, reply(a))  # its worker dies before it could ack
    assert chords.succeeded(b, reply(b)) is not None
    assert chords.succeeded(a, reply(a)) is None
    assert not chords.failed(a)
    assert chords.succeeded(b, reply(b)) is not None


def test_the_first_part_that_fails_decides(chords):
    a, b, c = parts(3)
    assert chords.succeeded(a, reply(a)) is None
    assert chords.failed(b)
    assert chords.failed(b)  # the worker died before it could say so
    assert not chords.failed(c)
    assert chords.succeeded(c, reply(c)) is None


def test_a_chord_that_is_complete_cannot_fail_any_more(chords):
    (a,) = parts(1)
    deadline = ChordPart(a.group, 1, 1, a.body)
    assert chords.succeeded(a, reply(a)) == [reply(a)]
    assert not chords.failed(deadline)
    chords.forget(a)
    assert not chords.failed(deadline)


def test_a_deadline_fails_what_is_not_complete(chords):
    a, b = parts(2)
    chords.succeeded(a, reply(a))
    assert chords.failed(ChordPart(a.group, 2, 2, a.body))
    assert chords.succeeded(b, reply(b)) is None


@given(st.data())
def test_whatever_the_order_one_part_starts_the_body_or_fails_it(data):
    size = data.draw(st.integers(1, 12))
    with Connection("memory://chords-property") as connection:
        chords = KeyValueChords(connection, 60.0)
        every = parts(size)
        bad = data.draw(st.sets(st.integers(0, size - 1), max_size=2))
        order = data.draw(st.permutations(every + data.draw(st.lists(st.sampled_from(every)))))
        started, failed = 0, set()
        for part in order:
            if part.index in bad:
                failed |= {part.index} if chords.failed(part) else set()
            elif (results := chords.succeeded(part, reply(part))) is not None:
                assert results == [reply(one) for one in every]
                started += 1
                chords.forget(part)
        assert (started, len(failed)) == ((0, 1) if bad else (1, 0))


def test_threads_that_end_together_agree_on_the_last(chords):
    every = parts(24)
    complete = []
    barrier = threading.Barrier(8)

    def run(mine):
        barrier.wait()
        for part in mine:
            if chords.succeeded(part, reply(part)) is not None:
                complete.append(part)

    threads = [threading.Thread(target=run, args=(every[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(complete) == 1


def test_a_broker_without_a_store_cannot_count():
    with Connection("amqp://nobody@127.0.0.1:1//") as connection:
        with pytest.raises(Unsupported, match="backend"):
            KeyValueChords(connection, 60.0)
