"""Sessions of a store: leases, heartbeats, the two ways to end, and what becomes of claims."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import pytest

from queue_core.errors import SessionLost
from queue_core.testing.store_bench import StoreBench, StoreTests, ids_of


class SessionTests(StoreTests):
    """Clauses of `Store.open_session`, ``heartbeat``, ``end_session`` and ``owned``."""

    def test_a_new_session_is_listed_with_its_lease_and_owns_nothing(
        self, bench: StoreBench
    ) -> None:
        bench.store.open_session("new", 12.5)
        assert bench.open().sessions()["new"].seconds == 12.5
        assert list(bench.store.owned("new")) == []

    def test_opening_a_session_again_renews_it_and_keeps_what_it_holds(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        token = bench.claim_one().token
        before = bench.store.sessions()["s"]
        bench.open().open_session("s", 77.0)
        after = bench.store.sessions()["s"]
        assert after.seconds == 77.0
        assert after.beats != before.beats
        assert list(bench.store.owned("s")) == [token]

    def test_a_heartbeat_changes_the_beats_of_the_sessions_named_and_of_no_other(
        self, bench: StoreBench
    ) -> None:
        for name in ("a", "b", "c"):
            bench.store.open_session(name, 1.0)
        before = bench.store.sessions()
        assert list(bench.store.heartbeat(["a", "b"])) == []
        after = bench.open().sessions()
        assert after["a"].beats != before["a"].beats
        assert after["b"].beats != before["b"].beats
        assert after["c"] == before["c"]

    def test_a_heartbeat_names_the_sessions_that_do_not_exist_and_makes_none(
        self, bench: StoreBench
    ) -> None:
        bench.store.open_session("ended", 1.0)
        bench.store.end_session("ended")
        before = bench.store.sessions()["s"].beats
        assert set(bench.store.heartbeat(["ended", "s", "never"])) == {"ended", "never"}
        assert set(bench.store.sessions()) == {"s"}
        assert bench.store.sessions()["s"].beats != before
        assert list(bench.store.heartbeat([])) == []

    def test_beats_never_come_back_not_even_after_an_end(self, bench: StoreBench) -> None:
        seen = []
        for _ in range(4):
            bench.store.open_session("again", 1.0)
            seen.append(bench.store.sessions()["again"].beats)
            bench.store.heartbeat(["again"])
            seen.append(bench.store.sessions()["again"].beats)
            bench.store.end_session("again")
        assert len(set(seen)) == len(seen)

    def test_the_store_never_ends_a_session_because_of_time(self, bench: StoreBench) -> None:
        bench.store.open_session("short", bench.tick / 4)
        bench.put("a")
        (claim,) = bench.claim(session="short")
        bench.advance(bench.tick)
        assert bench.claimed() == []
        assert list(bench.store.owned("short")) == [claim.token]
        assert list(bench.store.heartbeat(["short"])) == []
        assert bench.store.release([claim.token]) == []

    def test_a_session_that_leaves_gives_everything_back_uncounted_at_its_old_place(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b", "c", "d", max_deliveries=1)
        assert bench.claimed(3) == ["a", "b", "c"]
        assert bench.store.end_session("s")
        bench.store.open_session("t", 1.0)
        claims = bench.claim(session="t")
        assert ids_of(claims) == ["a", "b", "c", "d"]
        assert {claim.attempts for claim in claims} == {1}

    def test_a_session_that_died_gives_everything_back_counted_at_its_old_place(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b", "c", "d")
        bench.claim(3)
        bench.crash()
        claims = bench.claim()
        assert [(c.id, c.attempts) for c in claims] == [("a", 2), ("b", 2), ("c", 2), ("d", 1)]

    def test_a_crash_at_the_last_delivery_makes_a_message_dead(self, bench: StoreBench) -> None:
        bench.put("a", max_deliveries=1)
        bench.claim()
        bench.crash()
        assert bench.claimed() == []
        assert bench.dead() == {"a": "delivery_limit"}

    def test_a_session_that_beat_meanwhile_is_not_ended_as_dead(self, bench: StoreBench) -> None:
        bench.put("a")
        token = bench.claim_one().token
        beats = bench.store.sessions()["s"].beats
        bench.store.heartbeat(["s"])
        assert not bench.open().end_session("s", beats)
        assert list(bench.store.owned("s")) == [token]
        assert bench.store.release([token]) == []

    def test_a_session_opened_anew_is_not_ended_by_the_beats_of_its_predecessor(
        self, bench: StoreBench
    ) -> None:
        beats = bench.store.sessions()["s"].beats
        bench.store.end_session("s")
        bench.store.open_session("s", 1.0)
        assert not bench.store.end_session("s", beats)
        assert "s" in bench.store.sessions()

    def test_ending_says_whether_this_call_ended_it(self, bench: StoreBench) -> None:
        assert not bench.store.end_session("never")
        assert not bench.store.end_session("never", 1)
        beats = bench.store.sessions()["s"].beats
        assert bench.store.end_session("s", beats)
        assert not bench.store.end_session("s", beats)
        assert not bench.store.end_session("s")
        assert "s" not in bench.store.sessions()

    def test_one_end_leaves_the_other_sessions_alone(self, bench: StoreBench) -> None:
        bench.store.open_session("t", 1.0)
        bench.put("a", "b")
        kept, given = bench.claim_one(), bench.claim_one(session="t")
        bench.store.end_session("t")
        assert list(bench.store.owned("s")) == [kept.token]
        assert bench.claimed() == [given.id]

    def test_what_an_ended_session_held_cannot_be_settled_or_released_by_its_old_tokens(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b")
        old = [claim.token for claim in bench.claim()]
        bench.crash()
        new = [claim.token for claim in bench.claim()]
        assert not set(old) & set(new)
        assert list(bench.store.put([], {}, settle=old).stale_tokens) == old
        assert list(bench.store.release(old)) == old
        assert list(bench.answer(queue="other", settle=old).stale_tokens) == old
        assert set(bench.store.owned("s")) == set(new)
        assert bench.counts() == (0, 0, 2)

    def test_the_predecessors_tokens_stay_stale_in_a_session_of_the_same_name(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        token = bench.claim_one().token
        bench.store.end_session("s")
        bench.store.open_session("s", 1.0)
        assert list(bench.store.owned("s")) == []
        assert list(bench.store.put([], {}, settle=[token]).stale_tokens) == [token]
        assert bench.claimed() == ["a"]

    def test_a_session_that_does_not_exist_claims_collects_and_settles_nothing(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b")
        token = bench.claim_one().token
        with pytest.raises(SessionLost):
            bench.claim(session="never", settle=[token])
        with pytest.raises(SessionLost):
            bench.store.claim("never", "r", {"q": 1}, 0, settle=[token], repeat=True)
        with pytest.raises(SessionLost):
            bench.store.collect("never", 1)
        assert bench.counts() == (1, 0, 1)
        assert list(bench.store.owned("never")) == []

    def test_an_ended_session_is_lost_to_its_holder(self, bench: StoreBench) -> None:
        bench.put("a")
        bench.open().end_session("s")
        with pytest.raises(SessionLost):
            bench.claim()
        with pytest.raises(SessionLost):
            bench.store.collect("s", 1)
        assert list(bench.store.heartbeat(["s"])) == ["s"]

    def test_owned_lists_all_that_is_held_and_nothing_else(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        bench.put("d", queue="other")
        bench.put("x", ttl=0.0)
        first, second, third = bench.claim()
        (fourth,) = bench.claim(queue="other")
        (dead,) = bench.store.collect("s", 10)
        bench.store.put([], {}, settle=[first.token])
        bench.store.release([second.token])
        expected = {third.token, fourth.token, dead.token}
        assert set(bench.open().owned("s")) == expected

    def test_a_message_is_claimed_with_others_after_one_crash_and_alone_after_two(
        self, bench: StoreBench
    ) -> None:
        bench.put("bad", "b", "c")
        assert bench.claimed(1) == ["bad"]
        bench.crash()
        assert bench.claimed() == ["bad", "b", "c"]
        bench.crash()
        assert bench.claimed() == ["bad"]
        assert bench.claimed() == ["b", "c"]

    def test_messages_that_crashed_twice_do_not_follow_others_into_an_answer(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "bad", "worse", "d")
        (a,) = bench.claim(1)
        for _ in range(2):
            bench.store.open_session("t", 1.0)
            assert bench.claimed(2, session="t") == ["bad", "worse"]
            bench.crash("t", again=False)
        bench.store.release([a.token], counted=False)
        assert bench.claimed() == ["a"]
        assert bench.claimed() == ["bad"]
        assert bench.claimed() == ["worse"]
        assert bench.claimed() == ["d"]

    def test_alone_means_alone_of_its_queue(self, bench: StoreBench) -> None:
        bench.put("bad", "b")
        bench.put("x", "y", queue="other")
        for _ in range(2):
            bench.claim(1)
            bench.crash()
        answer = bench.store.claim("s", bench.request(), {"q": 10, "other": 10}, 0)
        assert sorted(ids_of(answer.claims)) == ["bad", "x", "y"]

    def test_leaving_is_no_crash(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        for _ in range(3):
            bench.claim()
            bench.store.end_session("s")
            bench.store.open_session("s", 1.0)
        assert bench.claimed() == ["a", "b"]

    def test_dead_messages_that_a_session_had_collected_are_dead_again(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", ttl=0.0)
        bench.put("b", max_deliveries=1)
        bench.store.release([bench.claim_one().token])
        assert bench.dead() == {"a": "expired", "b": "delivery_limit"}
        assert bench.dead() == {}
        bench.store.end_session("s")
        bench.store.open_session("s", 1.0)
        assert bench.claimed() == []
        assert bench.dead() == {"a": "expired", "b": "delivery_limit"}
        bench.crash()
        assert bench.claimed() == []
        assert bench.dead() == {"a": "expired", "b": "delivery_limit"}

    def test_a_claim_that_waits_takes_nothing_for_a_session_that_ended_meanwhile(
        self, bench: StoreBench
    ) -> None:
        waiting, other = bench.open(), bench.open()
        taken: list[str] = []

        def wait() -> None:
            try:
                taken.extend(bench.claimed(store=waiting, wait=0.5))
            except SessionLost:
                return

        def end() -> None:
            other.end_session("s")
            bench.put("a", store=other)

        bench.together(wait, end)
        assert taken == []
        bench.store.open_session("t", 1.0)
        assert bench.claimed(session="t") == ["a"]

    def test_session_names_may_be_long_and_hold_any_character(self, bench: StoreBench) -> None:
        names = ["x" * 400, "consumer:q\n1", "conn:'\";--%_\\", "kø\U0001f40d", "a b\tc", "A", "a"]
        for number, name in enumerate(names):
            bench.store.open_session(name, 1.0)
            bench.put(f"m{number}")
            assert bench.claimed(session=name) == [f"m{number}"]
        assert set(bench.store.sessions()) == {"s", *names}
        for name in names:
            assert list(bench.store.heartbeat([name])) == []
            assert bench.store.end_session(name)
        assert set(bench.store.sessions()) == {"s"}
