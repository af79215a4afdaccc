"""What the tests of databases share: accounts on the servers, and the suites of the two contracts.

A test gets the url of a broker of its own from a fixture of ``conftest.py``, and puts a `Database`
around it for what SQL alone can do: empty it, set its clock, write to it as its user does.
"""

from __future__ import annotations

import functools
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import sqlalchemy
from hypothesis import settings
from sqlalchemy.orm import Session as UserSession

from queue_core import Connection, Producer, Queue
from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.eventually import eventually
from queue_core.testing.machine import MACHINE_SETTINGS, StoreMachine
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.session_machine import SessionMachine
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import Session, SessionOptions
from queue_core.transports.sql.mariadb import MariadbStores
from queue_core.transports.sql.postgresql import PostgresStores
from queue_core.transports.sql.store import SqlStore
from queue_core.transports.sql.tables import meta, metadata
from queue_core.url import parse

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
CLOCK = "(SELECT moment FROM test_clock)"
"""The present, as SQL, in a database that `Database.set_clock` gave a clock."""
START = 1_700_000_000_000_000

FEW_EXAMPLES = settings(MACHINE_SETTINGS, max_examples=30, stateful_step_count=40)
"""For machines on a server, where each step takes its time."""


def engine_of(url: str, **options: Any) -> sqlalchemy.Engine:
    """Connect to a broker's database as any program may."""
    address = sqlalchemy.make_url(url).difference_update_query(["options"])
    return sqlalchemy.create_engine(address.set(drivername=DRIVERS[address.drivername]), **options)


def open_store(url: str, clock: str | None = None, **options: Any) -> SqlStore:
    """Open a handle on the server's clock, or on another one; other processes call this too."""
    found = parse(url)
    return _stores(found.scheme, clock).open(found, SessionOptions(**options))


@functools.cache
def _stores(scheme: str, clock: str | None) -> PostgresStores | MariadbStores:
    kind = {"postgresql": PostgresStores, "mysql": MariadbStores}[scheme]
    return kind() if clock is None else kind(clock)


class Database:
    """A database with a broker's tables in it, looked at from beside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = engine_of(url)

    def set_clock(self) -> None:
        """Make a clock that only `advance` moves, or set it to its start."""
        with self.engine.begin() as connection:
            for statement in (
                "CREATE TABLE IF NOT EXISTS test_clock (moment BIGINT NOT NULL)",
                "DELETE FROM test_clock",
                f"INSERT INTO test_clock VALUES ({START})",
            ):
                connection.exec_driver_sql(statement)

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        with self.engine.begin() as connection:
            step = round(seconds * 1_000_000)
            connection.exec_driver_sql(f"UPDATE test_clock SET moment = moment + {step}")

    def empty(self) -> None:
        """Delete what is in the broker's tables, for the next test or example."""
        with self.engine.begin() as connection:
            for table in metadata.sorted_tables:
                if table is not meta:
                    connection.execute(table.delete())

    def close(self) -> None:
        """Disconnect."""
        self.engine.dispose()


@contextmanager
def database_at(url: str) -> Iterator[Database]:
    """A `Database` that is closed at the end."""
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def publish_through_crashes(url: str, crash: Callable[[], None]) -> None:
    """Publish while the server crashes twice: what was confirmed is there, and only once."""
    queue = Queue("crash")
    confirmed: list[str] = []
    done = threading.Event()

    def publish(producer: Producer) -> None:
        for number in itertools.count():
            if done.is_set():
                return
            producer.publish(f"message-{number}", queue.name, timeout=60.0)
            confirmed.append(f"message-{number}")

    def go_on() -> None:
        before = len(confirmed)
        eventually(lambda: len(confirmed) > before + 20, 60.0)

    with Connection(url) as connection:
        connection.declare(queue)
        publisher = threading.Thread(target=publish, args=(connection.producer(),))
        publisher.start()
        try:
            go_on()
            for _ in range(2):
                crash()
                go_on()
        finally:
            done.set()
            publisher.join(60.0)
        got: list[Any] = []
        with connection.consumer(queue, prefetch=500) as consumer:
            while (message := consumer.receive(timeout=1.0)) is not None:
                got.append(message.payload)
                message.ack()
            consumer.flush()
    assert set(confirmed) <= set(got)
    assert len(got) == len(set(got))


def ack_before_crashes(url: str, crash: Callable[[], None]) -> None:
    """Crash the server as soon as acks are certain: those messages never come again."""
    queue = Queue("acks")
    with Connection(url) as connection:
        connection.declare(queue)
        connection.producer().publish_many([(str(n), queue.name) for n in range(40)])
        acked: list[Any] = []
        for blocking in (False, True):
            with connection.consumer(queue, prefetch=10) as consumer:
                for _ in range(15):
                    message = consumer.receive(timeout=60.0)
                    assert message is not None
                    message.ack([] if blocking else None)
                    acked.append(message.payload)
                if not blocking:
                    consumer.flush()
                crash()
        got: list[Any] = []
        with connection.consumer(queue) as consumer:
            while (message := consumer.receive(timeout=60.0 if len(got) < 10 else 1.0)) is not None:
                got.append(message.payload)
                message.ack()
            consumer.flush()
    assert sorted(acked + got, key=int) == [str(n) for n in range(40)]


