"""The statements of PostgreSQL that do a whole step: what waits for the disk, and what need not."""

from __future__ import annotations

import msgspec
import psycopg
import pytest

from queue_core.transport import Envelope, PutResult
from queue_core.transports.sql.dialects import Taking
from queue_core.transports.sql.postgresql_dialect import HINT, NOW
from queue_core.transports.sql.postgresql_once import Once, numbers, put_once, take_once
from queue_core.transports.sql.postgresql_wakeup import Throttle, channel_of

LAZY = "set_config('synchronous_commit', 'off', true)"
ONCE = Once(NOW)


PUTS = [*ONCE.put.values(), *ONCE.append.values()]
SETTLES = [ONCE.settle, ONCE.take[True], ONCE.take_many[True]]
CLAIMS = [ONCE.take[False], ONCE.take_many[False]]


@pytest.mark.parametrize("text", [*PUTS, *SETTLES])
def test_whatever_stores_or_settles_waits_for_the_disk(text: str) -> None:
    assert "synchronous_commit" not in text


class Writer:
    """A cursor that finds nothing usual in the short statement, and everything in the long."""

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain
        self.texts: list[str] = []

    def execute(self, statement: str, parameters: object) -> None:
        self.texts.append(statement)

    def fetchone(self) -> tuple[object, ...] | None:
        return (True,) if self.plain else None

    def fetchall(self) -> list[tuple[object, ...]]:
        return [(True, "q", "1", 0, [])]


def put(writer: Writer, **changes: object) -> PutResult:
    one = msgspec.structs.replace(Envelope("1", "q", b"", b""), **changes)
    answer = put_once(writer, ONCE, [one], {"q:q": 3}, (), [], ["q"])  # type: ignore[arg-type]
    assert answer is not None
    return answer[0]


def test_a_message_that_is_ready_at_once_takes_the_short_statement_and_its_hint() -> None:
    for changes in ({}, {"ttl": 1.5}, {"priority": 3}):
        put(writer := Writer(plain=True), **changes)
        assert writer.texts == [ONCE.append[False]]
    writer = Writer(plain=True)
    put_once(writer, ONCE, [Envelope("1", "q", b"", b"")], {"q:q": 3}, (), ["c"], [])  # type: ignore[arg-type]
    assert writer.texts == [ONCE.append[True]]


def test_what_is_not_usual_takes_the_long_statement() -> None:
    for changes in ({"delay": 1.0}, {"ttl": 0.0}):
        put(writer := Writer(plain=True), **changes)
        assert writer.texts == [ONCE.put[True, False]]
    put(writer := Writer(plain=False))
    assert writer.texts == [ONCE.append[False], ONCE.put[True, False]]


@pytest.mark.parametrize("text", [*CLAIMS, HINT])
def test_claiming_and_waking_do_not_wait_for_the_disk(text: str) -> None:
    assert LAZY in text
    assert "INSERT INTO queue_core_message" not in text


def test_what_a_claim_settled_is_not_stale_when_its_second_statement_collides() -> None:
    class Cursor:
        """Finds that something is due, and then a deadlock."""

        def execute(self, statement: str, parameters: object) -> None:
            if statement != ONCE.take[True]:
                raise psycopg.errors.DeadlockDetected

        def fetchall(self) -> list[tuple[object, ...]]:
            return [(7, -5, False, None, "off", None)]

    token = (1, 2**62 + 1)
    taken = take_once(Cursor(), ONCE, Taking("s", "r", 0, 1, {"q": 1}, [token]))  # type: ignore[arg-type]
    assert taken == (7, [], (), 0.0, True)


def test_numbers_are_an_array_as_the_server_reads_it() -> None:
    assert numbers([1, None, 2**62]) == "{1,NULL,4611686018427387904}"
    assert numbers([]) == "{}"


def test_channels_are_names_that_need_no_quotes_and_differ_by_queue_and_tables() -> None:
    channels = {channel_of(queue, tables) for queue in ("q", "Q", "'\"") for tables in ("1", "2")}
    assert len(channels) == 6
    assert all(channel.isidentifier() and channel.islower() for channel in channels)
    assert all(len(channel) < 64 for channel in channels)


def test_a_channel_is_due_again_some_time_after_its_last_hint() -> None:
    throttle = Throttle()
    assert throttle.due("c")
    throttle.sent(["c"], at=1e12)  # far ahead
    assert not throttle.due("c")
    assert throttle.due("other")
    throttle.sent(["c"], at=-1.0)
    assert throttle.due("c")
