"""Which of two processes has a ticket."""

import contextlib
import signal
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.worker.limits import TaskTerminated
from queue_core.worker.pools.child import _Guard, _Line
from queue_core.worker.pools.grants import STOP, Granted, Grants


@pytest.fixture
def ends():
    with_parent = Grants()
    child = Granted(with_parent.child_fd)
    yield with_parent, child
    child._socket.detach()  # in one process both have the same descriptor
    with_parent.close()


@pytest.fixture
def hurry():
    """The app has set a default timeout for all sockets that are made from now on."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.1)
    yield
    socket.setdefaulttimeout(before)


def test_a_child_waits_for_its_next_ticket_whatever_timeout_the_app_gives_sockets(hurry, ends):
    parent, child = ends
    later = threading.Timer(0.3, parent.give, [[7]])
    later.start()
    assert child.next() == 7
    later.join()


def test_taking_back_does_not_block_whatever_timeout_the_app_gives_sockets(hurry, ends):
    parent, _ = ends
    began = time.monotonic()
    for _ in range(30):
        assert parent.take_back() == []
    assert time.monotonic() - began < 2.9


def test_tickets_are_read_one_at_a_time_and_in_order(ends):
    parent, child = ends
    parent.give([1, 2])
    parent.give([3, STOP])
    assert [child.next() for _ in range(4)] == [1, 2, 3, STOP]


def test_what_was_not_read_can_be_taken_back(ends):
    parent, child = ends
    parent.give([1, 2, 3])
    assert child.next() == 1
    assert parent.take_back() == [2, 3]
    assert parent.take_back() == []
    parent.give([4])
    assert child.next() == 4


def test_a_child_waits_for_its_next_ticket(ends):
    parent, child = ends
    read = []
    waiting = threading.Thread(target=lambda: read.append(child.next()))
    waiting.start()
    parent.give([7])
    waiting.join(20.0)
    assert read == [7]


def test_a_running_job_is_cut_once(ends):
    parent, child = ends
    parent.give([1])
    assert child.next() == 1
    assert not child.interrupted(1)
    parent.give([-1, STOP])
    assert child.interrupted(1)
    assert not child.interrupted(1)
    assert child.next() == STOP


def test_a_cut_for_a_job_that_has_ended_hits_no_other(ends):
    parent, child = ends
    parent.give([-1, 2])
    assert child.next() == 2
    parent.give([-1, 3])
    assert not child.interrupted(2)
    assert child.next() == 3


def test_looking_for_a_cut_takes_no_ticket(ends):
    parent, child = ends
    parent.give([2])
    assert not child.interrupted(1)
    assert child.next() == 2


def test_a_dead_child_does_not_mind():
    parent = Grants()
    parent.give([1])
    parent._theirs.close()
    parent.give([2])
    parent.close()
    parent.close()


@given(st.lists(st.one_of(st.integers(1, 5), st.just("read"), st.just("back")), max_size=30))
def test_each_ticket_is_with_one_side_exactly(steps):
    parent = Grants()
    child = Granted(parent.child_fd)
    given_, read, back, held = 0, [], [], 0
    try:
        for step in steps:
            if step == "back":
                back += parent.take_back()
                held = 0
            elif step == "read":
                if held:
                    read.append(child.next())
                    held -= 1
            else:
                parent.give(range(given_ + 1, given_ + step + 1))
                given_ += step
                held += step
        back += parent.take_back()
        assert sorted(read + back) == list(range(1, given_ + 1))
        assert read == sorted(read)
    finally:
        child._socket.detach()
        parent.close()


@pytest.fixture
def signals():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("ended", "hit"), [(7, True), (6, False)])
def test_a_signal_between_a_ticket_and_its_job_hits_that_job_or_none(
    ends, reports, signals, ended, hit
):
    parent, child = ends
    guard = _Guard(_Line(child._socket), child)
    job = reports.job("add")
    job.ticket = 7
    parent.give([7])
    assert child.next() == 7
    parent.give([-ended])
    signal.raise_signal(signal.SIGTERM)
    guard.begin(job)
    with pytest.raises(TaskTerminated) if hit else contextlib.nullcontext(), guard(None, None):
        assert not hit, "it is not begun"
    assert guard.end() is hit


def test_a_soft_limit_that_comes_when_its_task_has_just_ended_interrupts_nothing(
    ends, reports, signals, monkeypatch
):
    _, child = ends
    guard = _Guard(_Line(child._socket), child)
    setitimer = signal.setitimer

    def ring_before_it_is_disarmed(which, seconds):
        if not seconds:
            signal.raise_signal(signal.SIGALRM)
        return setitimer(which, seconds)

    monkeypatch.setattr(signal, "setitimer", ring_before_it_is_disarmed)
    guard.begin(reports.job("add"))
    with guard(600.0, None):
        pass
    assert not guard.end() and not guard._inside
