"""Giving back and clearing away: `Store.release`, ``collect``, ``inspect`` and ``purge``."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import time

from queue_core.testing.store_bench import StoreBench, StoreTests, envelope, ids_of, tokens_of
from queue_core.transport import Change, Counts, Limit, Shredder


class ReleaseTests(StoreTests):
    """Clauses of `Store.release`."""

    def test_a_released_message_is_ready_again_at_its_old_place(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c", "d")
        a, b, c = bench.claim(3)
        assert list(bench.open().release([c.token, b.token])) == []
        assert bench.claimed() == ["b", "c", "d"]
        bench.store.release([a.token])
        assert bench.claimed() == ["a"]

    def test_a_release_counts_unless_it_says_otherwise(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        a, b = bench.claim()
        bench.store.release([a.token])
        bench.store.release([b.token], counted=False)
        assert [(c.id, c.attempts) for c in bench.claim()] == [("a", 2), ("b", 1)]

    def test_uncounted_releases_never_exhaust_a_message(self, bench: StoreBench) -> None:
        bench.put("a", max_deliveries=1)
        for _ in range(3):
            claim = bench.claim_one()
            assert claim.attempts == 1
            bench.store.release([claim.token], counted=False)
        assert bench.dead() == {}

    def test_a_release_may_delay(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("a", "b", "c")
        a, b = bench.claim(2)
        bench.store.release([a.token], delay=bench.tick)
        bench.store.release([b.token], delay=1000.0)
        assert bench.counts() == (1, 2, 0)
        assert bench.claimed(1) == ["c"]
        bench.advance(bench.tick * 1.1)
        bench.put("d")
        assert bench.claimed() == ["a", "d"]

    def test_a_released_token_is_stale(self, bench: StoreBench) -> None:
        bench.put("a")
        token = bench.claim_one().token
        assert list(bench.store.release([token])) == []
        assert list(bench.store.release([token])) == [token]
        assert list(bench.store.put([], {}, settle=[token]).stale_tokens) == [token]
        assert list(bench.store.owned("s")) == []
        assert bench.claimed() == ["a"]
        assert list(bench.store.release([token], counted=False)) == [token]
        assert bench.counts() == (0, 0, 1)

    def test_only_the_stale_tokens_are_told_and_the_others_released(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b", "c")
        a, b, c = bench.claim()
        bench.store.put([], {}, settle=[b.token])
        assert list(bench.store.release([a.token, b.token, c.token])) == [b.token]
        assert bench.claimed() == ["a", "c"]
        assert list(bench.store.release([])) == []

    def test_a_release_after_the_ttl_makes_a_message_dead(self, bench: StoreBench) -> None:
        bench.put("a", ttl=bench.tick)
        token = bench.claim_one().token
        bench.advance(bench.tick * 1.1)
        bench.store.release([token])
        assert bench.claimed() == []
        assert bench.dead() == {"a": "expired"}

    def test_the_ttl_goes_on_after_a_release(self, bench: StoreBench) -> None:
        bench.put("a", ttl=bench.tick)
        bench.store.release([bench.claim_one().token])
        bench.advance(bench.tick * 1.1)
        assert bench.claimed() == []
        assert bench.dead() == {"a": "expired"}

    def test_a_counted_release_after_the_last_delivery_makes_a_message_dead(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", max_deliveries=1)
        bench.store.release([bench.claim_one().token])
        assert bench.counts() == (0, 0, 0)
        assert bench.dead() == {"a": "delivery_limit"}

    def test_a_released_dead_message_is_dead_again(self, bench: StoreBench) -> None:
        bench.put("a", limit=Limit(0))
        bench.put("b", ttl=0.0)
        claims = bench.store.collect("s", 10)
        bench.store.release(tokens_of(claims), counted=False)
        assert bench.claimed() == []
        assert bench.dead() == {"a": "maxlen", "b": "expired"}


class CollectTests(StoreTests):
    """Clauses of `Store.collect`."""

    def test_each_death_has_its_reason(self, bench: StoreBench) -> None:
        bench.put("expired", ttl=0.0)
        bench.put("exhausted", queue="p", max_deliveries=1)
        bench.store.release(tokens_of(bench.claim(queue="p")))
        bench.put("surplus", "kept", queue="r", limit=Limit(1))
        claims = {claim.id: claim for claim in bench.store.collect("s", 10)}
        assert {name: claim.reason for name, claim in claims.items()} == {
            "expired": "expired",
            "exhausted": "delivery_limit",
            "surplus": "maxlen",
        }
        assert {claim.queue for claim in claims.values()} == {"q", "p", "r"}
        assert claims["expired"].body == b"body of expired"
        assert claims["expired"].properties == b"properties of expired"

    def test_the_living_are_not_collected(self, bench: StoreBench) -> None:
        bench.put("ready", ttl=1000.0, max_deliveries=5)
        bench.put("claimed", queue="p", max_deliveries=1)
        bench.claim(queue="p")
        if bench.features.delay:
            bench.put("delayed", delay=1000.0)
        assert bench.dead() == {}

    def test_a_message_is_collected_once_its_ttl_is_over(self, bench: StoreBench) -> None:
        bench.put("a", ttl=bench.tick)
        bench.put("b", ttl=1000.0)
        if bench.suite.exact:
            bench.advance(bench.tick - 0.001)
            assert bench.dead() == {}
        bench.advance(bench.tick * 1.1)
        assert bench.dead() == {"a": "expired"}

    def test_no_more_is_collected_than_asked_for(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c", "d", "e", ttl=0.0)
        first = bench.store.collect("s", 2)
        second = bench.store.collect("s", 2)
        third = bench.store.collect("s", 2)
        assert (len(first), len(second), len(third)) == (2, 2, 1)
        assert sorted(ids_of([*first, *second, *third])) == ["a", "b", "c", "d", "e"]

    def test_a_collected_message_is_held_by_the_collector_alone(self, bench: StoreBench) -> None:
        bench.put("a", ttl=0.0)
        bench.store.open_session("t", 1.0)
        (claim,) = bench.store.collect("s", 10)
        assert list(bench.open().collect("t", 10)) == []
        assert list(bench.store.owned("s")) == [claim.token]
        assert bench.claimed() == []

    def test_a_collected_message_is_settled_with_the_put_of_its_dead_letter(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", ttl=0.0)
        (claim,) = bench.store.collect("s", 10)
        letter = envelope("letter", "dead-letters", cause=claim.token)
        assert not bench.store.put([letter], {}, settle=[claim.token]).stale_tokens
        bench.crash()
        assert bench.dead() == {}
        assert bench.claimed(queue="dead-letters") == ["letter"]

    def test_collecting_is_no_attempt(self, bench: StoreBench) -> None:
        bench.put("a", max_deliveries=1)
        bench.store.release([bench.claim_one().token])
        for counted in (True, False, True):
            (claim,) = bench.store.collect("s", 10)
            assert claim.attempts == 1
            bench.store.release([claim.token], counted=counted)
        bench.store.collect("s", 10)
        bench.store.end_session("s")
        bench.store.open_session("s", 30.0)
        bench.put("never claimed", ttl=0.0)
        attempts = {claim.id: claim.attempts for claim in bench.store.collect("s", 10)}
        assert attempts == {"a": 1, "never claimed": 0}

    def test_dead_messages_do_not_come_back_to_life(self, bench: StoreBench) -> None:
        bench.put("a", max_deliveries=1)
        bench.store.release([bench.claim_one().token])
        bench.dead()
        bench.store.end_session("s")
        bench.store.open_session("s", 1.0)
        assert bench.claimed() == []
        assert bench.dead() == {"a": "delivery_limit"}

    def test_collecting_does_not_wait(self, bench: StoreBench) -> None:
        before = time.monotonic()
        assert list(bench.store.collect("s", 10)) == []
        assert time.monotonic() - before < 2.5


class CountTests(StoreTests):
    """Clauses of `Store.inspect` and ``purge``."""

    def test_ready_and_claimed_messages_are_counted(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        bench.put("x", queue="other")
        bench.claim(2)
        assert bench.open().inspect("q") == Counts(1, 0, 2)
        assert bench.store.inspect("other") == Counts(1, 0, 0)
        assert bench.store.inspect("never heard of") == Counts(0, 0, 0)

    def test_delayed_messages_are_counted_until_they_are_due(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("a", delay=bench.tick)
        bench.put("b", delay=1000.0)
        assert bench.counts() == (0, 2, 0)
        bench.advance(bench.tick * 1.1)
        assert bench.counts() == (1, 1, 0)

    def test_dead_messages_are_not_counted(self, bench: StoreBench) -> None:
        bench.put("a", ttl=bench.tick)
        bench.put("b", ttl=0.0)
        bench.put("c", queue="p", limit=Limit(0))
        bench.advance(bench.tick * 1.1)
        assert bench.counts() == (0, 0, 0)
        assert bench.counts("p") == (0, 0, 0)

    def test_inspecting_changes_nothing(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        for _ in range(3):
            bench.store.inspect("q")
        assert [(c.id, c.attempts) for c in bench.claim()] == [("a", 1), ("b", 1)]

    def test_a_purge_deletes_what_is_unclaimed_and_says_how_much(self, bench: StoreBench) -> None:
        bench.put("held", "a", "b")
        held = bench.claim_one()
        bench.put("dead", ttl=0.0)
        bench.put("kept", queue="other")
        delayed = 0
        if bench.features.delay:
            bench.put("later", delay=1000.0)
            delayed = 1
        assert bench.open().purge("q") == 3 + delayed
        assert bench.store.purge("q") == 0
        assert bench.counts() == (0, 0, 1)
        assert bench.dead() == {}
        assert bench.counts("other") == (1, 0, 0)
        bench.store.release([held.token])
        assert bench.claimed() == ["held"]

    def test_purging_an_unknown_queue_deletes_nothing(self, bench: StoreBench) -> None:
        bench.put("a")
        assert bench.store.purge("never heard of") == 0
        assert bench.claimed() == ["a"]

    def test_purged_ids_are_free_again(self, bench: StoreBench) -> None:
        bench.put("a", body=b"old")
        bench.store.purge("q")
        assert not bench.put("a", body=b"new").already
        assert bench.claim_one().body == b"new"

    def test_a_shredder_deletes_what_is_unclaimed_step_by_step(self, bench: StoreBench) -> None:
        store = bench.open()
        if not isinstance(store, Shredder):
            return
        bench.put("held")
        held = bench.claim_one()
        bench.put("dead", ttl=0.0)
        bench.put("kept", queue="other")
        many = 10_000
        for first in range(0, many, 1000):
            bench.put(*map(str, range(first, first + 1000)))
        steps = []
        while some := store.shred("q", {}):
            steps.append(some)
        assert sum(steps) == many + 1
        assert len(steps) > 1, "a step must be short"
        assert bench.counts() == (0, 0, 1)
        assert bench.dead() == {}
        assert bench.counts("other") == (1, 0, 0)
        bench.store.release([held.token])
        assert bench.claimed() == ["held"]

    def test_a_shredder_does_nothing_if_an_entry_has_changed(self, bench: StoreBench) -> None:
        store = bench.open()
        if not isinstance(store, Shredder):
            return
        bench.put("a", "b")
        bench.store.write_table([Change("x", 0, b"1")])
        old = bench.store.read_table()["x"].version
        assert store.shred("q", {"x": 0}) == 0
        bench.store.write_table([Change("x", old, b"2")])
        assert store.shred("q", {"x": old}) == 0
        assert store.shred("q", {"y": old}) == 0
        assert bench.counts() == (2, 0, 0)
        now = bench.store.read_table()["x"].version
        assert store.shred("q", {"x": now, "y": 0}) == 2
        assert store.shred("never heard of", {}) == 0

    def test_a_purge_leaves_collected_messages_to_their_collector(self, bench: StoreBench) -> None:
        bench.put("a", ttl=0.0)
        (claim,) = bench.store.collect("s", 10)
        assert bench.store.purge("q") == 0
        assert not bench.store.put([], {}, settle=[claim.token]).stale_tokens
