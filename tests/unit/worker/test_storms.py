"""What many do at once after an outage is spread over time. Simulated: no clock, no broker."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter

import pytest

from queue_core import Backoff
from queue_core.worker import App
from queue_core.worker.endings import Retry
from queue_core.worker.protocol import Call
from queue_core.worker.request import AsCurrent, Request


@pytest.fixture
def draw(monkeypatch):
    """Repeatable draws, also for who draws a delay without saying how."""
    seeded = random.Random(17).random
    monkeypatch.setattr(Backoff.delay, "__defaults__", (seeded,))
    return seeded


def test_w17_tasks_that_all_fail_for_a_minute_are_spread_and_end(draw):
    """Fifty come each second, and each is retried five times; every run fails at once."""

    @App("storm").task(
        autoretry_for=[OSError], retry_backoff=True, retry_backoff_max=16, max_retries=5
    )
    def fail() -> None: ...

    coming = [(number / 50, number, 0) for number in range(60 * 50)]
    starts, runs = Counter(), Counter()
    while coming:
        now, number, retries = heapq.heappop(coming)
        starts[int(now)] += 1
        runs[number] += 1
        with AsCurrent(Request(Call("fail", str(number), [], {}, retries=retries))):
            retry = fail.retry_after(OSError())
        if isinstance(retry, Retry):
            heapq.heappush(coming, (now + retry.delay, number, retries + 1))
    assert set(runs.values()) == {1 + 5}
    meanwhile = [starts[second] for second in range(60)]
    assert max(meanwhile) <= 2 * sum(meanwhile) / 60


def test_w18_clients_that_lost_their_broker_together_come_back_one_by_one(draw):
    """It was away for twelve seconds. Each tries again and again, as `Connection` does."""
    backoff = Backoff()
    back = []
    for _ in range(2000):
        moments = itertools.accumulate(backoff.delays(draw))
        back.append(next(moment for moment in moments if moment > 12.0) - 12.0)
    assert max(back) <= backoff.cap + 5.0
    tenths = Counter(int(moment * 10) for moment in back)
    bulk = sorted(back)[: len(back) * 9 // 10]
    assert max(tenths.values()) <= 3 * len(bulk) / (bulk[-1] * 10)
