"""Spinning before sleeping: when it looks for an answer, for how long, and when it rests."""

from __future__ import annotations

import socket

import pytest

from queue_core.transports.redis.spin import LONGEST, Spin, spin_on


class Answer:
    """An answer that is there after so many seconds; each look takes ten microseconds."""

    def __init__(self, after: float) -> None:
        self.after = after
        self.time = 0.0
        self.looks = 0
        self.gave_way = 0

    def is_there(self) -> bool:
        self.looks += 1
        self.time += 10e-6
        return self.time >= self.after

    def give_way(self) -> None:
        self.gave_way += 1

    def now(self) -> float:
        return self.time

    def ask(self, spin: Spin) -> int:
        """Wait for one answer; how often it was looked for."""
        self.time, before = 0.0, self.looks
        spin.wait()
        return self.looks - before


def spin(answer: Answer) -> Spin:
    return Spin(answer.is_there, answer.give_way, answer.now)


def test_an_answer_that_is_there_already_gives_nobody_the_core() -> None:
    answer = Answer(after=0.0)
    assert answer.ask(spin(answer)) == 1
    assert answer.gave_way == 0


def test_between_two_looks_others_get_the_core() -> None:
    answer = Answer(after=50e-6)
    looks = answer.ask(spin(answer))
    assert (looks, answer.gave_way) == (5, 4)


def test_spinning_ends_after_its_time() -> None:
    answer = Answer(after=1.0)
    answer.ask(spin(answer))
    assert LONGEST <= answer.time < LONGEST + 30e-6


def test_after_slow_answers_it_rests_twice_as_long_each_time_and_at_most_a_thousand_times() -> None:
    answer = Answer(after=1.0)
    spinning = spin(answer)
    looked_at = [number for number in range(6000) if answer.ask(spinning)]
    rests = [after - before - 1 for before, after in zip(looked_at, looked_at[1:], strict=False)]
    assert rests[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert set(rests[11:]) == {1024}


def test_one_quick_answer_ends_the_long_rests() -> None:
    answer = Answer(after=1.0)
    spinning = spin(answer)
    for _ in range(100):
        answer.ask(spinning)
    answer.after = 0.0
    while not answer.ask(spinning):
        pass
    answer.after = 1.0
    assert [bool(answer.ask(spinning)) for _ in range(3)] == [True, False, True]


def test_it_sees_an_answer_on_a_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"+OK\r\n")
        spinning = spin_on(ours)
        assert spinning is not None
        spinning.wait()
        assert ours.recv(10) == b"+OK\r\n", "looking reads nothing"


def test_a_system_without_these_calls_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_yield")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert spin_on(ours) is None
