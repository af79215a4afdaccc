"""The tables of each database: made, upgraded, refused, by one program or by many at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from queue_core import ConfigError, Connection, Queue, Schema, StoreCorrupt
from queue_core.transports.sql import schema
from queue_core.transports.sql.schema import BEGUN
from tests.databases import engine_of

STEPS = (
    ("ALTER TABLE queue_core_message ADD COLUMN colour VARCHAR(9)",),
    (
        "CREATE TABLE queue_core_more (number INTEGER)",
        "CREATE INDEX queue_core_more_number ON queue_core_more (number)",
    ),
)


class Place:
    """A database of the test's own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = engine_of(url)

    def run(self, *statements: str) -> Any:
        with self.engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return result.fetchall() if result.returns_rows else None

    def open(self, options: str = "") -> None:
        """Open the broker as any program does, and send a message through it."""
        with Connection(self.url + options) as connection:
            queue = connection.declare(Queue("q"))
            connection.producer().publish("hello", "q")
            with connection.consumer(queue) as consumer:
                message = consumer.receive(timeout=30)
                assert message is not None
                message.ack()
                consumer.flush()

    def look(self) -> Schema:
        return Connection.schema(self.url)


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/broker.db"
    else:
        url = request.getfixturevalue(f"{request.param}_broker")
    found = Place(url)
    yield found
    found.engine.dispose()


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and this queue_core wants version 1.2."""
    return lambda: monkeypatch.setattr(schema, "STEPS", STEPS)


def test_an_empty_database_has_no_version_and_gets_one_by_being_opened(place: Place) -> None:
    assert place.look().found is None
    assert not place.look().current
    place.open()
    assert place.look().found == place.look().wanted == (1, 0)


def test_looking_makes_nothing(place: Place) -> None:
    place.look()
    place.look()
    assert not sqlalchemy.inspect(place.engine).get_table_names()


def test_an_upgrade_makes_the_tables_and_a_second_one_changes_nothing(place: Place) -> None:
    first = Connection.schema(place.url, upgrade=True)
    assert first.current
    place.open("?upgrade=false")
    assert Connection.schema(place.url, upgrade=True) == first


def test_an_older_minor_version_gets_what_it_lacks(place: Place, newer: Callable[[], None]) -> None:
    place.open()
    newer()
    assert (place.look().found, place.look().wanted) == ((1, 0), (1, 2))
    place.open()
    assert place.look().found == (1, 2)
    assert place.run("SELECT count(*) FROM queue_core_more") == [(0,)]
    assert place.run("SELECT colour FROM queue_core_message") == []


def test_upgrade_false_leaves_the_upgrade_to_somebody_else(
    place: Place, newer: Callable[[], None]
) -> None:
    with pytest.raises(ConfigError, match="no tables of queue_core.*queue-core db upgrade"):
        place.open("?upgrade=false")
    place.open()
    newer()
    with pytest.raises(StoreCorrupt, match=r"version 1\.0.*wants 1\.2.*queue-core db upgrade"):
        place.open("?upgrade=false")
    assert place.look().found == (1, 0)
    Connection.schema(f"{place.url}?upgrade=false", upgrade=True)
    place.open("?upgrade=false")


def test_who_is_to_create_nothing_uses_what_is_there(
    place: Place, newer: Callable[[], None], tmp_path: Path
) -> None:
    connection = Connection(place.url, create=False)
    with pytest.raises(ConfigError, match="no tables of queue_core.*check the URL"):
        connection.connect()
    assert not list(tmp_path.iterdir())
    assert place.look().found is None
    place.open()
    newer()
    with connection:
        assert connection.inspect("q").ready == 0
    assert place.look().found == (1, 2)


def test_programs_of_two_minor_versions_work_side_by_side(
    place: Place, newer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer()
    place.open()
    monkeypatch.setattr(schema, "STEPS", ())
    place.open()
    assert place.look().found == (1, 2)
    assert place.look().current


@pytest.mark.parametrize(("major", "advice"), [(2, "upgrade queue_core"), (0, "name another")])
def test_another_major_version_is_refused(place: Place, major: int, advice: str) -> None:
    place.open()
    place.run(f"UPDATE queue_core_meta SET number = {major} WHERE name = 'major'")
    for call in (place.open, place.look, lambda: Connection.schema(place.url, upgrade=True)):
        with pytest.raises(StoreCorrupt, match=rf"version {major}\.0 .*1\.0; {advice}"):
            call()


def test_tables_that_somebody_else_made_are_refused_and_left_alone(place: Place) -> None:
    place.run("CREATE TABLE queue_core_message (colour INTEGER)")
    for call in (place.open, place.look, lambda: Connection.schema(place.url, upgrade=True)):
        with pytest.raises(StoreCorrupt, match="queue_core did not make"):
            call()
    assert sqlalchemy.inspect(place.engine).get_table_names() == ["queue_core_message"]


@pytest.mark.parametrize("before", ["nothing", "an older version"])
def test_eight_processes_upgrade_at_once(
    place: Place, before: str, scripts: Callable[..., Any]
) -> None:
    if before == "an older version":
        place.open()
    upgraders = scripts("upgrader.py", place.url, 8)
    assert [upgraders.hear(60.0) for _ in range(8)] == ["(1, 2)"] * 8
    assert place.run("SELECT colour FROM queue_core_message") == []


class Killed(BaseException):
    """The end of a program, at once."""


@pytest.mark.parametrize("survived", range(0, 24, 3))
def test_who_is_killed_half_way_leaves_something_to_go_on_from(
    place: Place, survived: int, newer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer()
    run, count = schema._run, 0

    def run_some(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > survived:
            raise Killed
        run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_run", run_some)
        with contextlib.suppress(Killed):
            Connection.schema(place.url, upgrade=True)
    assert Connection.schema(place.url, upgrade=True).found == (1, 2)
    place.open("?upgrade=false")


def test_tables_that_are_being_made_are_not_taken_for_foreign_ones(mysql_broker: str) -> None:
    place = Place(mysql_broker)
    place.open()
    place.run(
        "DROP TABLE queue_core_key",
        "DROP INDEX queue_core_ready ON queue_core_message",
        f"UPDATE queue_core_meta SET number = {BEGUN} WHERE name = 'minor'",
    )
    assert place.look().found is None
    place.open()
    assert place.look().current
    indexes = {
        index["name"]
        for index in sqlalchemy.inspect(place.engine).get_indexes("queue_core_message")
    }
    assert "queue_core_ready" in indexes
    place.engine.dispose()
