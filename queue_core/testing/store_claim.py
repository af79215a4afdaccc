"""Taking messages: `Store.claim` with its order, its room, its waiting and its repetition."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from queue_core.testing.eventually import eventually
from queue_core.testing.store_bench import StoreBench, StoreTests, ids_of, tokens_of
from queue_core.transport import Store

LONG, SLOW = 5.0, 2.5
"""Seconds that a wait could last, and within which it ended early, even on a busy machine."""


class ClaimTests(StoreTests):
    """Clauses of `Store.claim`, but for waiting."""

    def test_an_empty_answer_is_normal(self, bench: StoreBench) -> None:
        answer = bench.answer(queue="never heard of")
        assert (list(answer.claims), list(answer.stale_tokens)) == ([], [])
        assert list(bench.store.claim("s", bench.request(), {}, 0).claims) == []

    def test_no_more_is_taken_than_there_is_room_for(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c", "d")
        assert bench.claimed(3) == ["a", "b", "c"]
        assert bench.claimed(0) == []
        assert bench.claimed(3) == ["d"]

    def test_each_queue_has_a_room_of_its_own(self, bench: StoreBench) -> None:
        for queue in ("one", "two", "three"):
            bench.put("a", "b", "c", queue=queue)
        wants = {"one": 1, "two": 0, "three": 2, "four": 5}
        claims = bench.store.claim("s", bench.request(), wants, 0).claims
        taken = {queue: [c.id for c in claims if c.queue == queue] for queue in wants}
        assert taken == {"one": ["a"], "two": [], "three": ["a", "b"], "four": []}

    def test_a_claimed_message_is_nobody_elses(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        bench.store.open_session("t", 1.0)
        assert bench.claimed(1) == ["a"]
        assert bench.claimed(store=bench.open(), session="t") == ["b"]
        assert bench.claimed() == []

    def test_each_claim_counts_and_has_a_token_of_its_own(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        tokens = []
        for attempt in (1, 2, 3):
            claims = bench.claim()
            assert [claim.attempts for claim in claims] == [attempt, attempt]
            tokens += tokens_of(claims)
            assert list(bench.store.release(tokens_of(claims))) == []
        assert len(set(tokens)) == 6

    def test_higher_priorities_come_first_and_older_messages_within_one(
        self, bench: StoreBench
    ) -> None:
        if bench.lacks("priority"):
            return
        for name, priority in [("a", 0), ("b", 9), ("c", 5), ("d", 9), ("e", 0), ("f", 4)]:
            bench.put(name, priority=priority)
        claims = bench.claim()
        assert ids_of(claims) == ["b", "d", "c", "f", "a", "e"]
        assert [claim.priority for claim in claims] == [9, 9, 5, 4, 0, 0]

    def test_a_returned_message_keeps_its_priority_and_place(self, bench: StoreBench) -> None:
        if bench.lacks("priority"):
            return
        bench.put("a", "b", priority=1)
        bench.put("c", "d", priority=7)
        first = bench.claim(3)
        assert ids_of(first) == ["c", "d", "a"]
        bench.store.release(tokens_of(first)[::-1])
        assert bench.claimed() == ["c", "d", "a", "b"]

    def test_a_delayed_message_is_not_claimed_before_its_time(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("later", delay=1000.0)
        bench.put("soon", delay=bench.tick)
        if bench.suite.exact:
            bench.advance(bench.tick - 0.001)
            assert bench.claimed() == []
            bench.advance(0.001)
        else:
            bench.advance(bench.tick * 1.1)
        assert bench.claimed() == ["soon"]
        assert bench.counts() == (0, 1, 1)

    def test_a_delay_is_never_shorter_than_asked_for(self, bench: StoreBench) -> None:
        if bench.lacks("delay") or bench.suite.exact:
            return
        for delay in (0.05, 0.123):
            before = time.monotonic()
            bench.put(str(delay), delay=delay)
            eventually(bench.claimed, interval=0.001)
            assert time.monotonic() - before >= delay - 0.002

    def test_a_delayed_message_takes_the_place_of_its_put(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("a", delay=bench.tick)
        bench.put("b")
        bench.put("c", delay=bench.tick / 2)
        bench.advance(bench.tick * 1.1)
        bench.put("d")
        assert bench.claimed() == ["a", "b", "c", "d"]

    def test_an_expired_message_is_not_claimed(self, bench: StoreBench) -> None:
        bench.put("now", ttl=0.0)
        bench.put("soon", ttl=bench.tick)
        bench.put("later", ttl=1000.0)
        bench.advance(bench.tick * 1.1)
        assert bench.claimed() == ["later"]

    def test_a_message_lives_until_its_ttl_is_over(self, bench: StoreBench) -> None:
        bench.put("a", "b", ttl=bench.tick if bench.suite.exact else 1000.0)
        if bench.suite.exact:
            bench.advance(bench.tick - 0.001)
        assert bench.claimed(1) == ["a"]
        if bench.suite.exact:
            bench.advance(0.001)
            assert bench.claimed() == []

    def test_a_message_expires_while_it_is_delayed(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("a", delay=1000.0, ttl=bench.tick)
        bench.advance(bench.tick * 1.1)
        assert bench.counts() == (0, 0, 0)
        assert bench.dead() == {"a": "expired"}

    def test_the_ttl_does_not_reach_a_message_that_is_held(self, bench: StoreBench) -> None:
        bench.put("a", "b", ttl=bench.tick)
        a, b = bench.claim()
        bench.advance(bench.tick * 1.1)
        assert bench.dead() == {}
        assert set(bench.store.owned("s")) == {a.token, b.token}
        assert not bench.store.put([], {}, settle=[a.token]).stale_tokens
        bench.store.release([b.token])
        assert bench.dead() == {"b": "expired"}

    def test_an_exhausted_message_is_not_claimed(self, bench: StoreBench) -> None:
        bench.put("a", max_deliveries=2)
        for attempt in (1, 2):
            claim = bench.claim_one()
            assert claim.attempts == attempt
            bench.store.release([claim.token])
        assert bench.claimed() == []
        assert bench.dead() == {"a": "delivery_limit"}

    def test_a_message_without_a_limit_may_be_claimed_again_and_again(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        for attempt in range(1, 30):
            claim = bench.claim_one()
            assert claim.attempts == attempt
            bench.store.release([claim.token])

    def test_a_claim_settles_first(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        a, b = bench.claim(2)
        bench.store.release([b.token])
        answer = bench.answer(settle=[a.token, b.token], store=bench.open())
        assert ids_of(answer.claims) == ["b", "c"]
        assert list(answer.stale_tokens) == [b.token]
        bench.crash()
        assert bench.claimed() == ["b", "c"]

    def test_a_claim_that_finds_nothing_settles_too(self, bench: StoreBench) -> None:
        bench.put("a")
        token = bench.claim_one().token
        answer = bench.answer(settle=[token], wait=0.05)
        assert (list(answer.claims), list(answer.stale_tokens)) == ([], [])
        assert bench.counts() == (0, 0, 0)
        assert list(bench.answer(settle=[token]).stale_tokens) == [token]


class RepeatTests(StoreTests):
    """Clauses of `Store.claim` about ``request`` and ``repeat``: what follows a lost reply."""

    def test_a_repeated_claim_gives_the_same_answer_and_takes_nothing_new(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b", "c", "d")
        first = bench.store.claim("s", "r1", {"q": 2}, 0)
        again = bench.open().claim("s", "r1", {"q": 2}, 0, repeat=True)
        assert ids_of(again.claims) == ["a", "b"]
        assert tokens_of(again.claims) == tokens_of(first.claims)
        assert [claim.attempts for claim in again.claims] == [1, 1]
        assert [claim.body for claim in again.claims] == [b"body of a", b"body of b"]
        assert bench.counts() == (2, 0, 2)

    def test_a_claim_may_be_repeated_more_than_once(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        tokens = tokens_of(bench.store.claim("s", "r1", {"q": 1}, 0).claims)
        for _ in range(3):
            again = bench.store.claim("s", "r1", {"q": 1}, 0, repeat=True)
            assert tokens_of(again.claims) == tokens

    def test_a_repeated_claim_whose_first_call_never_arrived_is_a_first_one(
        self, bench: StoreBench
    ) -> None:
        bench.put("a", "b", "c")
        held = bench.claim_one()
        answer = bench.store.claim("s", "new", {"q": 1}, 0, settle=[held.token], repeat=True)
        assert ids_of(answer.claims) == ["b"]
        assert list(answer.stale_tokens) == []
        assert bench.counts() == (1, 0, 1)

    def test_a_repeated_claim_gives_what_is_still_held(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c", "d")
        a, b, c = bench.store.claim("s", "r1", {"q": 3}, 0).claims
        bench.store.put([], {}, settle=[a.token])
        bench.store.release([b.token])
        again = bench.store.claim("s", "r1", {"q": 3}, 0, repeat=True)
        assert tokens_of(again.claims) == [c.token]

    def test_a_repeated_claim_finds_its_own_among_others(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c", "d", "e")
        bench.store.open_session("t", 1.0)
        for session, request in [("s", "r1"), ("s", "r2"), ("t", "r1"), ("s", "r3")]:
            bench.store.claim(session, request, {"q": 1}, 0)
        again = [
            ids_of(bench.store.claim(session, request, {"q": 1}, 0, repeat=True).claims)
            for session, request in [("s", "r1"), ("s", "r2"), ("t", "r1"), ("s", "r3")]
        ]
        assert again == [["a"], ["b"], ["c"], ["d"]]

    def test_settling_in_a_claim_that_is_repeated_happens_once(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        token = bench.claim_one().token
        for repeat in (False, True, True):
            answer = bench.store.claim("s", "r1", {"q": 1}, 0, settle=[token], repeat=repeat)
            assert ids_of(answer.claims) == ["b"]
        assert bench.counts() == (1, 0, 1)

    def test_what_a_claim_took_after_settling_and_waiting_is_found_by_its_repeat(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        token = bench.claim_one().token
        other = bench.open()

        def put_late() -> None:
            time.sleep(0.05)
            bench.put("b", store=other)

        def claim() -> None:
            first = bench.store.claim("s", "r1", {"q": 1}, LONG, settle=[token])
            assert ids_of(first.claims) == ["b"]

        bench.together(put_late, claim)
        again = bench.store.claim("s", "r1", {"q": 1}, 0, settle=[token], repeat=True)
        assert ids_of(again.claims) == ["b"]

    def test_a_repeat_without_room_takes_nothing_and_tells_what_came_after_it(
        self, bench: StoreBench
    ) -> None:
        """A first call may be slow on its way, and arrive when it was given up."""
        bench.put("a", "b")
        late = bench.open()
        assert not bench.store.claim("s", "r1", {}, 0, repeat=True).claims
        assert bench.counts() == (2, 0, 0)
        claims = late.claim("s", "r1", {"q": 1}, 0).claims
        for store in (bench.store, bench.open()):
            again = store.claim("s", "r1", {}, 0, repeat=True).claims
            assert [claim.token for claim in again] == [claim.token for claim in claims]
        assert bench.claimed() == ["b"]

    def test_a_fresh_request_takes_new_messages(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        assert ids_of(bench.store.claim("s", "r1", {"q": 1}, 0).claims) == ["a"]
        assert ids_of(bench.store.claim("s", "r2", {"q": 1}, 0).claims) == ["b"]

    def test_request_ids_may_be_long_and_hold_any_character(self, bench: StoreBench) -> None:
        requests = ["r" * 64, "'; --", "%s", "ü\n\U0001f40d"]
        for number, request in enumerate(requests):
            bench.put(str(number))
            first = bench.store.claim("s", request, {"q": 1}, 0)
            again = bench.store.claim("s", request, {"q": 1}, 0, repeat=True)
            assert tokens_of(first.claims) == tokens_of(again.claims) != []


class WaitTests(StoreTests):
    """Clauses of `Store.claim` about ``wait``. These take real time."""

    def test_without_wait_an_empty_claim_returns_at_once(self, bench: StoreBench) -> None:
        before = time.monotonic()
        assert bench.claimed(wait=0.0) == []
        assert time.monotonic() - before < SLOW

    def test_what_is_there_is_not_waited_for(self, bench: StoreBench) -> None:
        bench.put("a")
        before = time.monotonic()
        assert bench.claimed(100, wait=LONG) == ["a"]
        assert time.monotonic() - before < SLOW

    def test_an_idle_wait_ends_when_it_should(self, bench: StoreBench) -> None:
        before = time.monotonic()
        assert bench.claimed(wait=0.2) == []
        assert 0.19 <= time.monotonic() - before < 0.2 + SLOW

    def test_a_put_ends_the_wait(self, bench: StoreBench) -> None:
        other = bench.open()
        assert self._woken(bench, lambda: bench.put("a", store=other)) == ["a"]

    def test_a_put_into_any_wanted_queue_ends_the_wait(self, bench: StoreBench) -> None:
        other = bench.open()
        woken = self._woken(bench, lambda: bench.put("a", queue="two", store=other))
        assert woken == ["a"]

    def test_a_release_ends_the_wait(self, bench: StoreBench) -> None:
        other = bench.open()
        bench.put("a")
        token = bench.claim_one().token
        assert self._woken(bench, lambda: other.release([token])) == ["a"]

    def test_the_end_of_a_session_ends_the_wait(self, bench: StoreBench) -> None:
        other = bench.open()
        bench.put("a")
        bench.store.open_session("t", 1.0)
        bench.claim(session="t")
        assert self._woken(bench, lambda: other.end_session("t")) == ["a"]

    def test_a_message_that_becomes_due_ends_the_wait(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        other = bench.open()

        def put_and_let_time_pass() -> None:
            bench.put("a", delay=0.05, store=other)
            bench.advance(0.06)

        assert self._woken(bench, put_and_let_time_pass) == ["a"]

    def test_other_handles_work_while_one_waits(self, bench: StoreBench) -> None:
        waiting, other = bench.open(), bench.open()
        done = threading.Event()

        def wait() -> None:
            bench.claimed(queue="silent", store=waiting, wait=LONG)
            assert done.is_set(), "the other handle was blocked by the one that waits"

        def work() -> None:
            time.sleep(0.05)
            for number in range(5):
                bench.put(str(number), store=other)
                assert bench.claimed(store=other) == [str(number)]
            done.set()
            bench.put("end", queue="silent", store=other)

        bench.together(wait, work)

    def test_settlements_do_not_wait_for_messages(self, bench: StoreBench) -> None:
        waiting, other = bench.open(), bench.open()
        bench.put("a")
        token = bench.claim_one().token

        def look() -> None:
            before = time.monotonic()
            eventually(lambda: bench.counts(store=other) == (0, 0, 0))
            assert time.monotonic() - before < SLOW
            bench.put("end", queue="silent", store=other)

        bench.together(
            lambda: bench.answer(queue="silent", settle=[token], wait=LONG, store=waiting), look
        )

    def test_an_interrupt_ends_the_wait(self, bench: StoreBench) -> None:
        waiting = bench.open()
        assert self._woken(bench, waiting.interrupt, waiting) == []

    def test_after_an_interrupt_a_claim_settles_and_does_not_wait_and_the_next_one_does(
        self, bench: StoreBench
    ) -> None:
        bench.put("a")
        token = bench.claim_one().token
        bench.store.interrupt()
        before = time.monotonic()
        assert not bench.answer(settle=[token], wait=LONG).claims
        assert time.monotonic() - before < SLOW
        assert bench.counts() == (0, 0, 0)
        before = time.monotonic()
        assert bench.claimed(wait=0.2) == []
        assert time.monotonic() - before >= 0.19
        bench.put("b")
        bench.store.interrupt()
        assert bench.claimed(wait=LONG) == ["b"]

    def test_a_closed_handle_may_be_interrupted(self, bench: StoreBench) -> None:
        store = bench.open_store()
        store.close()
        store.interrupt()

    def test_one_message_ends_one_wait_and_the_others_go_on(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(3)]
        taken: list[list[str]] = []

        def put() -> None:
            time.sleep(0.05)
            bench.put("a")

        waits = [
            lambda store=store: taken.append(bench.claimed(store=store, wait=1.0))
            for store in handles
        ]
        bench.together(*waits, put)
        assert sorted(taken) == [[], [], ["a"]]

    def _woken(
        self, bench: StoreBench, cause: Callable[[], object], waiting: Store | None = None
    ) -> list[str]:
        """Claim with a long wait, let ``cause`` happen meanwhile; return what came early."""
        waiting = waiting or bench.open()
        taken: list[str] = []
        ended: list[float] = []

        def wait() -> None:
            wants = {"q": 10, "two": 10}
            taken.extend(ids_of(waiting.claim("s", bench.request(), wants, LONG).claims))
            ended.append(time.monotonic())

        def happen() -> None:
            time.sleep(0.1)
            cause()
            ended.append(time.monotonic())

        bench.together(wait, happen)
        assert abs(ended[1] - ended[0]) < SLOW, "the wait went on although there was something"
        return taken