# --- the suites -----------------------------------------------------------------------------------


class DatabaseStoreSuite(StoreSuite):
    """The store contract on the fixture ``database`` of a module."""

    tick = 0.5
    database: Database

    @pytest.fixture
    def open_store(self, database: Database) -> OpenStore:
        self.database = database
        return functools.partial(open_store, database.url)

    @contextmanager
    def user_transaction(self) -> Iterator[object]:
        with self.database.engine.begin() as connection:
            yield connection


class ClockedStoreSuite(DatabaseStoreSuite):
    """The same where time passes only when a test says so. Users come with a Session."""

    tick = 1.0
    exact = True

    @pytest.fixture
    def open_store(self, database: Database) -> OpenStore:
        self.database = database
        database.set_clock()
        return functools.partial(open_store, database.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.database.advance(seconds)

    @contextmanager
    def user_transaction(self) -> Iterator[object]:
        with UserSession(self.database.engine) as session, session.begin():
            yield session


class DatabaseStoreMachine(StoreMachine):
    """The random user of a store, on the clock of ``database``, which is emptied between runs."""

    exact = True
    database: ClassVar[Database]

    def open_store(self) -> OpenStore:
        open_store(self.database.url).close()
        self.database.empty()
        self.database.set_clock()
        return functools.partial(open_store, self.database.url, CLOCK)

    def advance(self, seconds: float) -> None:
        self.database.advance(seconds)


class DatabaseSessionSuite(SessionSuite):
    """The Session contract on the fixture ``database`` of a module."""

    database: Database

    @pytest.fixture
    def open_session(self, database: Database) -> OpenSession:
        self.database = database
        return functools.partial(open_session, database.url)

    def begin(self) -> tuple[object, Callable[[bool], None]]:
        connection = self.database.engine.connect()
        transaction = connection.begin()

        def end(commit: bool) -> None:
            if commit:
                transaction.commit()
            else:
                transaction.rollback()
            connection.close()

        return connection, end


class DatabaseSessionMachine(SessionMachine):
    """The random user of sessions on ``database``, which is emptied between runs."""

    database: ClassVar[Database]

    def open_session(self, **options: Any) -> Session:
        return open_session(self.database.url, **options)

    def teardown(self) -> None:
        super().teardown()
        self.database.empty()


def open_session(url: str, **options: Any) -> Session:
    """Open a session, as a connection does."""
    found = parse(url)
    return find_transport(found.scheme).open(found, SessionOptions(**options))


# --- accounts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accounts:
    """How a database server makes and removes a user of one test; ``{name}`` is unique.

    ``enter`` lets the user in, ``room`` gives it a place for tables of its own, and ``leave`` ends
    its connections and removes both. With ``database`` that place is a database of its own.
    """

    enter: tuple[str, ...]
    room: tuple[str, ...]
    leave: tuple[str, ...]
    database: bool

    @contextmanager
    def admin(self, url: str) -> Iterator[sqlalchemy.Connection]:
        """Connect as the user of the url that the environment gave."""
        engine = engine_of(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()

    @contextmanager
    def account(self, admin: sqlalchemy.Connection, url: str, *, room: bool) -> Iterator[str]:
        """A url for a user without any right but to work in its own room, if it has one."""
        address = sqlalchemy.make_url(url)
        name = f"{address.database}_{uuid.uuid4().hex[:12]}"
        words = {"name": name, "password": uuid.uuid4().hex}
        for statement in (*self.enter, *(self.room if room else ())):
            admin.exec_driver_sql(statement.format(**words))
        own = address.set(username=name, password=words["password"])
        own = own.set(database=name) if self.database else own
        yield own.render_as_string(hide_password=False)
        for statement in self.leave:
            admin.exec_driver_sql(statement.format(**words))


# A schema named like the user is the first place where PostgreSQL looks for tables, and it costs a
# quarter of a database.
POSTGRES = Accounts(
    enter=("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'",),
    room=(
        'CREATE SCHEMA AUTHORIZATION "{name}"',
        'ALTER ROLE "{name}" SET search_path = "$user"',
    ),
    leave=(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'",
        'DROP OWNED BY "{name}" CASCADE',
        'DROP ROLE "{name}"',
    ),
    database=False,
)
MYSQL = Accounts(
    enter=(
        "CREATE DATABASE `{name}`",
        "CREATE USER '{name}'@'%%' IDENTIFIED BY '{password}'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON `{name}`.* TO '{name}'@'%%'",
    ),
    room=("GRANT ALL ON `{name}`.* TO '{name}'@'%%'",),
    leave=("KILL USER '{name}'@'%%'", "DROP USER '{name}'@'%%'", "DROP DATABASE `{name}`"),
    database=True,
)
