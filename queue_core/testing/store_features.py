"""The store's own fields of `Features`: what it declares works, and what it lacks is refused aloud.

A test for each field. Where the field says "cannot", `StoreBench.lacks` has checked that asking for
it raises `Unsupported` (or, where nobody asks, that it is really not so). The fields after
``key_value`` come from `queue_core.emulation`; ``deduplicate``, ``requeue_in_place`` and the others
rest on clauses that every store keeps.
"""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

from collections.abc import Sequence

import pytest

from queue_core.testing.elsewhere import run_elsewhere
from queue_core.testing.eventually import eventually
from queue_core.testing.store_bench import (
    OpenStore,
    StoreBench,
    StoreTests,
    envelope,
    ids_of,
)
from queue_core.transport import Change, KeyValue, Lease, Store, Transaction


class FeatureTests(StoreTests):
    """Each field, kept to."""

    def test_the_handle_has_every_method_of_the_contract(self, bench: StoreBench) -> None:
        assert isinstance(bench.store, Store)

    def test_priority_is_as_declared(self, bench: StoreBench) -> None:
        if bench.lacks("priority"):
            return
        bench.put("low", priority=0)
        bench.put("high", priority=9)
        assert bench.claimed() == ["high", "low"]

    def test_delay_is_as_declared(self, bench: StoreBench) -> None:
        if bench.lacks("delay"):
            return
        bench.put("a", delay=bench.tick)
        assert bench.counts() == (0, 1, 0)
        bench.advance(bench.tick * 1.1)
        assert bench.claimed() == ["a"]

    def test_key_value_is_as_declared(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        assert isinstance(bench.store, KeyValue)
        assert bench.store.key_set("k", b"v") is not None

    def test_shared_is_as_declared(self, bench: StoreBench) -> None:
        if bench.lacks("shared"):
            return
        bench.put("a", "b")
        bench.store.write_table([Change("x", 0, b"here")])
        seen, taken = run_elsewhere(_work_there, bench.open_store)
        assert seen == b"here"
        assert taken == ["a"]
        assert bench.store.sessions()["there"] == Lease(7.0, bench.store.sessions()["there"].beats)
        assert bench.claimed() == ["b"]
        bench.crash("there", again=False)
        assert [(c.id, c.attempts) for c in bench.claim()] == [("a", 2)]
        assert bench.claimed(queue="from there") == ["c"]

    def test_a_put_by_another_process_ends_a_wait(self, bench: StoreBench) -> None:
        if bench.lacks("shared"):
            return
        waiting = bench.open()
        taken: list[str] = []

        def wait() -> None:
            taken.extend(eventually(lambda: bench.claimed(store=waiting, wait=1.0), 30.0))

        bench.together(wait, lambda: run_elsewhere(_put_there, bench.open_store))
        assert taken == ["from afar"]

    def test_durable_is_as_declared(self, bench: StoreBench) -> None:
        if bench.lacks("durable"):
            return
        run_elsewhere(_put_there, bench.open_store)
        assert bench.claimed() == ["from afar"]

    def test_what_is_stored_outlives_the_handles(self, bench: StoreBench) -> None:
        bench.put("a", "b", "c")
        held = bench.claim_one()
        lease = bench.store.sessions()["s"]
        bench.store.write_table([Change("x", 0, b"v")])
        table = bench.store.read_table()
        bench.restart()
        assert bench.store.sessions()["s"] == lease
        assert list(bench.store.owned("s")) == [held.token]
        assert bench.store.read_table() == table
        assert not bench.store.put([], {}, settle=[held.token]).stale_tokens
        assert bench.claimed() == ["b", "c"]

    def test_a_handle_may_be_closed_twice_and_closes_no_other(self, bench: StoreBench) -> None:
        other = bench.open()
        other.close()
        other.close()
        bench.put("a")
        assert bench.claimed() == ["a"]

    def test_every_handle_sees_what_another_did(self, bench: StoreBench) -> None:
        one, two = bench.open(), bench.open()
        one.open_session("both", 5.0)
        bench.put("a", store=two)
        (claim,) = bench.claim(session="both", store=one)
        assert list(two.owned("both")) == [claim.token]
        assert not two.put([], {}, settle=[claim.token]).stale_tokens
        assert bench.counts(store=one) == (0, 0, 0)
        two.end_session("both")
        assert "both" not in one.sessions()

    def test_transactions_are_as_declared(self, bench: StoreBench) -> None:
        if bench.lacks("transactions"):
            assert bench.claimed() == []
            return
        ended: list[bool] = []
        with bench.suite.user_transaction() as handle:
            bench.store.put([envelope("a")], {}, transaction=Transaction(handle, ended.append))
            assert ended == []
        assert ended == [True]
        assert bench.claimed() == ["a"]

    def test_a_rollback_takes_the_messages_with_it(self, bench: StoreBench) -> None:
        if bench.lacks("transactions"):
            return
        ended: list[bool] = []

        class Regret(Exception):
            pass

        with pytest.raises(Regret), bench.suite.user_transaction() as handle:
            bench.store.put([envelope("a")], {}, transaction=Transaction(handle, ended.append))
            raise Regret
        assert ended == [False]
        assert bench.counts() == (0, 0, 0)
        assert not bench.put("a").already

    def test_settling_belongs_to_the_transaction_too(self, bench: StoreBench) -> None:
        if bench.lacks("transactions"):
            return
        bench.put("a")
        token = bench.claim_one().token

        class Regret(Exception):
            pass

        def put(handle: object) -> Sequence[object]:
            transaction = Transaction(handle, lambda _: None)
            copy = envelope("copy", "out", cause=token)
            return bench.store.put([copy], {}, settle=[token], transaction=transaction).stale_tokens

        with pytest.raises(Regret), bench.suite.user_transaction() as handle:
            assert not put(handle)
            raise Regret
        assert list(bench.store.owned("s")) == [token]
        with bench.suite.user_transaction() as handle:
            assert not put(handle)
        assert list(bench.store.owned("s")) == []
        assert bench.claimed(queue="out") == ["copy"]


# What the other process does; it imports this module.


def _work_there(open_store: OpenStore) -> tuple[bytes, list[str]]:
    """Look, claim one message in a session of one's own, put one, and go without a word."""
    store = open_store()
    try:
        store.open_session("there", 7.0)
        taken = store.claim("there", "r", {"q": 1}, 0).claims
        store.put([envelope("c", "from there")], {})
        return store.read_table()["x"].value, ids_of(taken)
    finally:
        store.close()


def _put_there(open_store: OpenStore) -> None:
    store = open_store()
    try:
        store.put([envelope("from afar")], {})
    finally:
        store.close()
