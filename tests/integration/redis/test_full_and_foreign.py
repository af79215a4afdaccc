"""A server that is full, holds foreign keys, forgets scripts, or dies: nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_core import Connection, Queue
from queue_core.errors import BrokerFull, ConnectionLost, StoreCorrupt
from queue_core.testing.eventually import eventually
from queue_core.transport import Change, Envelope, Limit, SessionOptions
from queue_core.transports.redis import RedisStores
from queue_core.transports.redis.store import RedisStore
from queue_core.url import parse

MakeServer = Callable[..., Any]
OpenStore = Callable[..., RedisStore]
OwnServer = Any

KINDS = ["m", "a", "b", "h", "s", "d", "t", "x", "l0", "r0", "p0", "l5", "r5", "p5"]
ONCE = ["dead", "ttl", "sessions", "number", "seq", "versions", "entries", "held", "c"]


def put(store: RedisStore, *ids: str, **fields: object) -> None:
    store.put([Envelope("q", name, b"b" * 100, b"", **fields) for name in ids], {})


@pytest.fixture
def full(make_server: MakeServer, open_store: OpenStore) -> tuple[OwnServer, RedisStore]:
    """A server without room, with 300 messages, two of them claimed."""
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    for first in range(0, 300, 100):
        put(store, *(str(number) for number in range(first, first + 100)), max_deliveries=3)
    server.client.config_set("maxmemory", "1mb")
    return server, store


def test_a_full_server_refuses_what_grows_and_stores_nothing_of_it(
    full: tuple[OwnServer, RedisStore],
) -> None:
    server, store = full
    before = server.client.dbsize()
    with pytest.raises(BrokerFull, match="consumers can still drain it"):
        put(store, "one more")
    with pytest.raises(BrokerFull):
        put(store, "one more", delay=1.0, ttl=2.0)
    with pytest.raises(BrokerFull):
        store.key_set("k", b"v")
    with pytest.raises(BrokerFull):
        store.key_increment("n")
    assert (store.inspect("q").ready, store.inspect("q").delayed) == (300, 0)
    assert server.client.dbsize() == before


def test_an_answer_that_brings_an_ack_along_passes_a_full_server(
    full: tuple[OwnServer, RedisStore],
) -> None:
    _, store = full
    (held,) = store.claim("s", "r", {"q": 1}, 0).claims
    answer, another = (Envelope("answers", name, b"b" * 100, b"") for name in "ab")
    assert not store.put([answer], {}, settle=[held.token]).stale_tokens
    with pytest.raises(BrokerFull):  # nothing leaves for it
        store.put([another], {}, settle=[held.token])
    assert (store.inspect("answers").ready, store.inspect("q").ready) == (1, 299)


def test_a_full_server_can_be_drained(
    full: tuple[OwnServer, RedisStore], open_store: OpenStore
) -> None:
    server, _ = full
    store = open_store(server.url)
    store.open_session("fresh", 30.0)
    assert not store.heartbeat(["fresh"])
    assert store.write_table([Change("queue", 0, b"declared")])
    released = store.claim("fresh", "first", {"q": 1}, 0).claims
    assert not store.release([claim.token for claim in released], delay=0.001)
    letters, taken = 0, set()
    number = 0
    while len(taken) < 300:
        number += 1
        claims = store.claim("fresh", f"r{number}", {"q": 50}, 0.1).claims
        tokens = [claim.token for claim in claims]
        taken.update(claim.id for claim in claims)
        copies = [Envelope("dlq", c.id, c.body, b"", cause=c.token) for c in claims[:10]]
        assert not store.put(copies, {}, settle=tokens).stale_tokens
        letters += len(copies)
    assert store.inspect("q").ready == 0
    assert store.inspect("dlq").ready == letters
    assert store.end_session("fresh")
    server.client.config_set("maxmemory", "0")
    put(store, "room again")


def test_the_end_of_sessions_and_collecting_work_on_a_full_server(
    full: tuple[OwnServer, RedisStore],
) -> None:
    server, store = full
    for number in range(3):
        assert store.claim("s", f"r{number}", {"q": 5}, 0).claims
        assert store.end_session("s", store.sessions()["s"].beats)
        store.open_session("s", 30.0)
    dead = store.collect("s", 10)
    assert {claim.reason for claim in dead} == {"delivery_limit"}
    assert not store.release([claim.token for claim in dead])
    assert len(store.collect("s", 10)) == len(dead)


@pytest.mark.parametrize("kind", [f"{kind}:q" for kind in KINDS] + ONCE)
def test_a_foreign_key_stops_a_step_before_it_has_written_anything(
    kind: str, make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    put(store, "old", ttl=1000.0, max_deliveries=2)
    (held,) = store.claim("s", "r0", {"q": 1}, 0).claims
    put(store, "plain", "plain too")
    put(store, "returned", priority=5, ttl=1000.0, max_deliveries=5)
    put(store, "later", priority=5, delay=1000.0)
    put(store, "dead", ttl=0.0)
    key = "{qc}:" + kind
    if kind in ("held", "c"):  # one for each session
        (key,) = (name.decode() for name in server.client.keys(key + ":*"))
    there = bool(server.client.exists(key))
    if there:
        server.client.rename(key, "away")
    foreign = server.client.rpush if kind in ("number", "seq") else server.client.set
    foreign(key, "foreign")
    before = _everything(server)
    copy = [Envelope("q", "copy", b"", b"", ttl=100.0, cause=held.token)]
    many = [Envelope("q", "x", b"", b""), Envelope("q", "y", b"", b"", priority=5, delay=9.0)]
    mortal = [Envelope("q", "z", b"", b"", priority=priority, ttl=50.0) for priority in (0, 5)]
    steps = [
        lambda: store.put(many[:1], {"entry": 0}),
        lambda: store.put(many[:1], {"entry": 0}, settle=[held.token]),
        lambda: store.put(mortal, {"entry": 0}),
        lambda: store.put(mortal, {"entry": 0}, settle=[held.token]),
        lambda: store.put(many, {"entry": 0}),
        lambda: store.put(copy, {"entry": 0}, settle=[held.token], limits={"q": Limit(2)}),
        lambda: store.claim("s", "r1", {"q": 9}, 0, settle=[held.token]),
        lambda: store.release([held.token]),
        lambda: store.collect("s", 9),
        lambda: store.heartbeat(["s"]),
        lambda: store.end_session("s"),
        lambda: store.open_session("s", 30.0),
        lambda: store.inspect("q"),
        lambda: store.purge("q"),
        lambda: store.write_table([Change("entry", 0, b"v")], drop=["q"]),
    ]
    refused = 0
    for number, step in enumerate(steps):
        try:
            step()
        except StoreCorrupt as error:
            refused += 1
            assert "prefix" in str(error)
            assert _everything(server) == before, f"step {number} failed half-way"
        else:
            before = _everything(server)
    assert refused
    server.client.delete(key)
    if there:
        server.client.rename("away", key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_key_in_one_queue_stops_no_step_for_the_others(
    kind: str, make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    for session in ("s", "dying"):
        store.open_session(session, 30.0)
    for queue in ("bad", "good"):
        batch = [Envelope(queue, name, b"", b"", priority=5) for name in ("0", "1", "2")]
        store.put(batch, {})
        assert len(store.claim("dying", queue, {queue: 2}, 0).claims) == 2
        store.put([Envelope(queue, "dead", b"", b"", ttl=0.0)], {})
        store.put([Envelope(queue, "mortal", b"", b"", ttl=0.05, delay=0.05)], {})
        store.put([Envelope(queue, "later", b"", b"", delay=0.001)], {})
    server.client.delete(f"{{qc}}:{kind}:bad")
    server.client.set(f"{{qc}}:{kind}:bad", "foreign")
    taken: set[tuple[str, str]] = set()
    collected: set[tuple[str, str]] = set()

    def collect() -> bool:
        collected.update((dead.queue, dead.id) for dead in store.collect("s", 9))
        return collected >= {("good", "dead"), ("good", "mortal")}

    def take() -> bool:
        answer = store.claim("s", "r", {"bad": 9, "good": 9}, 0.1)
        assert list(answer.broken) == ["bad"] and "WRONGTYPE" in answer.broken["bad"]
        taken.update((claim.queue, claim.id) for claim in answer.claims)
        return taken >= {("good", "2"), ("good", "later")}

    eventually(collect)
    eventually(take)
    with pytest.raises(StoreCorrupt):
        store.claim("s", "r3", {"bad": 9}, 0)
    mixed = [token for token in store.owned("dying") if token[1] == "0"]
    with pytest.raises(StoreCorrupt):
        store.release(mixed)
    assert store.inspect("good").ready == 1
    with pytest.raises(StoreCorrupt):
        store.end_session("dying", store.sessions()["dying"].beats)
    assert {token[0] for token in store.owned("dying")} == {"bad"}
    assert store.inspect("good").ready == 2
    server.client.delete(f"{{qc}}:{kind}:bad")
    assert store.end_session("dying", store.sessions()["dying"].beats)


def test_who_consumes_a_queue_with_a_foreign_key_beside_others_is_told_of_it_once(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()
    names, key = ("good", "bad"), "{qc}:a:bad"

    def told() -> list[str]:
        said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        return [line for line in said if line.startswith("queue 'bad' cannot be consumed: ")]

    with Connection(server.url) as connection:
        connection.declare(*map(Queue, names))
        producer = connection.producer()
        with connection.consumer(*names) as consumer:
            for turn in (1, 2):
                server.client.set(key, "foreign")
                for number in range(3):
                    producer.publish(number, "good")
                    message = consumer.receive(timeout=20.0)
                    assert message is not None and message.payload == number
                    message.ack()
                assert consumer.receive(timeout=0.1) is None
                assert len(told()) == turn and "WRONGTYPE" in told()[-1]
                server.client.delete(key)
                producer.publish("again", "bad")
                message = consumer.receive(timeout=20.0)
                assert message is not None and message.payload == "again"
                message.ack()


def _everything(server: OwnServer) -> dict[bytes, object]:
    client = server.client
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: readers[client.type(key)](key) for key in client.keys("*")}


def test_a_server_that_forgets_its_scripts_is_told_them_again(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    for number in range(5):
        for step in (
            lambda: store.open_session("s", 30.0),
            lambda number=number: put(store, str(number)),
            lambda number=number: store.put(
                [],
                {},
                settle=[c.token for c in store.claim("s", f"r{number}", {"q": 9}, 0).claims],
            ),
            lambda: store.collect("s", 1),
            lambda: store.key_increment("n"),
        ):
            server.client.script_flush()
            step()
    assert (store.inspect("q").ready, store.inspect("q").claimed) == (0, 0)


def test_a_killed_server_with_an_append_only_file_loses_nothing(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    store = open_store(server.url)
    store.open_session("s", 30.0)
    put(store, *(str(number) for number in range(50)))
    held = store.claim("s", "r1", {"q": 20}, 0).claims
    store.put([], {}, settle=[claim.token for claim in held[:10]])
    server.kill()
    with pytest.raises(ConnectionLost):
        put(store, "nobody hears it")
    server.start()
    eventually(lambda: store.inspect("q").ready == 30)
    again = store.claim("s", "r1", {"q": 20}, 0, repeat=True).claims
    assert [claim.token for claim in again] == [claim.token for claim in held[10:]]
    assert not store.put([], {}, settle=[claim.token for claim in again]).stale_tokens


def test_a_killed_connection_is_made_anew_by_the_next_call(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    put(store, "a")
    server.client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(ConnectionLost):
        store.claim("s", "r", {"q": 1}, 0)
    assert [c.id for c in store.claim("s", "r", {"q": 1}, 0, repeat=True).claims] == ["a"]


def test_looking_for_the_dead_works_on_a_full_server(
    full: tuple[OwnServer, RedisStore],
) -> None:
    server, store = full
    server.client.config_set("maxmemory", "0")
    store.put([Envelope("ttl", name, b"", b"", ttl=1.5) for name in ("short", "long")], {})
    server.client.config_set("maxmemory", "1mb")
    taken = store.claim("s", "r", {"ttl": 1}, 0).claims
    assert [claim.id for claim in taken] == ["short"]
    letters = eventually(lambda: store.collect("s", 10))
    assert [(letter.id, letter.reason) for letter in letters] == [("long", "expired")]
    assert store.collect("s", 10) == []
    assert not store.claim("s", "r2", {"ttl": 1}, 0.05).claims


class Cut:
    """A connection that breaks when a command has been sent, before its answer is read."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.cutting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wire, name)

    def read_response(self) -> Any:
        answer = self.wire.read_response()
        if self.cutting:
            self.cutting = False
            raise ConnectionResetError("cut")
        return answer


