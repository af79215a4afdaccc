"""Durations and sizes as people write them."""

import pytest

from queue_core.worker.units import bytes_of, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("250ms", 0.25), (" 10 S ", 10), ("1.5m", 90), ("2h", 7200), ("1d", 86400)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1 2s", "s"])
def test_what_is_no_duration_is_none(text):
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300", 300),
        ("300000K", 307_200_000),
        ("500m", 524_288_000),
        ("2 GiB", 2**31),
        ("1KB", 1024),
    ],
)
def test_a_size_has_a_unit_or_is_in_bytes(text, size):
    assert bytes_of(text) == size


def test_a_number_alone_may_mean_something_else():
    assert bytes_of("300", alone=1024) == 307_200
    assert bytes_of("300K", alone=1024) == 307_200
    assert bytes_of("300B", alone=1024) == 300


@pytest.mark.parametrize("text", ["", "much", "-1", "1.5G", "5I", "1T"])
def test_what_is_no_size_is_none(text):
    assert bytes_of(text) is None
