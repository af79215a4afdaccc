"""Appending and settling: `Store.put`, step by step, and what its limits do."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

from queue_core.testing.store_bench import StoreBench, StoreTests, envelope, ids_of, tokens_of
from queue_core.transport import Change, Limit


class PutTests(StoreTests):
    """Clauses of `Store.put`, but for the limits."""

    def test_what_was_put_is_handed_back_unchanged(self, bench: StoreBench) -> None:
        bench.put("a", body=b"\x00body\xff", properties=b"\xfeproperties\x00")
        claim = bench.claim_one()
        assert (claim.queue, claim.id) == ("q", "a")
        assert (claim.body, claim.properties) == (b"\x00body\xff", b"\xfeproperties\x00")
        assert (claim.attempts, claim.priority, claim.reason) == (1, 0, "")

    def test_a_put_that_did_everything_has_nothing_to_say(self, bench: StoreBench) -> None:
        result = bench.put("a", "b")
        assert not any((result.stale_entries, result.full, result.already, result.stale_tokens))

    def test_messages_come_in_the_order_of_their_puts(self, bench: StoreBench) -> None:
        bench.put("c", "a")
        bench.put("b", store=bench.open())
        bench.put("z", "d")
        assert bench.claimed() == ["c", "a", "b", "z", "d"]

    def test_messages_of_one_put_keep_their_order_whatever_their_ttl(
        self, bench: StoreBench
    ) -> None:
        ttls = {"c": None, "a": 100.0, "b": None, "z": 50.0, "d": 100.0}
        bench.store.put([envelope(name, ttl=ttl) for name, ttl in ttls.items()], {})
        assert bench.claimed() == [*ttls]

    def test_one_batch_reaches_several_queues(self, bench: StoreBench) -> None:
        bench.store.put([envelope("a", "one"), envelope("a", "two"), envelope("b", "one")], {})
        assert bench.claimed(queue="one") == ["a", "b"]
        assert bench.claimed(queue="two") == ["a"]

    def test_a_stale_version_stops_everything_and_is_named(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"1"), Change("y", 0, b"1")])
        x, y = (bench.store.read_table()[name].version for name in ("x", "y"))
        bench.store.write_table([Change("x", x, b"2")])
        bench.put("held")
        token = bench.claim_one().token
        result = bench.store.put(
            [envelope("a"), envelope("b", "other")],
            {"x": x, "y": y, "absent": 0, "gone": 5},
            settle=[token],
        )
        assert set(result.stale_entries) == {"x", "gone"}
        assert bench.counts() == (0, 0, 1)
        assert bench.counts("other") == (0, 0, 0)
        assert list(bench.store.owned("s")) == [token]

    def test_version_0_means_that_the_entry_is_absent(self, bench: StoreBench) -> None:
        assert not bench.store.put([envelope("a")], {"x": 0}).stale_entries
        bench.store.write_table([Change("x", 0, b"1")])
        assert list(bench.store.put([envelope("b")], {"x": 0}).stale_entries) == ["x"]
        assert bench.claimed() == ["a"]

    def test_current_versions_let_a_put_pass(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"1"), Change("y", 0, b"2")])
        versions = {name: entry.version for name, entry in bench.store.read_table().items()}
        result = bench.open().put([envelope("a")], {**versions, "absent": 0})
        assert not result.stale_entries
        assert bench.claimed() == ["a"]

    def test_a_removed_entry_makes_its_version_stale(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"1")])
        version = bench.store.read_table()["x"].version
        bench.store.write_table([Change("x", version, None)])
        assert list(bench.store.put([envelope("a")], {"x": version}).stale_entries) == ["x"]
        assert bench.claimed() == []

    def test_an_empty_batch_checks_versions_and_settles(self, bench: StoreBench) -> None:
        bench.put("a")
        token = bench.claim_one().token
        assert bench.store.put([], {"x": 3}, settle=[token]).stale_entries
        assert bench.counts() == (0, 0, 1)
        assert not bench.store.put([], {"x": 0}, settle=[token]).stale_tokens
        assert bench.counts() == (0, 0, 0)

    def test_a_settled_message_is_gone_for_ever(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        a, b = bench.claim()
        assert not bench.open().put([], {}, settle=[a.token]).stale_tokens
        assert list(bench.store.owned("s")) == [b.token]
        bench.crash()
        assert bench.claimed() == ["b"]
        assert list(bench.store.put([], {}, settle=[a.token]).stale_tokens) == [a.token]
        assert list(bench.store.release([a.token])) == [a.token]

    def test_a_token_is_not_good_for_the_next_claim_of_its_session(self, bench: StoreBench) -> None:
        """With a publish, with one that is unusual, alone, with a claim, as a cause, a release."""
        bench.put("a")
        old = bench.claim_one().token
        bench.store.release([old])
        new = bench.claim_one().token
        letter = envelope("letter", "other", cause=old)
        for stale in (
            bench.store.put([envelope("b", "other")], {}, settle=[old]).stale_tokens,
            bench.store.put(
                [envelope("c", "other", max_deliveries=9)], {}, settle=[old]
            ).stale_tokens,
            bench.store.put([], {}, settle=[old]).stale_tokens,
            bench.answer(queue="third", settle=[old]).stale_tokens,
            bench.store.put([letter], {}, settle=[old]).stale_tokens,
            bench.store.release([old]),
        ):
            assert list(stale) == [old]
            assert list(bench.store.owned("s")) == [new]
        assert bench.claimed(queue="other") == ["b", "c"]

    def test_stale_tokens_are_told_and_the_others_are_settled(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        a, b, c = bench.claim()
        bench.store.release([b.token])
        result = bench.store.put([], {}, settle=[a.token, b.token, c.token])
        assert list(result.stale_tokens) == [b.token]
        assert bench.counts() == (1, 0, 0)

    def test_settling_comes_before_appending(self, bench: StoreBench) -> None:
        bench.put("a", body=b"old")
        token = bench.claim_one().token
        assert not bench.put("a", body=b"new", settle=[token]).already
        assert bench.claim_one().body == b"new"

    def test_a_copy_whose_cause_is_held_replaces_it_in_one_step(self, bench: StoreBench) -> None:
        bench.put("a")
        token = bench.claim_one().token
        copy = envelope("a", "dead-letters", cause=token)
        assert not bench.store.put([copy], {}, settle=[token]).stale_tokens
        assert bench.counts() == (0, 0, 0)
        assert bench.claimed(queue="dead-letters") == ["a"]

    def test_a_copy_whose_cause_is_stale_is_left_out_and_only_that(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        lost, held = tokens_of(bench.claim())
        bench.store.release([lost])
        result = bench.store.put(
            [
                envelope("copy of a", "out", cause=lost),
                envelope("copy of b", "out", cause=held),
                envelope("free", "out"),
            ],
            {},
            settle=[lost, held],
        )
        assert list(result.stale_tokens) == [lost]
        assert bench.claimed(queue="out") == ["copy of b", "free"]
        assert bench.claimed() == ["a"]

    def test_a_cause_that_is_held_and_not_settled_lets_the_copy_pass(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        token = bench.claim_one().token
        bench.store.put([envelope("copy", "out", cause=token)], {})
        assert list(bench.store.owned("s")) == [token]
        assert bench.claimed(queue="out") == ["copy"]

    def test_a_cause_need_not_be_settled_to_be_stale(self, bench: StoreBench) -> None:
        bench.put("a")
        token = bench.claim_one().token
        bench.store.release([token])
        bench.store.put([envelope("copy", "out", cause=token), envelope("free", "out")], {})
        assert bench.claimed(queue="out") == ["free"]

    def test_a_repeated_put_stores_nothing_twice_and_says_which_it_had(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b", body=b"first")
        assert list(bench.put("x", "b", "a", "y", body=b"second").already) == [1, 2]
        claims = bench.claim()
        assert ids_of(claims) == ["a", "b", "x", "y"]
        assert [claim.body for claim in claims] == [b"first"] * 2 + [b"second"] * 2

    def test_a_message_that_is_claimed_is_still_there_for_a_repeated_put(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        bench.claim()
        assert list(bench.put("a", store=bench.open()).already) == [0]
        assert bench.counts() == (0, 0, 1)

    def test_a_dead_message_is_still_there_for_a_repeated_put(self, bench: StoreBench) -> None:
        bench.put("a", ttl=0.0)
        assert list(bench.put("a").already) == [0]
        assert bench.dead() == {"a": "expired"}

    def test_an_id_is_free_again_once_its_message_is_gone(self, bench: StoreBench) -> None:
        bench.put("a")
        bench.store.put([], {}, settle=[bench.claim_one().token])
        assert not bench.put("a").already
        assert bench.claimed() == ["a"]

    def test_ids_of_different_queues_have_nothing_to_do_with_one_another(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        assert not bench.put("a", queue="other").already
        assert not bench.put("A").already
        assert not bench.put("a ").already
        assert bench.counts()[0] == 3

    def test_the_same_id_twice_in_a_batch_is_stored_once(self, bench: StoreBench) -> None:
        result = bench.store.put([envelope("a", body=b"1"), envelope("a", body=b"2")], {})
        assert list(result.already) == [1]
        assert [claim.body for claim in bench.claim()] == [b"1"]

    def test_arguments_stay_the_callers(self, bench: StoreBench) -> None:
        message = envelope("a", body=b"as put")
        batch = [message, envelope("b")]
        bench.store.put(batch, {})
        assert batch == [envelope("a", body=b"as put"), envelope("b")]
        message.body = b"changed later"
        message.queue = "elsewhere"
        batch.clear()
        first, second = bench.claim()
        assert (first.id, first.body, second.id) == ("a", b"as put", "b")

    def test_results_stay_the_callers(self, bench: StoreBench) -> None:
        bench.put("a")
        claim = bench.claim_one()
        token, claim.body, claim.queue = claim.token, b"changed", "changed"
        bench.store.release([token])
        again = bench.claim_one()
        assert (again.queue, again.body) == ("q", b"body of a")


class LimitTests(StoreTests):
    """Clauses of `Store.put` about ``limits``."""

    def test_a_full_queue_refuses_the_whole_put(self, bench: StoreBench) -> None:
        refuse = Limit(2, "reject-publish")
        bench.put("a", "b", "c", "d")
        held = tokens_of(bench.claim(2))
        result = bench.store.put(
            [envelope("x", "other"), envelope("e")],
            {},
            settle=held,
            limits={"q": refuse, "other": Limit(5, "reject-publish")},
        )
        assert list(result.full) == ["q"]
        assert bench.counts() == (2, 0, 2)
        assert bench.counts("other") == (0, 0, 0)
        assert set(bench.store.owned("s")) == set(held)

    def test_a_queue_takes_messages_up_to_its_limit_and_a_batch_as_a_whole(
        self, bench: StoreBench
    ) -> None:
        limits = {"q": Limit(3, "reject-publish")}
        assert not bench.store.put([envelope("a")], {}, limits=limits).full
        batch = [envelope("b"), envelope("c"), envelope("d")]
        assert list(bench.store.put(batch, {}, limits=limits).full) == ["q"]
        assert not bench.store.put(batch[:2], {}, limits=limits).full
        assert list(bench.store.put(batch[2:], {}, limits=limits).full) == ["q"]
        assert bench.claimed() == ["a", "b", "c"]

    def test_claimed_and_dead_messages_take_no_room(self, bench: StoreBench) -> None:
        limits = {"q": Limit(1, "reject-publish")}
        bench.put("claimed")
        bench.claim()
        bench.put("dead", ttl=0.0)
        assert not bench.store.put([envelope("a")], {}, limits=limits).full
        assert list(bench.store.put([envelope("b")], {}, limits=limits).full) == ["q"]

    def test_a_message_that_is_there_already_takes_no_room_again(self, bench: StoreBench) -> None:
        limits = {"q": Limit(2, "reject-publish")}
        bench.put("a")
        result = bench.store.put([envelope("a"), envelope("b")], {}, limits=limits)
        assert not result.full
        assert list(result.already) == [0]
        again = bench.store.put([envelope("a"), envelope("b")], {}, limits=limits)
        assert not again.full
        assert list(again.already) == [0, 1]

    def test_delayed_messages_take_room(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("later", delay=1000.0)
        limits = {"q": Limit(1, "reject-publish")}
        assert list(bench.store.put([envelope("a")], {}, limits=limits).full) == ["q"]
        bench.store.put([envelope("a")], {}, limits={"q": Limit(1)})
        assert bench.claimed() == ["a"]
        assert bench.dead() == {"later": "maxlen"}

    def test_what_an_earlier_one_of_the_batch_made_is_there_already(
        self, bench: StoreBench
    ) -> None:
        """The first is dead at once and takes no room; the second, with its id, is not stored."""
        batch = [envelope("a", ttl=0.0), envelope("a")]
        result = bench.store.put(batch, {}, limits={"q": Limit(0, "reject-publish")})
        assert (list(result.full), list(result.already)) == ([], [1])
        assert bench.dead() == {"a": "expired"}

    def test_what_is_dead_at_once_is_not_refused_by_a_queue_that_is_too_full(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b")
        limits = {"q": Limit(1, "reject-publish")}
        assert not bench.store.put([envelope("c", ttl=0.0)], {}, limits=limits).full
        assert bench.dead() == {"c": "expired"}

    def test_a_queue_that_gains_nothing_drops_its_surplus_all_the_same(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b")
        result = bench.store.put([envelope("b")], {}, limits={"q": Limit(1)})
        assert list(result.already) == [0]
        assert bench.dead() == {"a": "maxlen"}

    def test_every_full_queue_is_named(self, bench: StoreBench) -> None:
        names = ["one", "two", "three"]
        limits = {name: Limit(0, "reject-publish") for name in names[:2]}
        result = bench.store.put([envelope("a", name) for name in names], {}, limits=limits)
        assert set(result.full) == {"one", "two"}
        assert bench.counts("three") == (0, 0, 0)

    def test_a_limit_matters_only_to_puts_that_bring_it(self, bench: StoreBench) -> None:
        limits = {"q": Limit(0, "reject-publish"), "other": Limit(1)}
        assert not bench.store.put([envelope("a", "free")], {}, limits=limits).full
        assert not bench.store.put([envelope("b")], {}).full
        assert bench.claimed(queue="free") == ["a"]

    def test_the_surplus_dies_oldest_first(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        bench.put("d", "e", limit=Limit(2))
        assert bench.counts() == (2, 0, 0)
        assert bench.claimed() == ["d", "e"]
        assert bench.dead() == {"a": "maxlen", "b": "maxlen", "c": "maxlen"}

    def test_the_surplus_dies_lowest_priority_first(self, bench: StoreBench) -> None:
        if bench.lacks("priority"):
            return
        bench.put("high", priority=5)
        bench.put("low", "lower")
        bench.put("middle", priority=3, limit=Limit(2))
        assert bench.claimed() == ["high", "middle"]
        assert bench.dead() == {"low": "maxlen", "lower": "maxlen"}

    def test_a_new_message_may_be_the_surplus(self, bench: StoreBench) -> None:
        bench.put("a", limit=Limit(0))
        assert bench.claimed() == []
        assert bench.dead() == {"a": "maxlen"}

    def test_claimed_messages_are_no_surplus(self, bench: StoreBench) -> None:
        bench.put("held", "a")
        token = bench.claim_one().token
        bench.put("b", limit=Limit(1))
        assert bench.counts() == (1, 0, 1)
        assert bench.store.release([token]) == []
        assert bench.claimed() == ["held", "b"]
        assert bench.dead() == {"a": "maxlen"}

    def test_a_returned_message_is_the_oldest_again(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        bench.store.release([bench.claim_one().token])
        bench.put("c", limit=Limit(2))
        assert bench.dead() == {"a": "maxlen"}
        assert bench.claimed() == ["b", "c"]
