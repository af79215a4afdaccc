"""The topology table and the small values: compare-and-set, versions, expiry."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import pytest

from queue_core.errors import UsageError
from queue_core.testing.store_bench import StoreBench, StoreTests, envelope
from queue_core.transport import Change, KeyWrite


class TableTests(StoreTests):
    """Clauses of `Store.read_table` and ``write_table``."""

    def test_an_entry_is_read_as_it_was_written(self, bench: StoreBench) -> None:
        assert dict(bench.store.read_table()) == {}
        assert bench.store.write_table([Change("x", 0, b"\x00one\xff"), Change("y", 0, b"")])
        table = bench.open().read_table()
        assert {name: entry.value for name, entry in table.items()} == {
            "x": b"\x00one\xff",
            "y": b"",
        }
        assert all(entry.version > 0 for entry in table.values())

    def test_only_the_names_asked_for_are_read(self, bench: StoreBench) -> None:
        bench.store.write_table([Change(name, 0, b"v") for name in ("x", "y", "z")])
        assert set(bench.store.read_table(["x", "z", "absent"])) == {"x", "z"}
        assert dict(bench.store.read_table([])) == {}
        assert set(bench.store.read_table(None)) == {"x", "y", "z"}

    def test_an_entry_changes_only_from_the_version_that_the_writer_knew(
        self, bench: StoreBench
    ) -> None:
        bench.store.write_table([Change("x", 0, b"1")])
        first = bench.store.read_table()["x"].version
        assert bench.open().write_table([Change("x", first, b"2")])
        second = bench.store.read_table()["x"]
        assert (second.value, second.version != first) == (b"2", True)
        assert not bench.store.write_table([Change("x", first, b"3")])
        assert not bench.store.write_table([Change("x", 0, b"3")])
        assert bench.store.read_table()["x"] == second

    def test_several_changes_happen_together_or_not_at_all(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"1"), Change("y", 0, b"1")])
        bench.put("a")
        before = bench.store.read_table()
        x, y = before["x"].version, before["y"].version
        stale = [Change("x", x, b"2"), Change("new", 0, b"2"), Change("y", y + 1000, b"2")]
        assert not bench.store.write_table(stale, drop=["q"])
        assert bench.store.read_table() == before
        assert bench.counts() == (1, 0, 0)
        good = [Change("x", x, b"2"), Change("new", 0, b"2"), Change("y", y, None)]
        assert bench.store.write_table(good)
        after = {name: entry.value for name, entry in bench.store.read_table().items()}
        assert after == {"x": b"2", "new": b"2"}

    def test_a_change_of_one_entry_leaves_the_versions_of_others(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"1"), Change("y", 0, b"1")])
        before = bench.store.read_table()
        bench.store.write_table([Change("x", before["x"].version, b"2")])
        assert bench.store.read_table()["y"] == before["y"]

    def test_a_version_is_never_used_again_not_even_after_a_removal(
        self, bench: StoreBench
    ) -> None:
        seen = []
        for _ in range(4):
            assert bench.store.write_table([Change("x", 0, b"v")])
            seen.append(bench.store.read_table()["x"].version)
            assert bench.store.write_table([Change("x", seen[-1], b"v")])
            seen.append(bench.store.read_table()["x"].version)
            assert bench.store.write_table([Change("x", seen[-1], None)])
            assert dict(bench.store.read_table(["x"])) == {}
        assert len(set(seen)) == len(seen)
        assert min(seen) > 0

    def test_only_what_exists_can_be_removed_by_version(self, bench: StoreBench) -> None:
        assert not bench.store.write_table([Change("x", 7, None)])
        assert not bench.store.write_table([Change("x", 7, b"v")])
        assert bench.store.write_table([Change("x", 0, None)])
        assert dict(bench.store.read_table()) == {}

    def test_dropping_deletes_every_message_of_a_queue(self, bench: StoreBench) -> None:
        bench.put("held", "ready")
        held = bench.claim_one()
        bench.put("dead", ttl=0.0)
        bench.put("kept", queue="other")
        if bench.features.delay:
            bench.put("later", delay=1000.0)
        assert bench.store.write_table([Change("x", 0, b"v")], drop=["q", "never heard of"])
        assert bench.counts() == (0, 0, 0)
        assert list(bench.store.owned("s")) == []
        assert list(bench.store.put([], {}, settle=[held.token]).stale_tokens) == [held.token]
        assert bench.dead() == {}
        bench.crash()
        assert bench.claimed() == []
        assert bench.claimed(queue="other") == ["kept"]

    def test_a_dropped_queues_ids_are_free_again(self, bench: StoreBench) -> None:
        bench.put("a", body=b"old")
        bench.claim()
        bench.store.write_table([], drop=["q"])
        assert not bench.put("a", body=b"new").already
        assert [claim.body for claim in bench.claim()] == [b"new"]

    def test_a_binding_made_by_another_handle_is_seen_by_the_next_put(
        self, bench: StoreBench
    ) -> None:
        other = bench.open()
        bench.store.write_table([Change("exchange", 0, b"no binding")])
        known = bench.store.read_table()["exchange"].version
        assert not bench.store.put([], {"exchange": known}).stale_entries
        other.write_table([Change("exchange", known, b"one binding")])
        stale = bench.store.put([envelope("a")], {"exchange": known}).stale_entries
        assert list(stale) == ["exchange"]

    def test_of_many_writers_of_one_version_exactly_one_succeeds(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"0")])
        version = bench.store.read_table()["x"].version
        won: list[int] = []
        handles = [bench.open() for _ in range(8)]

        def write(number: int) -> None:
            if handles[number].write_table([Change("x", version, b"%d" % number)]):
                won.append(number)

        bench.together(*[lambda number=number: write(number) for number in range(8)])
        assert len(won) == 1
        assert bench.store.read_table()["x"].value == b"%d" % won[0]

    def test_results_of_reading_belong_to_the_reader(self, bench: StoreBench) -> None:
        bench.store.write_table([Change("x", 0, b"v")])
        read = bench.store.read_table()["x"]
        read.value, read.version = b"changed", 99
        assert bench.store.read_table()["x"].value == b"v"
        assert bench.store.read_table()["x"].version != 99


class KeyTests(StoreTests):
    """Clauses of `KeyValue`, for stores that have it."""

    def test_a_value_is_read_as_it_was_set(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        assert keys.key_get("k") is None
        for value in (b"one", b"", bytes(range(256)), b"x" * 2**20):
            version = keys.key_set("k", value)
            found = bench.keys(bench.open()).key_get("k")
            assert found is not None
            assert (found.value, found.version) == (value, version)

    def test_every_set_makes_a_new_version(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        versions = [keys.key_set("k", b"same") for _ in range(4)]
        assert None not in versions
        assert len(set(versions)) == 4
        assert all(version is not None and version > 0 for version in versions)

    def test_a_set_may_demand_that_the_key_is_absent(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        assert keys.key_set("k", b"first", version=0) is not None
        assert keys.key_set("k", b"second", version=0) is None
        assert keys.key_delete("k")
        assert keys.key_set("k", b"third", version=0) is not None
        found = keys.key_get("k")
        assert found is not None and found.value == b"third"

    def test_a_set_may_demand_a_version(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        first = keys.key_set("k", b"1")
        second = keys.key_set("k", b"2", version=first)
        assert second is not None
        assert keys.key_set("k", b"3", version=first) is None
        assert keys.key_set("absent", b"3", version=first) is None
        found = keys.key_get("k")
        assert found is not None and found.value == b"2"
        assert keys.key_get("absent") is None

    def test_many_keys_are_set_in_one_step_each_by_its_own_condition(
        self, bench: StoreBench
    ) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        assert keys.key_set_many([]) == []
        old = keys.key_set("there", b"old")
        writes = [
            KeyWrite("z", b"new", version=0),
            KeyWrite("there", b"refused", version=0),
            KeyWrite("a", b"any", ttl=60.0),
            KeyWrite("absent", b"refused", version=old),
        ]
        first, refused, anyhow, absent = keys.key_set_many(writes)
        assert refused is None and absent is None and first and anyhow and first != anyhow
        assert keys.key_set_many([KeyWrite("there", b"changed", version=old)]) != [None]
        values = [keys.key_get(key) for key in ("z", "there", "a", "absent")]
        assert [found and found.value for found in values] == [b"new", b"changed", b"any", None]
        assert values[0] is not None and values[0].version == first
        many = [KeyWrite(f"k{number}", b"%d" % number) for number in range(300)]
        assert None not in keys.key_set_many(many)
        found = keys.key_get("k299")
        assert found is not None and found.value == b"299"

    def test_a_key_is_absent_after_its_ttl(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        keys.key_set("soon", b"v", ttl=bench.tick)
        keys.key_set("later", b"v", ttl=1000.0)
        keys.key_set("never", b"v")
        bench.advance(bench.tick * 1.1)
        assert keys.key_get("soon") is None
        assert keys.key_get("later") is not None
        assert keys.key_get("never") is not None
        assert not keys.key_delete("soon")
        assert keys.key_set("soon", b"again", version=0) is not None

    def test_setting_a_key_sets_its_ttl_anew(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        keys.key_set("kept", b"v", ttl=bench.tick)
        keys.key_set("kept", b"v")
        keys.key_set("longer", b"v", ttl=bench.tick)
        keys.key_set("longer", b"v", ttl=1000.0)
        keys.key_set("shorter", b"v")
        keys.key_set("shorter", b"v", ttl=bench.tick)
        bench.advance(bench.tick * 1.1)
        assert keys.key_get("kept") is not None
        assert keys.key_get("longer") is not None
        assert keys.key_get("shorter") is None

    def test_a_deletion_may_demand_a_version(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        assert not keys.key_delete("k")
        first = keys.key_set("k", b"1")
        second = keys.key_set("k", b"2")
        assert not keys.key_delete("k", version=first)
        assert keys.key_get("k") is not None
        assert keys.key_delete("k", version=second)
        assert keys.key_get("k") is None
        assert not keys.key_delete("k", version=second)

    def test_a_counter_begins_at_zero_and_reads_as_decimal(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        assert keys.key_increment("n") == 1
        assert keys.key_increment("n", 41) == 42
        found = keys.key_get("n")
        assert found is not None and found.value == b"42"
        assert keys.key_increment("n", -50) == -8
        assert keys.key_increment("n", 0) == -8
        found = keys.key_get("n")
        assert found is not None and found.value == b"-8"
        keys.key_set("n", b"7")
        assert keys.key_increment("n", 2**40) == 7 + 2**40

    def test_counting_changes_the_version(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        version = keys.key_set("n", b"1")
        keys.key_increment("n")
        assert keys.key_set("n", b"5", version=version) is None

    def test_a_counters_ttl_is_set_when_it_is_made(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        keys.key_increment("n", ttl=bench.tick)
        keys.key_increment("n", ttl=1000.0)
        bench.advance(bench.tick * 1.1)
        assert keys.key_get("n") is None
        assert keys.key_increment("n", 5) == 5

    def test_only_a_number_can_be_counted_up(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        keys = bench.keys()
        keys.key_set("n", b"text")
        with pytest.raises(UsageError):
            keys.key_increment("n")
        found = keys.key_get("n")
        assert found is not None and found.value == b"text"

    def test_keys_may_be_long_and_hold_any_character(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        names = ["k" * 400, "'; DROP TABLE x; --", "%s %(a)s", "a\nb", "\U0001f40d", "K", "k", "k "]
        for number, name in enumerate(names):
            bench.keys().key_set(name, b"%d" % number)
        for number, name in enumerate(names):
            found = bench.keys().key_get(name)
            assert found is not None and found.value == b"%d" % number

    def test_counting_in_many_threads_loses_nothing(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        handles = [bench.keys(bench.open()) for _ in range(8)]
        values: list[int] = []

        def count(number: int) -> None:
            for _ in range(25):
                values.append(handles[number].key_increment("n"))

        bench.together(*[lambda number=number: count(number) for number in range(8)])
        assert sorted(values) == list(range(1, 201))

    def test_of_many_that_take_an_absent_key_exactly_one_succeeds(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        handles = [bench.keys(bench.open()) for _ in range(8)]
        won: list[int] = []

        def take(number: int) -> None:
            if handles[number].key_set("lock", b"%d" % number, version=0) is not None:
                won.append(number)

        bench.together(*[lambda number=number: take(number) for number in range(8)])
        assert len(won) == 1
