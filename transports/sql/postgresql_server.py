"""A PostgreSQL database: what its URL says, how to connect to it, and its tables.

The rules:

- Each store handle has one connection, in autocommit mode; what takes several statements begins
  its transaction itself, always READ COMMITTED.
- Every statement has a deadline (the URL's ``timeout``), also when the server stands still and its
  network answers. After that the connection is thrown away.
- The session is told to use the indexes: the tables are empty at one moment and have a million rows
  at the next, and statistics are always of another moment.
- Behind a pooler that hands out another server process for each transaction (PgBouncer and others:
  the process id that the connection was given is none of the server's) nothing is kept in the
  session: no prepared statements, no settings, no LISTEN.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import select
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg import generators
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.waiting import Wait
from sqlalchemy.engine import Dialect as Compiler

from queue_core.errors import ConfigError, ConnectionLost
from queue_core.transport import SessionOptions
from queue_core.transports.sql.dialects import Cursor
from queue_core.transports.sql.postgresql_errors import explain_connecting, explain_postgresql
from queue_core.transports.sql.schema import ensure
from queue_core.transports.sql.tables import PREFIX
from queue_core.url import BrokerURL

PASSED: Final = (
    "application_name",
    "channel_binding",
    "gssencmode",
    "host",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "options",
    "passfile",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
)
"""Options of the URL that libpq gets as they are."""

OPTIONS: Final = (*PASSED, "connect_timeout", "poll", "timeout", "upgrade")

_SECONDS: Final = (
    ("connect_timeout", 1.0, 600.0),
    ("poll", 0.01, 60.0),
    ("timeout", 1.0, 3600.0),
)
_LEAST_VERSION: Final = 12
_UPGRADE: Final = 3600.0
_EVENTS: Final = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}

_SESSION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_seqscan": "off",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
        "standard_conforming_strings": "on",
        "default_transaction_isolation": "read committed",
    }
)

TABLE_SETTINGS: Final = (
    f"ALTER TABLE {PREFIX}message SET (autovacuum_vacuum_scale_factor = 0.02, "
    "autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, "
    "autovacuum_vacuum_insert_scale_factor = 0.5)",
    f"ALTER TABLE {PREFIX}message ALTER COLUMN body SET STORAGE EXTERNAL",
    f"ALTER TABLE {PREFIX}session SET (fillfactor = 50, autovacuum_vacuum_threshold = 200)",
    f"ALTER TABLE {PREFIX}request SET (fillfactor = 50, autovacuum_vacuum_threshold = 200)",
    f"ALTER TABLE {PREFIX}key SET (fillfactor = 80, autovacuum_vacuum_threshold = 200)",
)
"""Rows of these tables live for seconds: they are cleaned up often, and bodies not compressed."""


class Link(psycopg.Connection[TupleRow]):
    """A connection whose every wait has an end.

    Attributes:
        patience: seconds that the server may be silent.
        until: when it must have begun to answer in any case, by ``time.monotonic()``.
    """

    patience: float = 30.0
    until: float = math.inf

    @classmethod
    def open(cls, settings: Mapping[str, Any], seconds: float) -> Link:
        """Connect, in autocommit mode, within so many seconds, which several hosts share.

        libpq's own ``connect_timeout`` counts whole seconds, two at least, for each host.
        """
        deadline = time.monotonic() + seconds
        hosts = str(settings.get("host", "")).split(",")
        for others in reversed(range(len(hosts))):
            now = time.monotonic()
            host = {"host": hosts[-1 - others] or None}
            try:
                return cls._open({**settings, **host}, now + (deadline - now) / (others + 1))
            except psycopg.Error:
                if not others:
                    raise
        raise AssertionError("there is at least one host")

    @classmethod
    def _open(cls, settings: Mapping[str, Any], deadline: float) -> Link:
        connecting = generators.connect(make_conninfo("", **settings))
        try:
            descriptor, wanted = next(connecting)
            while ready := _await(descriptor, wanted, deadline):
                descriptor, wanted = connecting.send(ready)
        except StopIteration as done:
            link = cls(done.value)
            link.autocommit = True
            link.prepare_threshold = None
            return link
        raise psycopg.OperationalError("timeout expired")

    def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
        """See psycopg; a connection that did not answer in time is closed.

        An answer may go on for longer than it may keep us waiting: given up half-way, a claim of
        more than the line carries in that time would be repeated for ever.
        """
        began = time.monotonic()
        patience = min(self.patience if timeout is None else timeout, self.until - began)
        deadline = began + patience
        try:
            wanted = next(gen)
            while ready := _await(self.pgconn.socket, wanted, deadline):
                wanted = gen.send(ready)
                if timeout is None:
                    deadline = time.monotonic() + patience
            raise psycopg.OperationalError("the server did not answer in time")
        except StopIteration as done:
            return done.value
        except BaseException:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # what it would answer later belongs to nobody
            raise


def _await(descriptor: int, wanted: Wait, deadline: float) -> int:
    """Return what of ``wanted`` a socket is ready for; nothing when the deadline has passed."""
    poll = select.poll()
    poll.register(descriptor, _EVENTS[wanted])
    ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    if not ready:
        return 0
    happened = ready[0][1]
    readable = Wait.R if happened & ~select.POLLOUT else 0  # an error, too
    return readable | (Wait.W if happened & select.POLLOUT else 0)


def check(url: BrokerURL) -> None:
    """Check the parts and options of a ``postgresql://`` URL; connects to nothing.

    ``timeout``: seconds that the server may take for one answer (that of the connection).
    ``poll``: seconds between two looks of a waiting consumer (one a claim; 0.1 behind a pooler,
    which passes on no notification). ``connect_timeout``: seconds to connect in. ``upgrade``:
    whether an opening program makes the tables, or adds what an older version lacks (true). libpq's
    own options, ``sslmode`` above all, are passed on: without ``sslmode`` it is ``prefer``, which
    encrypts where the server can and checks no certificate; ``sslmode=verify-full`` does both.

    Raises:
        ConfigError: an option is unknown or has a bad value, or no database is named.
    """
    url.check_options(OPTIONS)
    if url.driver not in (None, "psycopg"):
        raise ConfigError(
            f"{url}: the driver is psycopg 3; write postgresql://user:password@host/database"
        )
    if not url.database and "service" not in url.options:
        raise ConfigError(f"{url} names no database; write postgresql://user:password@host/name")
    for name, low, high in _SECONDS:
        url.seconds(name, low, low=low, high=high)
    url.option("upgrade", bool)


class PostgresServer:
    """One PostgreSQL database and what its URL asks for."""

    __slots__ = ("_connecting", "_make", "_settings", "_url", "patience", "place", "poll")

    def __init__(self, url: BrokerURL, options: SessionOptions) -> None:
        """Read the URL; connects to nothing."""
        host = url.options.get("host") or url.host or "the local socket"
        port = f", port {url.port}" if url.port else ""
        self.place = f"the PostgreSQL database {url.database!r} at {host}{port}"
        self.patience = url.option("timeout", float, options.timeout)
        self.poll = url.option("poll", float)
        self._make = {"upgrade": url.option("upgrade", bool, True), "create": options.create}
        self._url = url
        self._connecting = min(
            url.option("connect_timeout", float, options.connect_timeout), options.connect_timeout
        )
        given: dict[str, Any] = {
            "host": url.host or None,
            "port": url.port,
            "user": url.user,
            "password": url.password,
            "dbname": url.database or None,
            "application_name": "queue_core",
            "client_encoding": "UTF8",
        }
        given |= {name: url.options[name] for name in PASSED if name in url.options}
        self._settings = {name: value for name, value in given.items() if value is not None}

    def connect(self, compiler: Compiler) -> tuple[Link, str]:
        """Return a connection to the database, which has the schema then, and what is its own.

        The string tells these tables from others in the same database.

        Raises:
            AccessRefused, ConfigError, ConnectionLost, ConnectTimeout, StoreCorrupt: as they say.
        """
        link = self._connect()
        link.until = time.monotonic() + self._connecting
        try:
            cursor = link.cursor()
            self._prepare(link, cursor)
            ensure(PostgresCatalog(self.place, compiler, link), **self._make)
            cursor.execute(f"SELECT '{PREFIX}message'::regclass::oid::text")
            (tables,) = cursor.fetchone() or ("",)
        except BaseException:
            link.close()
            raise
        link.until = math.inf
        return link, tables

    @contextlib.contextmanager
    def catalog(self, compiler: Compiler) -> Iterator[PostgresCatalog]:
        """Connect for looking at the tables.

        Raises:
            AccessRefused, ConnectionLost, ConnectTimeout: as they say.
        """
        with contextlib.closing(self._connect()) as link:
            try:
                yield PostgresCatalog(self.place, compiler, link)
            except psycopg.Error as error:
                raise explain_postgresql(error, self.place) or error from error

    def _connect(self) -> Link:
        try:
            link = Link.open(self._settings, self._connecting)
        except psycopg.Error as error:
            raise explain_connecting(error, self.place, self._url.user or "") from error
        link.patience = self.patience
        return link

    def _prepare(self, link: Link, cursor: psycopg.Cursor[TupleRow]) -> None:
        if link.info.server_version < _LEAST_VERSION * 10_000:
            raise ConfigError(
                f"{self.place} runs PostgreSQL {link.info.server_version // 10_000}; "
                f"queue_core needs {_LEAST_VERSION} or newer"
            )
        cursor.execute(
            "SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('server_encoding')"
        )
        pid, standby, encoding = cursor.fetchone() or (0, False, "")
        if standby:
            raise ConnectionLost(
                f"{self.place} is a standby, which accepts no writes; name the primary in the URL"
            )
        if encoding != "UTF8":
            raise ConfigError(
                f"{self.place} has the encoding {encoding}, which cannot hold every name; "
                "create one with ENCODING 'UTF8'"
            )
        if is_direct(link, pid):
            settings = ", ".join(f"set_config('{n}', '{v}', false)" for n, v in _SESSION.items())
            cursor.execute(f"SELECT {settings}")
            with contextlib.suppress(psycopg.DatabaseError):  # not before 14, nor on Windows
                cursor.execute("SET client_connection_check_interval = 1000")
            link.prepare_threshold = 0


def is_direct(link: Link, pid: int) -> bool:
    """Return whether the process ``pid``, which answered, belongs to the connection for good."""
    return pid == link.pgconn.backend_pid


class PostgresCatalog:
    """The tables of one PostgreSQL database; see `queue_core.transports.sql.schema.Catalog`."""

    __slots__ = ("_link", "compiler", "cursor", "place")

    def __init__(self, place: str, compiler: Compiler, link: Link) -> None:
        """Look at nothing yet."""
        self.place = place
        self.compiler = compiler
        self.cursor: Cursor = link.cursor()
        self._link = link

    def columns(self) -> dict[str, set[str]]:
        """Return the columns of the tables and views whose names begin like ours.

        Those that a statement would find on the search path.
        """
        columns: dict[str, set[str]] = {}
        self.cursor.execute(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE starts_with(c.relname, %s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') "
            "AND a.attnum > 0 AND NOT a.attisdropped AND pg_table_is_visible(c.oid)",
            [PREFIX],
        )
        for table, column in self.cursor.fetchall():
            columns.setdefault(table, set()).add(column)
        return columns

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Run in a transaction, which changes of tables are part of, under an advisory lock.

        It may take as long as it takes.
        """
        link = self._link
        link.patience, patience = _UPGRADE, link.patience
        link.until = math.inf
        self.cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            self.cursor.execute(f"SELECT pg_advisory_xact_lock({number_of('schema')})")
            yield
            for statement in TABLE_SETTINGS:
                self.cursor.execute(statement)
            self.cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                self.cursor.execute("ROLLBACK")
            raise
        finally:
            link.patience = patience

    def repeats(self, error: Exception) -> bool:
        """Never: it would have been undone."""
        return False


def number_of(name: str) -> int:
    """Return a number for an advisory lock: always the same for one name."""
    digest = hashlib.blake2b(f"{PREFIX}{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