def test_a_step_whose_answer_was_lost_may_be_repeated(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    store = open_store(make_server().url)
    cut = store._server._connection = Cut(store._server._connection)
    store.open_session("s", 30.0)

    def twice(step: Callable[[bool], Any]) -> Any:
        cut.cutting = True
        with pytest.raises(ConnectionLost):
            step(False)
        return step(True)

    batch = [Envelope("q", name, b"", b"") for name in "abc"]
    assert twice(lambda _: store.put(batch, {})).already == [0, 1, 2]
    claims = twice(lambda again: store.claim("s", "r1", {"q": 2}, 1.0, repeat=again)).claims
    assert [claim.id for claim in claims] == ["a", "b"]
    a, b = (claim.token for claim in claims)
    more = twice(lambda again: store.claim("s", "r2", {"q": 9}, 1.0, settle=[a], repeat=again))
    assert [claim.id for claim in more.claims] == ["c"]
    assert twice(lambda _: store.release([b])) == [b]
    assert store.inspect("q").ready == 1
    assert twice(lambda _: store.end_session("s")) is False
    assert store.inspect("q").ready == 2


def test_a_place_without_its_message_is_passed_over(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    put(store, "a", "b", "c")
    put(store, "x", "y", ttl=0.0)
    server.client.hdel("{qc}:m:q", "a", "x")
    assert [claim.id for claim in store.claim("s", "r1", {"q": 1}, 0).claims] == ["b"]
    assert [claim.id for claim in store.collect("s", 9)] == ["y"]
    assert [claim.id for claim in store.claim("s", "r2", {"q": 9}, 0).claims] == ["c"]
    assert store.collect("s", 9) == []


def test_no_step_looks_through_more_than_some_thousand_messages(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    """Whatever has piled up: the work of one step is bounded, and what is alive is found behind."""
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    for first in range(0, 6000, 500):
        put(store, *(str(number) for number in range(first, first + 500)), ttl=0.001)
    put(store, "alive")
    server.client.config_resetstat()
    assert [claim.id for claim in store.claim("s", "r", {"q": 10}, 0).claims] == ["alive"]
    stats = server.client.info("commandstats")
    steps = stats["cmdstat_evalsha"]["calls"] + stats.get("cmdstat_eval", {}).get("calls", 0)
    assert 3 <= steps <= 7
    assert len(store.collect("s", 10_000)) == 6000
    held = store.claim("s", "r2", {"q": 10}, 0).claims
    assert held == []


def test_a_great_many_messages_are_returned_in_several_steps(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    store.open_session("s", 30.0)
    for first in range(0, 2500, 500):
        put(store, *(str(number) for number in range(first, first + 500)))
    tokens = [claim.token for claim in store.claim("s", "r", {"q": 2500}, 0).claims]
    server.client.config_resetstat()
    assert store.release([*tokens, tokens[0], "odd"]) == ["odd"]
    assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3
    assert store.inspect("q").ready == 2500


def test_a_server_whose_clock_steps_back_repeats_no_number_and_loses_nothing(
    make_server: MakeServer,
) -> None:
    server = make_server()
    clock = "local function clock() return tonumber(redis.call('GET', KEYS[1] .. 'clock')) end"
    today, yesterday = 1_700_086_400_000_000, 1_700_000_000_000_000
    server.client.set("{qc}:clock", today)
    store = RedisStores(clock).open(parse(server.url), SessionOptions())
    store.open_session("s", 30.0)
    assert store.write_table([Change("entry", 0, b"1")])
    put(store, "now", "mortal", "later")
    put(store, "due", delay=5.0)
    put(store, "brief", ttl=5.0)
    (held,) = store.claim("s", "r1", {"q": 1}, 0).claims
    before, version = store.sessions()["s"].beats, store.read_table()["entry"].version
    server.client.set("{qc}:clock", yesterday)
    assert store.heartbeat(["s"]) == []
    assert store.sessions()["s"].beats > before
    assert store.write_table([Change("entry", version, b"2")])
    assert store.read_table()["entry"].version > version
    more = store.claim("s", "r2", {"q": 9}, 0, settle=[held.token])
    assert [claim.id for claim in more.claims] == ["mortal", "later", "brief"]
    assert not more.stale_tokens
    server.client.set("{qc}:clock", today + 5_000_000)
    assert [claim.id for claim in store.claim("s", "r3", {"q": 9}, 0).claims] == ["due"]
    assert not store.release([claim.token for claim in more.claims])
    assert [(dead.id, dead.reason) for dead in store.collect("s", 9)] == [("brief", "expired")]
    store.close()


def test_a_server_whose_clock_steps_forward_changes_keys_all_the_same(
    make_server: MakeServer,
) -> None:
    """It says that they come too late, once: the handle still waits, and asks for the time."""
    server = make_server()
    clock = "local function clock() return tonumber(redis.call('GET', KEYS[1] .. 'clock')) end"
    server.client.set("{qc}:clock", 1_700_000_000_000_000)
    store = RedisStores(clock).open(parse(server.url), SessionOptions())
    store.key_set("k", b"1")
    for change in (
        lambda: store.key_set("k", b"2"),
        lambda: store.key_increment("k"),
        lambda: store.key_delete("k"),
    ):
        server.client.incrby("{qc}:clock", 86_400_000_000)
        assert change()
    assert store.key_get("k") is None
    server.client.config_resetstat()
    store.key_set("k", b"3")
    assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    store.close()


def test_a_damaged_record_costs_its_message_the_history_and_nobody_else_anything(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    """Whoever wrote it: what it stands for is handed out, or passed over, as if it were new."""
    server = make_server()
    store = open_store(server.url)
    for session in ("s", "dying"):
        store.open_session(session, 30.0)
    put(store, "held", "too", "returned", "third", max_deliveries=9)
    put(store, "dead", "dead too", ttl=0.0)
    assert len(store.claim("dying", "r", {"q": 3}, 0).claims) == 3
    (records,) = server.client.keys("{qc}:c:*")
    server.client.hset(records, "held", "damaged")
    assert store.end_session("dying", store.sessions()["dying"].beats)
    server.client.hset("{qc}:a:q", mapping={"third": "damaged", "dead": "damaged"})
    server.client.lpush("{qc}:l0:q", "foreign")
    server.client.sadd("{qc}:s:q", 0)
    claims = store.claim("s", "r", {"q": 9}, 0).claims
    assert {claim.id for claim in claims} == {"held", "too", "returned", "third"}
    assert {dead.id for dead in store.collect("s", 9)} == {"dead", "dead too"}
    assert not store.claim("s", "r2", {"q": 9}, 0).claims
    put(store, "next")
    assert [claim.id for claim in store.claim("s", "r3", {"q": 9}, 0).claims] == ["next"]


def test_a_damaged_session_is_none_and_keeps_nobody_from_seeing_the_others(
    make_server: MakeServer, open_store: OpenStore
) -> None:
    server = make_server()
    store = open_store(server.url)
    for session in ("whole", "bad"):
        store.open_session(session, 30.0)
    server.client.hset("{qc}:sessions", "bad", "damaged")
    assert list(store.sessions()) == ["whole"]
    assert store.heartbeat(["whole", "bad"]) == ["bad"]
    assert not store.end_session("bad")
    store.open_session("bad", 30.0)
    assert set(store.sessions()) == {"whole", "bad"}
