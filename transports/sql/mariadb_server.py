"""A MariaDB database: what its URL says, how to connect to it, and its tables.

The rules:

- Each store handle has one connection, in autocommit mode and READ COMMITTED, so that claims lock
  the rows that they take and no gaps between rows.
- Every answer has a deadline (the URL's ``timeout``), after which the connection is thrown away; a
  wait for somebody else's lock ends before.
- MariaDB cannot undo a change of tables: who makes or changes them holds a named lock, and goes on
  where another one was killed (see `schema`).
- MySQL is refused. Nobody could try it here, and an UPDATE there reads columns that it has just
  set, where MariaDB can be told not to.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import ssl
import time
from collections.abc import Iterator
from typing import Any, Final

import pymysql
from pymysql.constants import CLIENT
from sqlalchemy.engine import Dialect as Compiler

from queue_core.errors import ConfigError, ConnectTimeout
from queue_core.transport import SessionOptions
from queue_core.transports.sql.dialects import Cursor
from queue_core.transports.sql.mariadb_errors import (
    REPEATED,
    errno,
    explain_connecting,
    explain_mariadb,
)
from queue_core.transports.sql.schema import ensure
from queue_core.transports.sql.tables import PREFIX
from queue_core.url import BrokerURL

_SSL_MODES: Final = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key", "unix_socket")
OPTIONS: Final = (*_FILES, "ssl_mode", "connect_timeout", "poll", "timeout", "upgrade")
"""The options of a ``mysql://`` or ``mariadb://`` URL; `check` says what they mean."""

_SECONDS: Final = (("connect_timeout", 1.0, 600.0), ("poll", 0.01, 60.0), ("timeout", 1.0, 3600.0))
_LEAST_VERSION: Final = (10, 8)
_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,SIMULTANEOUS_ASSIGNMENT"
_ALONE: Final = 60

IDENTITY: Final = "SELECT CONCAT_WS('/', @@hostname, @@port, @@datadir, DATABASE())"
"""What tells one database on one server from all others."""


def check(url: BrokerURL) -> None:
    """Check the parts and options of a ``mysql://`` or ``mariadb://`` URL; connects to nothing.

    ``timeout``: seconds that the server may take for one answer (that of the connection).
    ``poll``: seconds between two looks of a consumer that has waited for long (2); one that waits
    since a moment ago looks more often, and hints from the same machine come within a millisecond.
    ``connect_timeout``: seconds to connect in. ``upgrade``: whether an opening program makes the
    tables, or adds what an older version lacks (true). ``unix_socket``: a path, instead of a host.

    ``ssl_mode``: ``preferred`` (the default without a file: encrypted where the server can, and no
    certificate is checked), ``disabled``, ``required``, ``verify_ca`` or ``verify_identity`` (the
    default with a file: the certificate and its host name are checked). ``ssl_ca``, ``ssl_cert``,
    ``ssl_key``: files in PEM format.

    Raises:
        ConfigError: an option is unknown or has a bad value, or no database is named.
    """
    url.check_options(OPTIONS)
    if url.driver not in (None, "pymysql"):
        raise ConfigError(
            f"{url}: the driver is PyMySQL; write {url.transport}://user:password@host/database"
        )
    if not url.database:
        raise ConfigError(
            f"{url} names no database; write {url.transport}://user:password@host/database"
        )
    if len(url.database) > 64 or "/" in url.database:
        raise ConfigError(f"{url}: {url.database!r} is no name of a database")
    for name, low, high in _SECONDS:
        url.seconds(name, low, low=low, high=high)
    mode = url.option("ssl_mode", str, "preferred")
    if mode not in _SSL_MODES:
        raise ConfigError(f"option 'ssl_mode' of {url} is one of {', '.join(_SSL_MODES)}")
    if mode in ("disabled", "preferred") and "ssl_mode" in url.options and _given_files(url):
        raise ConfigError(f"{url}: ssl_mode={mode} does not go with {', '.join(_given_files(url))}")
    url.option("upgrade", bool)


