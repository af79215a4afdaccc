"""Logical time: what Lamport's rules promise, whatever is sent and received by whom and when."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError
from queue_core.mailbox.clock import MAX_JUMP, MAX_TIME, LamportClock, Stamp

times = st.integers(0, MAX_JUMP)


@given(st.lists(times), times)
def test_after_receiving_it_is_later_than_the_message(seen, stamp):
    clock = LamportClock()
    for other in seen:
        clock.adjust(other)
    assert clock.adjust(stamp) > stamp


@given(st.lists(st.one_of(st.none(), times)))
def test_every_step_is_later_than_the_one_before(steps):
    clock = LamportClock()
    values = [clock.forward() if step is None else clock.adjust(step) for step in steps]
    assert values == sorted(set(values))


@given(st.lists(st.tuples(times, st.text("abc", min_size=1)), min_size=3, unique=True))
def test_stamps_have_one_order_by_time_and_then_by_name(pairs):
    stamps = sorted(Stamp(*pair) for pair in pairs)
    for first, second in zip(stamps, stamps[1:], strict=False):
        assert (first.time, first.node) < (second.time, second.node)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.booleans()), max_size=60)
)
def test_an_effect_is_later_than_its_cause_among_many_nodes(events):
    clocks = {name: LamportClock() for name in "abc"}
    latest_cause = dict.fromkeys("abc", 0)
    in_flight = []
    for sender, receiver, arrives in events:
        sent = clocks[sender].forward()
        assert sent > latest_cause[sender]
        latest_cause[sender] = sent
        in_flight.append((receiver, sent))
        if arrives:
            receiver, stamp = in_flight.pop(0)
            now = clocks[receiver].adjust(stamp)
            assert now > max(stamp, latest_cause[receiver])
            latest_cause[receiver] = now


@pytest.mark.parametrize(
    "forged", [-1, "7", 2**63, 2**62, MAX_JUMP + 100, None, 1.5, True, [], {}], ids=repr
)
def test_a_stamp_that_cannot_be_honest_is_ignored_and_counted(forged):
    clock = LamportClock(5)
    assert clock.adjust(forged) == 6
    assert clock.ignored == 1


def test_a_new_node_takes_over_the_time_of_an_old_cluster():
    clock = LamportClock()
    assert clock.adjust(MAX_JUMP) == MAX_JUMP + 1
    assert clock.ignored == 0


def test_eight_threads_never_get_the_same_time_twice():
    clock = LamportClock()
    seen = [[] for _ in range(8)]

    def work(values):
        for step in range(10_000):
            if step % 2:
                values.append(clock.forward())
            else:
                stamp = clock.value
                now = clock.adjust(stamp)
                assert now > stamp
                values.append(now)

    threads = [threading.Thread(target=work, args=(values,)) for values in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [value for values in seen for value in values]
    assert len(set(everything)) == 80_000
    assert all(values == sorted(values) for values in seen)


@pytest.mark.parametrize("value", ["x", -1, 1.5, True, MAX_TIME + 1])
def test_a_clock_begins_at_a_whole_number(value):
    with pytest.raises(ConfigError, match="the value of a clock is a whole number from 0"):
        LamportClock(value)
