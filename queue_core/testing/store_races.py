"""Many hands and large loads: threads that race, sizes, and names made to break things."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import Counter

from queue_core.errors import SessionLost
from queue_core.message import Token
from queue_core.testing.store_bench import StoreBench, StoreTests, envelope, ids_of, tokens_of
from queue_core.transport import Change, Limit, Shredder, Store

THREADS = 8

NAMES = [
    "plain",
    "it's",
    'say "hi"',
    "semi;colon",
    "'; DROP TABLE messages; --",
    "%s %d %(name)s %%",
    "back\\slash",
    "../../etc/passwd",
    "a b  c ",
    "a b  c",
    "UPPER",
    "upper",
    "_under_",
    ":colon:name $1 ?1 @x #x",
    "ünïcödé",
    "u\u0308nicode",
    "\u202ertl",
    "\U0001f40d" * 10,
    "x" * 255,
    "é" * 127,
    "NULL",
    "0",
    "-1",
]
"""Names of queues and ids that a careless store mixes up, misreads or executes."""


class RaceTests(StoreTests):
    """Every method is one atomic step for all handles; here eight threads try to find a gap."""

    def test_two_handles_never_get_the_same_message(self, bench: StoreBench) -> None:
        ids = [str(number) for number in range(800)]
        bench.put(*ids)
        taken: list[str] = []

        def consume(number: int, store: Store) -> None:
            session = f"session-{number}"
            store.open_session(session, 30.0)
            done: list[object] = []
            request = 0
            while True:
                request += 1
                answer = store.claim(session, f"{request}", {"q": 7}, 0, settle=done)
                assert not answer.stale_tokens
                taken.extend(ids_of(answer.claims))
                done = tokens_of(answer.claims)
                if not done:
                    return

        handles = [bench.open() for _ in range(THREADS)]
        bench.together(
            *[lambda n=n, store=store: consume(n, store) for n, store in enumerate(handles)]
        )
        assert Counter(taken) == Counter(ids)
        assert bench.counts() == (0, 0, 0)

    def test_what_many_threads_put_is_all_there_each_in_its_order(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]

        def produce(number: int) -> None:
            for index in range(20):
                bench.put(f"{number}-{index}", store=handles[number])

        bench.together(*[lambda n=n: produce(n) for n in range(THREADS)])
        order = [name.split("-") for name in bench.claimed(1000)]
        for number in range(THREADS):
            mine = [int(index) for thread, index in order if int(thread) == number]
            assert mine == list(range(20))

    def test_one_id_put_by_many_threads_is_stored_once(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]
        stored: list[str] = []

        def put(number: int) -> None:
            for index in range(30):
                if not bench.put(f"id-{index}", store=handles[number]).already:
                    stored.append(f"id-{index}")

        bench.together(*[lambda n=n: put(n) for n in range(THREADS)])
        assert sorted(stored) == sorted(f"id-{index}" for index in range(30))
        assert len(bench.claimed()) == 30

    def test_a_full_queue_stays_within_its_limit(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]
        queues = [f"queue-{number}" for number in range(5)]
        stored: dict[str, list[str]] = {queue: [] for queue in queues}

        def put(number: int) -> None:
            for queue in queues:
                limits = {queue: Limit(10, "reject-publish")}
                for index in range(5):
                    batch = [envelope(f"{number}-{index}", queue)]
                    if not handles[number].put(batch, {}, limits=limits).full:
                        stored[queue].append(batch[0].id)

        bench.together(*[lambda n=n: put(n) for n in range(THREADS)])
        for queue in queues:
            assert len(stored[queue]) == 10
            assert sorted(bench.claimed(queue=queue)) == sorted(stored[queue])

    def test_a_batch_for_two_queues_is_seen_whole_or_not_at_all(self, bench: StoreBench) -> None:
        writer, reader = bench.open(), bench.open()
        done = threading.Event()

        def write() -> None:
            for number in range(100):
                batch = [envelope(f"{number}", "one"), envelope(f"{number}", "two")]
                writer.put(batch, {})
            done.set()

        def read() -> None:
            seen = 0
            while seen < 100:
                last = done.is_set()
                wants = {"one": 1000, "two": 1000}
                claims = reader.claim("s", bench.request(), wants, 0).claims
                one = [claim.id for claim in claims if claim.queue == "one"]
                two = [claim.id for claim in claims if claim.queue == "two"]
                assert one == two
                seen += len(one)
                assert seen == 100 or not last

        bench.together(write, read)

    def test_a_message_is_settled_by_one_of_many_that_try(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]
        for turn in range(10):
            bench.put("a")
            token = bench.claim_one().token
            succeeded: list[int] = []

            def settle(number: int, token: object = token, won: list[int] = succeeded) -> None:
                copy = envelope(f"copy-{number}", "out", cause=token)
                if not handles[number].put([copy], {}, settle=[token]).stale_tokens:
                    won.append(number)

            bench.together(*[lambda n=n: settle(n) for n in range(THREADS)])
            assert len(succeeded) == 1, f"turn {turn}"
            assert bench.claimed(queue="out") == [f"copy-{succeeded[0]}"]
            bench.store.write_table([], drop=["out"])

    def test_a_dead_session_is_ended_by_one_of_many_that_try(self, bench: StoreBench) -> None:
        bench.put("a", "b")
        bench.claim()
        beats = bench.store.sessions()["s"].beats
        handles = [bench.open() for _ in range(THREADS)]
        ended: list[bool] = []
        bench.together(*[lambda h=h: ended.append(h.end_session("s", beats)) for h in handles])
        assert sorted(ended) == [False] * (THREADS - 1) + [True]
        bench.store.open_session("t", 1.0)
        assert [claim.attempts for claim in bench.claim(session="t")] == [2, 2]

    def test_a_dropped_queue_keeps_nothing_of_puts_under_way(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]
        for turn in range(5):
            assert bench.store.write_table([Change("q:q", 0, b"it exists")])
            versions = {"q:q": bench.store.read_table(["q:q"])["q:q"].version}

            def put(number: int, turn: int = turn, versions: dict[str, int] = versions) -> None:
                for index in itertools.count():
                    batch = [envelope(f"{turn}-{number}-{index}")]
                    if handles[number].put(batch, versions).stale_entries:
                        return

            def drop(versions: dict[str, int] = versions) -> None:
                while bench.counts()[0] < 5:
                    pass
                assert bench.store.write_table([Change("q:q", versions["q:q"], None)], drop=["q"])

            bench.together(*[lambda n=n: put(n) for n in range(THREADS)], drop)
            assert bench.counts() == (0, 0, 0), f"turn {turn}"

    def test_no_put_goes_by_an_entry_that_had_changed_before_it_began(
        self, bench: StoreBench
    ) -> None:
        handles = [bench.open() for _ in range(4)]
        assert bench.store.write_table([Change("x", 0, b"")])
        begun = [bench.store.read_table(["x"])["x"].version]
        done: list[int] = []

        def change() -> None:
            for _ in range(30):
                assert bench.store.write_table([Change("x", begun[-1], b"")])
                done.append(begun[-1])
                begun.append(bench.store.read_table(["x"])["x"].version)

        def put(number: int) -> None:
            index = 0
            while len(done) < 30:
                index += 1
                over, version = len(done), begun[-1]
                result = handles[number].put([envelope(f"{number}-{index}")], {"x": version})
                assert result.stale_entries or version not in done[:over]

        bench.together(change, *[lambda n=n: put(n) for n in range(4)])

    def test_an_ended_session_holds_nothing_of_claims_under_way(self, bench: StoreBench) -> None:
        ids = [f"{number:03}" for number in range(100)]
        bench.put(*ids)
        handles = [bench.open() for _ in range(4)]
        for turn in range(10):
            session = f"short-lived-{turn}"
            bench.store.open_session(session, 30.0)

            def claim(store: Store, session: str = session) -> None:
                with contextlib.suppress(SessionLost):
                    while True:
                        store.claim(session, bench.request(), {"q": 1}, 0)

            def end(session: str = session) -> None:
                while bench.counts()[2] < 5:
                    pass
                assert bench.store.end_session(session)

            bench.together(*[lambda h=h: claim(h) for h in handles], end)
            assert bench.counts() == (100, 0, 0), f"turn {turn}"
        assert bench.claimed() == ids

    def test_settling_releasing_and_ending_at_once_leave_each_message_in_one_place(
        self, bench: StoreBench
    ) -> None:
        handles = [bench.open() for _ in range(4)]
        for turn in range(10):
            session = f"busy-{turn}"
            bench.store.open_session(session, 30.0)
            bench.put(*[f"{turn}-{number:02}" for number in range(40)])
            tokens = tokens_of(bench.claim(session=session))
            backwards = tokens[::-1]
            settled: list[object] = []

            def settle(store: Store, mine: list[Token], kept: list[object] = settled) -> None:
                stale = store.put([], {}, settle=mine).stale_tokens
                kept.extend(token for token in mine if token not in stale)

            bench.together(
                functools.partial(settle, handles[0], tokens),
                functools.partial(settle, handles[1], backwards),
                functools.partial(handles[2].release, backwards),
                functools.partial(handles[3].end_session, session),
            )
            assert len(settled) == len(set(settled))
            assert bench.counts() == (40 - len(settled), 0, 0), f"turn {turn}"
            bench.store.purge("q")

    def test_a_dead_message_is_collected_once(self, bench: StoreBench) -> None:
        ids = [f"{number:03}" for number in range(200)]
        bench.put(*ids, ttl=0.0)
        collected: list[str] = []

        def collect(store: Store) -> None:
            while claims := store.collect("s", 7):
                collected.extend(ids_of(claims))

        handles = [bench.open() for _ in range(4)]
        bench.together(*[lambda h=h: collect(h) for h in handles])
        while claims := bench.store.collect("s", 100):  # what one of them had passed over
            collected.extend(ids_of(claims))
        assert sorted(collected) == ids

    def test_a_queue_that_drops_its_head_stays_within_its_limit(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]
        limits = {"q": Limit(10, "drop-head")}

        def put(number: int) -> None:
            for index in range(10):
                handles[number].put([envelope(f"{number}-{index}")], {}, limits=limits)

        bench.together(*[lambda n=n: put(n) for n in range(THREADS)])
        assert bench.counts() == (10, 0, 0)
        assert len(bench.dead()) == 10 * THREADS - 10

    def test_shredders_side_by_side_delete_each_message_once(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(3)]
        many = 6_000
        for first in range(0, many, 1000):
            bench.put(*map(str, range(first, first + 1000)))
        counts: list[int] = []

        def shred(store: Store) -> None:
            while isinstance(store, Shredder) and (some := store.shred("q", {})):
                counts.append(some)

        def publish() -> None:
            for number in range(20):
                handles[2].put([envelope(str(number), "other")], {})

        bench.together(*[lambda h=h: shred(h) for h in handles[:2]], publish)
        if isinstance(bench.store, Shredder):
            assert sum(counts) == many
            assert bench.counts() == (0, 0, 0)
        assert bench.counts("other") == (20, 0, 0)

    def test_a_session_opened_by_many_at_once_is_one(self, bench: StoreBench) -> None:
        handles = [bench.open() for _ in range(THREADS)]
        for turn in range(5):
            name = f"shared-{turn}"
            bench.together(*[lambda h=h, n=name: h.open_session(n, 30.0) for h in handles])
            assert bench.store.end_session(name)
            assert name not in bench.store.sessions()

    def test_counters_and_conditions_of_keys_hold_for_many_at_once(self, bench: StoreBench) -> None:
        if bench.lacks("key_value"):
            return
        handles = [bench.keys(bench.open()) for _ in range(THREADS)]
        won: list[int] = []

        def work(number: int) -> None:
            keys = handles[number]
            for turn in range(10):
                keys.key_increment("counter")
                if keys.key_set(f"lock-{turn}", b"%d" % number, version=0) is not None:
                    won.append(turn)

        bench.together(*[lambda n=n: work(n) for n in range(THREADS)])
        entry = bench.keys().key_get("counter")
        assert entry is not None and entry.value == b"%d" % (10 * THREADS)
        assert sorted(won) == list(range(10))


class LoadTests(StoreTests):
    """Sizes, bytes and names."""

    def test_bodies_and_properties_are_opaque_bytes(self, bench: StoreBench) -> None:
        values = [b"", b"\x00", bytes(range(256)), "ü".encode("latin-1"), b"\xff" * 3, b"'\";--%"]
        for number, value in enumerate(values):
            bench.put(str(number), body=value, properties=value[::-1])
        claims = bench.claim()
        assert [claim.body for claim in claims] == values
        assert [claim.properties for claim in claims] == [value[::-1] for value in values]
        assert {type(claim.body) for claim in claims} == {bytes}

    def test_a_body_of_a_mebibyte_comes_back(self, bench: StoreBench) -> None:
        body = bytes(range(256)) * 4096
        bench.put("large", body=body)
        assert bench.claim_one().body == body

    def test_a_batch_of_two_thousand_is_put_claimed_and_settled_at_once(
        self, bench: StoreBench
    ) -> None:
        ids = [f"message-{number:04}" for number in range(2000)]
        bench.put(*ids)
        claims = bench.claim(5000)
        assert ids_of(claims) == ids
        tokens = tokens_of(claims)
        assert set(bench.store.owned("s")) == set(tokens)
        assert list(bench.store.release(tokens)) == []
        again = tokens_of(bench.claim(2000))
        assert len(again) == 2000
        assert set(bench.store.put([], {}, settle=[*again, *tokens]).stale_tokens) == set(tokens)
        assert bench.counts() == (0, 0, 0)

    def test_two_thousand_messages_die_and_are_collected(self, bench: StoreBench) -> None:
        ids = [f"message-{number:04}" for number in range(2000)]
        bench.put(*ids, ttl=0.0)
        claims = bench.store.collect("s", 5000)
        assert sorted(ids_of(claims)) == ids
        letters = [envelope(c.id, "out", cause=c.token) for c in claims]
        assert not bench.store.put(letters, {}, settle=tokens_of(claims)).stale_tokens
        assert bench.store.purge("out") == 2000

    def test_a_claim_from_many_queues_at_once(self, bench: StoreBench) -> None:
        names = [f"queue-{number}" for number in range(300)]
        bench.store.put([envelope("a", name) for name in names], {})
        wants = dict.fromkeys(names, 1)
        claims = bench.store.claim("s", bench.request(), wants, 0).claims
        assert sorted(claim.queue for claim in claims) == sorted(names)

    def test_many_table_entries_are_written_and_checked_at_once(self, bench: StoreBench) -> None:
        names = [f"entry-{number}" for number in range(500)]
        assert bench.store.write_table([Change(name, 0, b"v") for name in names])
        table = bench.store.read_table(names)
        assert set(table) == set(names)
        versions = {name: entry.version for name, entry in table.items()}
        assert not bench.store.put([envelope("a")], versions).stale_entries
        versions["entry-77"] += 1
        assert list(bench.store.put([envelope("b")], versions).stale_entries) == ["entry-77"]

    def test_hostile_names_are_only_names(self, bench: StoreBench) -> None:
        batch = [envelope("id", queue, body=queue.encode()) for queue in NAMES]
        bench.store.put(batch, {})
        bench.store.write_table([Change(name, 0, name.encode()) for name in NAMES])
        table = bench.store.read_table(NAMES)
        assert {name: entry.value for name, entry in table.items()} == {
            name: name.encode() for name in NAMES
        }
        for name in NAMES:
            assert bench.counts(name) == (1, 0, 0)
        claims = bench.store.claim("s", "r", dict.fromkeys(NAMES, 5), 0).claims
        assert {claim.queue: claim.body for claim in claims} == {
            name: name.encode() for name in NAMES
        }
        assert bench.store.write_table([], drop=NAMES[:1])
        assert len(bench.store.owned("s")) == len(NAMES) - 1

    def test_hostile_ids_are_only_ids(self, bench: StoreBench) -> None:
        bench.put(*NAMES)
        assert list(bench.put(*NAMES).already) == list(range(len(NAMES)))
        assert bench.claimed() == NAMES

    def test_table_names_may_have_400_characters(self, bench: StoreBench) -> None:
        names = ["n" * 400, "n" * 399 + "m", "binding\n1\t\x01"]
        assert bench.store.write_table([Change(name, 0, name.encode()) for name in names])
        table = bench.store.read_table(names)
        assert {name: entry.value for name, entry in table.items()} == {
            name: name.encode() for name in names
        }