def _given_files(url: BrokerURL) -> list[str]:
    return [name for name in _FILES[:3] if name in url.options]


class MariadbServer:
    """One MariaDB database and what its URL asks for."""

    __slots__ = ("_connecting", "_make", "_settings", "patience", "place", "poll", "version")

    def __init__(self, url: BrokerURL, options: SessionOptions) -> None:
        """Read the URL; connects to nothing."""
        host = url.options.get("unix_socket") or url.host or "localhost"
        port = f", port {url.port}" if url.port else ""
        self.place = f"the MariaDB database {url.database!r} at {host}{port}"
        self.patience = url.option("timeout", float, options.timeout)
        self.poll = url.option("poll", float, 2.0)
        self.version = ""
        self._make = {"upgrade": url.option("upgrade", bool, True), "create": options.create}
        self._connecting = min(
            url.option("connect_timeout", float, options.connect_timeout), options.connect_timeout
        )
        self._settings: dict[str, Any] = {
            "host": url.host or "localhost",
            "port": url.port or 3306,
            "user": url.user or "",
            "password": (url.password or "").encode(),
            "database": url.database,
            "unix_socket": url.options.get("unix_socket"),
            **_tls(url),
        }

    def connect(self, compiler: Compiler) -> tuple[MariadbConnection, int, str]:
        """Return a connection to the database, which has the tables then.

        And the bytes that a packet may have, and what tells this database from all others.

        Raises:
            AccessRefused, ConfigError, ConnectionLost, ConnectTimeout, StoreCorrupt: as they say.
        """
        with self.catalog(compiler) as catalog:
            ensure(catalog, **self._make)
            connection, cursor = catalog.connection, catalog.cursor
            cursor.execute("SELECT @@max_allowed_packet")
            limit = int(cursor.fetchone()[0])
            cursor.execute(IDENTITY)
            identity = str(cursor.fetchone()[0])
            connection.patience = self.patience
            catalog.release()
        return connection, limit, identity

    @contextlib.contextmanager
    def catalog(self, compiler: Compiler) -> Iterator[MariadbCatalog]:
        """Connect for looking at the tables; the connection ends with the block, unless released.

        Raises:
            AccessRefused, ConfigError, ConnectionLost, ConnectTimeout: as they say.
        """
        try:
            connection = MariadbConnection(
                **self._settings,
                charset="utf8mb4",
                autocommit=True,
                sql_mode=_SQL_MODE,
                client_flag=CLIENT.MULTI_STATEMENTS,
                connect_timeout=self._connecting,
                read_timeout=self._connecting,  # for the greeting too, which may never come
                write_timeout=self.patience,
            )
        except (pymysql.MySQLError, OSError, ValueError) as error:
            raise explain_connecting(error, self.place) from error
        except RuntimeError as error:  # an authentication that needs another package
            raise ConfigError(f"{self.place}: {error}") from error
        catalog = MariadbCatalog(self.place, compiler, connection)
        try:
            self._prepare(connection)
            yield catalog
        except (pymysql.MySQLError, OSError) as error:
            raise explain_mariadb(error, self.place) or error from error
        finally:
            if not catalog.released:
                connection.close()

    def _prepare(self, connection: MariadbConnection) -> None:
        self.version = _version(connection.get_server_info(), self.place)
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        waiting = max(1, int(self.patience / 2))
        cursor.execute(
            f"SET SESSION innodb_lock_wait_timeout = {waiting}, lock_wait_timeout = {waiting}"
        )


