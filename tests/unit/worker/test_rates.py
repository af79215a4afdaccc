"""Rate limits: never more runs than allowed, and messages that go away come back one by one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError, Connection
from queue_core.testing.clocks import FakeClock
from queue_core.worker.rates import MAX_AWAY, OwnBucket, SharedBucket, is_shared, per_second


def test_rates_are_written_as_celery_writes_them():
    assert per_second("10/s") == 10.0
    assert per_second(" 90 / m ") == 1.5
    assert per_second("36/h") == 0.01
    assert per_second("8640/d") == 0.1
    assert per_second(2.5) == 2.5 and per_second("3") == 3.0
    assert per_second(None) is per_second(0) is per_second("0/m") is per_second("") is None


@pytest.mark.parametrize("rate", ["often", "1/x", "-1/s", "/s", True, [1]])
def test_what_is_no_rate_is_refused_with_examples(rate):
    with pytest.raises(ConfigError, match="write 10/s"):
        per_second(rate)


def test_a_limit_for_all_workers_says_so():
    assert per_second("10/s cluster") == 10.0
    assert is_shared("10/s cluster") and not is_shared("10/s") and not is_shared(10)


numbers = itertools.count()


@pytest.fixture(scope="module")
def store():
    with Connection("memory://rates") as connection:
        yield connection.key_value()


def own(rate, clock, store):
    return OwnBucket(rate, clock)


def shared(rate, clock, store):
    return SharedBucket(rate, store, f"task-{next(numbers)}", clock)


both = pytest.mark.parametrize("make", [own, shared])


@both
@given(rate=st.floats(0.01, 100.0), pauses=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=60))
def test_in_no_time_are_there_more_starts_than_the_rate_and_one_second_allow(
    make, store, rate, pauses
):
    clock, starts = FakeClock(), []
    bucket = make(rate, clock, store)
    for pause in pauses:
        clock.advance(pause)
        wait = bucket.take()
        assert 0.0 <= wait <= MAX_AWAY
        if wait == 0.0:
            starts.append(clock.monotonic())
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            allowed = max(1.0, rate) + (starts[last] - starts[first]) * rate
            assert last - first + 1 <= allowed * (1 + 1e-6) + 1e-4


@both
@given(rate=st.floats(0.05, 50.0))
def test_who_comes_back_when_told_may_start(make, store, rate):
    clock = FakeClock()
    bucket = make(rate, clock, store)
    for _ in range(20):
        while wait := bucket.take():
            assert wait <= 1.0 / rate + 1e-3
            clock.advance(wait + 1e-6)


@both
def test_those_that_go_away_come_back_one_after_the_other(make, store):
    bucket = make(2.0, FakeClock(), store)
    waits = [bucket.take() for _ in range(6)]
    assert waits == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.5, 2.0], abs=1e-6)


@both
def test_nobody_goes_away_for_long(make, store):
    bucket = make(1.0, FakeClock(), store)
    assert max(bucket.take() for _ in range(1000)) <= MAX_AWAY


def test_workers_share_a_limit(store):
    clock = FakeClock()
    workers = [SharedBucket(4.0, store, "shared", clock) for _ in range(3)]
    started = 0
    for _ in range(400):
        started += sum(worker.take() == 0.0 for worker in workers)
        clock.advance(0.01)
    assert started == pytest.approx(4 + 4 * 4, abs=1)


def test_workers_that_start_at_once_do_not_start_twice(store):
    clock = FakeClock()
    slow, quick = (SharedBucket(1.0, store, "race", clock) for _ in range(2))
    get = store.key_get

    class Raced:
        """Another worker takes the token between our look and our grasp."""

        def key_get(self, key):
            seen = get(key)
            if raced:
                raced.pop()
                assert quick.take() == 0.0
            return seen

        key_set = staticmethod(store.key_set)

    raced = [1]
    slow._store = Raced()
    assert slow.take() > 0.0


@pytest.mark.parametrize("damage", [b"", b"soon", b"\xff", b"nan", b"inf", b"1e300", b"-inf"])
def test_a_damaged_entry_is_written_anew_and_stops_no_task(store, damage):
    clock = FakeClock()
    bucket = SharedBucket(2.0, store, f"damaged-{next(numbers)}", clock)
    store.key_set(bucket._key, damage)
    assert [bucket.take() for _ in range(3)] == pytest.approx([0.0, 0.0, 0.5], abs=1e-6)


def test_a_worker_whose_clock_is_far_ahead_does_not_stop_the_others(store):
    clock, ahead = FakeClock(), FakeClock()
    ahead.advance(3600.0)
    wrong, right = (SharedBucket(2.0, store, "ahead", one) for one in (ahead, clock))
    for _ in range(3):
        assert wrong.take() == 0.0
        assert right.take() == 0.0
        clock.advance(0.5)
        ahead.advance(0.5)
