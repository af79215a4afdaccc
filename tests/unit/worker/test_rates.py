"""Rate limits: never more runs than allowed, and messages that go away come back one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError
from queue_core.worker.rates import MAX_AWAY, Bucket, per_second


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


@given(
    st.floats(0.01, 100.0), st.lists(st.floats(0.0, 10.0, allow_nan=False), min_size=1, max_size=60)
)
def test_in_no_time_are_there_more_runs_than_the_rate_and_one_second_allow(rate, pauses):
    bucket, now, runs = Bucket(rate), 1000.0, []
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        assert 0.0 <= wait <= MAX_AWAY
        if wait == 0.0:
            runs.append(now)
    for first in range(len(runs)):
        for last in range(first, len(runs)):
            allowed = max(1.0, rate) + (runs[last] - runs[first]) * rate
            assert last - first + 1 <= allowed + 1e-6


@given(st.floats(0.05, 50.0))
def test_who_comes_back_when_told_may_run_then(rate):
    bucket, now = Bucket(rate), 0.0
    for _ in range(20):
        wait = bucket.take(now)
        now += wait
        if wait:
            assert bucket.take(now + 1e-9) < 1.0 / rate + 1e-6
            now += 1.0 / rate


def test_those_that_go_away_come_back_one_after_the_other():
    bucket = Bucket(2.0)
    waits = [bucket.take(0.0) for _ in range(6)]
    assert waits == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0]


def test_nobody_goes_away_for_long():
    bucket = Bucket(1.0)
    assert max(bucket.take(0.0) for _ in range(1000)) <= MAX_AWAY