class MariadbConnection(pymysql.connections.Connection):  # type: ignore[misc]  # it has no types
    """PyMySQL's, with an end to each wait.

    It opens in a tenth of the time where no certificate is checked.

    Attributes:
        patience: seconds that the server may take for one answer; None while it is connecting.
        until: when it must have answered in any case, by ``time.monotonic()``.
    """

    patience: float | None = None
    _read_timeout: float | None
    until: float = math.inf

    def _execute_command(self, command: int, sql: bytes | str) -> None:
        """Send a statement, for whose answer there is no more time than is left."""
        if self.patience is not None:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("its caller's time was over")
            self._read_timeout = min(self.patience, left)
        super()._execute_command(command, sql)

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        """Leave out the authorities of the system: reading them takes 50 ms and more."""
        if sslp:
            context: ssl.SSLContext = super()._create_ssl_ctx(sslp)
            return context
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


def _version(info: str, place: str) -> str:
    """Return the version of the server, such as 10.11.6; raise ConfigError if it cannot serve."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)-MariaDB", info, re.IGNORECASE)
    least = ".".join(map(str, _LEAST_VERSION))
    if match is None:
        raise ConfigError(
            f"{place} is MySQL {info}, which this queue_core does not support; use MariaDB {least} "
            "or newer, or PostgreSQL"
        )
    version = ".".join(match.groups())
    if (int(match[1]), int(match[2])) < _LEAST_VERSION:
        raise ConfigError(f"{place} runs MariaDB {version}; queue_core needs {least} or newer")
    return version


def _tls(url: BrokerURL) -> dict[str, Any]:
    """Return what PyMySQL is told about TLS."""
    files = {name: url.options[name] for name in _given_files(url)}
    mode = url.option("ssl_mode", str, "verify_identity" if files else "preferred")
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred":
        return {}
    try:
        context = ssl.create_default_context(cafile=files.get("ssl_ca"))
        context.check_hostname = mode == "verify_identity"
        if mode == "required":
            context.verify_mode = ssl.CERT_NONE
        if "ssl_cert" in files:
            context.load_cert_chain(files["ssl_cert"], files.get("ssl_key"))
    except OSError as error:
        raise ConfigError(f"{url}: its certificates cannot be read: {error}") from error
    return {"ssl": context}


class MariadbCatalog:
    """The tables of one MariaDB database; see `queue_core.transports.sql.schema.Catalog`."""

    __slots__ = ("compiler", "connection", "cursor", "place", "released")

    def __init__(self, place: str, compiler: Compiler, connection: MariadbConnection) -> None:
        """Look at nothing yet."""
        self.place = place
        self.compiler = compiler
        self.connection = connection
        self.cursor: Cursor = connection.cursor()
        self.released = False

    def release(self) -> None:
        """Leave the connection to the caller."""
        self.released = True

    def columns(self) -> dict[str, set[str]]:
        """Return the columns of the tables and views whose names begin like ours."""
        columns: dict[str, set[str]] = {}
        self.cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            f"WHERE table_schema = DATABASE() AND LEFT(table_name, {len(PREFIX)}) = '{PREFIX}'"
        )
        for table, column in self.cursor.fetchall():
            columns.setdefault(table, set()).add(column)
        return columns

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock that is named after the database; it ends with the connection too."""
        self.cursor.execute("SELECT DATABASE()")
        database = str(self.cursor.fetchone()[0])
        name = PREFIX + hashlib.blake2b(database.encode(), digest_size=16).hexdigest()
        self.connection._read_timeout, patience = None, self.connection._read_timeout
        try:
            self.cursor.execute(f"SELECT GET_LOCK('{name}', {_ALONE})")
            if self.cursor.fetchone()[0] != 1:
                raise ConnectTimeout(
                    f"{self.place}: somebody else has been changing the tables for {_ALONE} s"
                )
            yield
            self.cursor.execute(f"SELECT RELEASE_LOCK('{name}')")
            self.cursor.fetchall()
        finally:
            self.connection._read_timeout = patience

    def repeats(self, error: Exception) -> bool:
        """Whether a table, a column or an index is there, or gone, already."""
        return errno(error) in REPEATED
