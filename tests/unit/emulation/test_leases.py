"""Watching leases: a dead session is found in time, a living one is never taken for dead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.emulation.leases import LONGEST_LOOK, Fence, Names, Watch
from queue_core.transport import Lease


def watch_until(watch: Watch, sessions: dict[str, Lease], start: float, end: float) -> float | None:
    """Look as a keeper does; return when the session ``dead`` was found."""
    now = start
    while now < end:
        if any(name == "dead" for name, _ in watch.observe(sessions, now, now)):
            return now
        now = max(now + 0.001, watch.next_look(now))
    return None


@pytest.mark.parametrize("lease", [0.5, 3.0, 30.0, 300.0])
def test_a_session_that_stands_still_is_found_within_its_lease_and_five_seconds(
    lease: float,
) -> None:
    found = watch_until(Watch(), {"dead": Lease(lease, 7)}, 100.0, 100.0 + 2 * lease + 10)
    assert found is not None
    assert lease <= found - 100.0 <= lease + 0.1
    assert LONGEST_LOOK <= 5.0


def test_the_beats_that_stood_still_come_with_the_name() -> None:
    watch = Watch()
    sessions = {"a": Lease(1.0, 41), "b": Lease(5.0, 1)}
    for step in range(10):
        assert watch.observe(sessions, step * 0.1, step * 0.1) == []
    assert watch.observe(sessions, 1.05, 1.05) == [("a", 41)]


def test_a_beat_starts_the_count_again() -> None:
    watch = Watch()
    for step in range(100):
        now = step * 0.1
        assert watch.observe({"a": Lease(1.0, step // 9)}, now, now) == []


def test_our_own_sessions_are_never_returned() -> None:
    watch = Watch()
    for step in range(50):
        now = step * 0.1
        assert watch.observe({"a": Lease(1.0, 1)}, now, now, ours={"a"}) == []


def test_a_gap_in_watching_starts_the_count_again() -> None:
    watch = Watch()
    sessions = {"a": Lease(1.0, 1)}
    for now in (0.0, 0.2, 0.4, 0.6, 0.8):
        watch.observe(sessions, now, now)
    assert watch.observe(sessions, 61.0, 61.0) == []
    assert watch.observe(sessions, 61.3, 61.3) == []
    assert watch.observe(sessions, 61.6, 61.6) == []
    assert watch.observe(sessions, 61.9, 61.9) == []
    assert watch.observe(sessions, 62.1, 62.1) == [("a", 1)]


def test_nobody_is_taken_for_dead_while_our_own_beats_do_not_arrive_either() -> None:
    watch = Watch()
    ours, found = 0, []
    for step in range(200):
        now = step * 0.1
        if (now < 2.0 or now > 10.0) and step % 3 == 0:
            ours += 1
        beats = ours if now <= 10.0 else 1  # the other beat like us, and is dead since then
        sessions = {"me": Lease(1.0, ours), "other": Lease(1.0, beats)}
        if watch.observe(sessions, now, now, ours={"me"}):
            found.append(now)
    assert 11.0 <= found[0] <= 11.6


def test_a_store_that_answers_slowly_is_a_gap_too() -> None:
    watch = Watch()
    sessions = {"a": Lease(1.0, 1)}
    watch.observe(sessions, 0.0, 0.0)
    watch.observe(sessions, 0.2, 60.0)
    assert watch.observe(sessions, 60.1, 60.1) == []


@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.booleans()), max_size=60),
    st.floats(0.3, 5.0),
)
def test_whoever_beats_every_third_of_its_lease_is_never_taken_for_dead(
    looks: list[tuple[float, bool]], lease: float
) -> None:
    """A pause of the store holds both up: beats and looks happen when it is over."""
    watch = Watch()
    now = last_beat = 0.0
    beats = 0
    for step, paused in looks:
        started = now
        if paused:
            now += step
            assert watch.observe({"a": Lease(lease, beats)}, started, now) == []
        else:
            now += min(step, lease / 3)
            assert watch.observe({"a": Lease(lease, beats)}, now, now) == []
        if now - last_beat >= lease / 3:
            last_beat, beats = now, beats + 1


def test_what_is_gone_is_forgotten_and_begins_anew() -> None:
    watch = Watch()
    for now in (0.0, 0.3, 0.6, 0.9):
        watch.observe({"a": Lease(1.0, 1)}, now, now)
    watch.observe({}, 1.0, 1.0)
    assert watch.observe({"a": Lease(1.0, 1)}, 1.2, 1.2) == []


def test_a_fence_holds_until_shortly_before_the_lease_is_over() -> None:
    fence = Fence(10.0, 100.0)
    assert fence.holds(108.9)
    assert not fence.holds(109.0)
    fence.confirm(108.0)
    fence.confirm(101.0)
    assert fence.holds(116.9)
    assert not fence.holds(117.0)


@given(st.floats(0.1, 300.0))
def test_a_fence_always_falls_before_anybody_may_take_the_session(lease: float) -> None:
    fence = Fence(lease, 0.0)
    assert not fence.holds(lease)
    assert fence.holds(lease / 2)


def test_names_can_be_read_back() -> None:
    assert Names.node_of(Names.main("a:b", "uid")) == ("a:b", "uid")
    assert Names.node_of(Names.main("", "uid")) == ("", "uid")
    assert Names.node_of(Names.consumer("n:q", "uid", 1)) == ("", "")
    assert Names.queue_of(Names.consumer("q:x", "uid", 3)) == ("q:x", "uid.3")
    assert Names.queue_of(Names.queue("q\u2028x", "uid")) == ("q\u2028x", "uid")


def test_only_consumers_of_that_very_queue_are_counted() -> None:
    sessions = [
        Names.consumer("a", "u", 1),
        Names.consumer("a", "v", 1),
        Names.consumer("ab", "u", 2),
        Names.queue("a", "u"),
        Names.main("", "u"),
    ]
    assert len(Names.consumers(sessions, "a")) == 2


def test_every_name_fits_into_four_hundred_characters() -> None:
    longest = "x" * 255
    assert len(Names.consumer(longest, "u" * 32, 10**9)) <= 400
    assert len(Names.queue(longest, "u" * 32)) <= 400
    assert len(Names.main("n" * 300, "u" * 32)) <= 400
