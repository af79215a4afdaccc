"""A SQLite file: what its URL says, what can be wrong with its place, and how to connect to it.

The directory beside the database, named like it with ``-side`` at the end, holds the gate's files
and the sockets of waiting consumers. It is as open to others as the database, and may be deleted
when no program uses the database.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from typing import Final, cast

from sqlalchemy import URL, Connection, NullPool, create_engine
from sqlalchemy.engine import Dialect as Compiler

from queue_core.errors import ConfigError
from queue_core.transports.sql.durability import filesystem_of
from queue_core.transports.sql.errors import explain_sqlite, refused
from queue_core.transports.sql.schema import ensure
from queue_core.transports.sql.sqlite_fork import SqliteCursor, opening
from queue_core.transports.sql.sqlite_log import LOG_PAGES, SqliteLog
from queue_core.transports.sql.tables import PREFIX
from queue_core.url import BrokerURL

OPTIONS: Final = ("synchronous", "timeout", "poll", "max_size", "upgrade")
"""The options of an ``sqlite://`` URL; `check` says what they mean."""

_SYNCHRONOUS: Final = ("normal", "full", "extra")
_SECONDS: Final = (("timeout", 0.01, 600.0), ("poll", 0.001, 1.0))
_LEAST_SIZE: Final = 1 << 18
_LEAST_VERSION: Final = (3, 38, 0)
_CACHE_KIB: Final = 8192
_LOG_LIMIT: Final = 64 * 1024 * 1024
_PLENTY: Final = 1024 * 1024 * 1024
_MOMENT: Final = 0.05


def check(url: BrokerURL) -> None:
    """Check path and options of an ``sqlite://`` URL; opens nothing.

    ``synchronous``: ``full`` (the default: what was confirmed survives a power cut), ``normal`` (it
    survives the death of every process; a power cut may take the last moments) or ``extra``.
    ``timeout``: seconds that a call waits for other writers (5). ``poll``: seconds between two
    looks of a waiting consumer at the file (0.05). ``max_size``: bytes that the file may have (no
    limit); publishes are refused when nine tenths are used. ``upgrade``: whether an opening program
    makes the tables, or adds what an older version lacks (true); else ``queue-core db upgrade``.

    Raises:
        ConfigError: no file is named, or an option is unknown or has a bad value.
    """
    url.check_options(OPTIONS)
    if url.driver not in (None, "pysqlite"):
        raise ConfigError(f"{url}: the driver is Python's own sqlite3; write sqlite:///queue.db")
    if url.database in ("", ":memory:"):
        raise ConfigError(
            f"{url} names no file; write sqlite:///queue.db, or memory:// for a queue in memory"
        )
    if url.option("synchronous", str, "full").lower() not in _SYNCHRONOUS:
        raise ConfigError(f"option 'synchronous' of {url} is one of {', '.join(_SYNCHRONOUS)}")
    for name, low, high in _SECONDS:
        url.seconds(name, low, low=low, high=high)
    url.option("upgrade", bool)
    if url.option("max_size", int, _LEAST_SIZE) < _LEAST_SIZE:
        raise ConfigError(
            f"option 'max_size' of {url} is a number of bytes of at least {_LEAST_SIZE}"
        )


class SqliteFile:
    """One SQLite file and what its URL asks for."""

    __slots__ = (
        "log",
        "max_pages",
        "patience",
        "path",
        "place",
        "poll",
        "side",
        "synchronous",
        "_directory",
        "_free",
        "_free_at",
        "_make",
        "_max_size",
    )

    def __init__(self, url: BrokerURL, *, create: bool = True) -> None:
        """Remember where the file is, also if the working directory changes; opens nothing."""
        self.path = os.path.realpath(url.database)
        self.place = f"the SQLite database {self.path}"
        self.side = f"{self.path}-side"
        self._directory = os.path.dirname(self.path)
        self.log = SqliteLog(f"{self.path}-wal", self.place, os.path.join(self.side, "unsynced"))
        self.patience = url.option("timeout", float, 5.0) / 2
        self.poll = url.option("poll", float, 0.05)
        self.max_pages = 0
        self._free, self._free_at = 0, 0.0
        self._max_size = url.option("max_size", int, 0)
        self.synchronous = url.option("synchronous", str, "full").lower()
        self._make = {"upgrade": url.option("upgrade", bool, True), "create": create}

    def connect(self, compiler: Compiler) -> Connection:
        """Return a connection in autocommit mode to the file, which has the schema then."""
        if sqlite3.sqlite_version_info < _LEAST_VERSION:
            least = ".".join(map(str, _LEAST_VERSION))
            raise ConfigError(
                f"{self.place} needs SQLite {least}, and this Python has {sqlite3.sqlite_version}"
            )
        self._check_place()
        if not all(self._make.values()):
            with self.catalog(compiler) as found:  # connecting would make the file
                ensure(found, **self._make)
        engine = create_engine(
            URL.create("sqlite+pysqlite", database=self.path),
            poolclass=NullPool,
            connect_args={
                "timeout": self.patience,
                "check_same_thread": False,
                "isolation_level": None,
            },
        )
        with opening:
            connection = engine.connect()
        try:
            raw = cast(sqlite3.Connection, connection.connection.driver_connection)
            cursor = raw.cursor(SqliteCursor)
            self._prepare(cursor)
            self.make_side()
            ensure(SqliteCatalog(self.place, compiler, cursor), **self._make)
        except BaseException:
            with opening:
                connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def catalog(self, compiler: Compiler) -> Iterator[SqliteCatalog]:
        """Open the file for looking at the tables.

        One that does not exist has none, and looking does not make it.
        """
        self._check_place()
        path, place = self.path, self.place
        if not os.path.exists(path):
            path, place = ":memory:", f"{place} (there is no such file)"
        connection = None
        try:
            with opening:
                connection = sqlite3.connect(path, timeout=self.patience, isolation_level=None)
            yield SqliteCatalog(place, compiler, connection.cursor(SqliteCursor))
        except sqlite3.Error as error:
            raise explain_sqlite(error, self.place) or error from error
        finally:
            if connection is not None:
                with opening:
                    connection.close()

    def identity(self) -> tuple[int, int] | None:
        """Return what tells this file from another one of the same name; None if there is none."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def free(self) -> int:
        """Return the bytes that are left on the disk; where it is plenty, as of a moment ago.

        Asking costs as much as a statement. No writers fill the plenty within that moment.
        """
        now = time.monotonic()
        if self._free < _PLENTY or now > self._free_at + _MOMENT:
            disk = os.statvfs(self._directory)
            self._free, self._free_at = disk.f_bavail * disk.f_frsize, now
        return self._free

    def filesystem(self) -> str:
        """Return the type of the file system, such as ``ext4``; empty where nobody tells."""
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
                return filesystem_of(self.path, mounts.read())
        except OSError:
            return ""

    def make_side(self) -> None:
        """Make the directory beside the database, as open to others as the database is."""
        if os.path.isdir(self.side):
            return
        with contextlib.suppress(FileExistsError):
            mode = stat.S_IMODE(os.stat(self.path).st_mode) & 0o666
            os.mkdir(self.side)
            os.chmod(self.side, mode | (mode & 0o444) >> 2)

    def open_side_file(self, name: str) -> int:
        """Open a file of that directory, and make it if need be; return the descriptor."""
        path = os.path.join(self.side, name)
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self.make_side()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(os.stat(self.path).st_mode) & 0o666)
        return descriptor

    def _check_place(self) -> None:
        """Say what is wrong with the path better than SQLite would."""
        directory = self._directory
        if not os.path.isdir(directory):
            raise ConfigError(
                f"{self.place}: the directory {directory} does not exist; "
                f"create it with: mkdir -p {directory}"
            )
        if os.path.isdir(self.path):
            raise ConfigError(f"{self.place} is a directory; name a file in it")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise refused(f"no permission to write in the directory {directory}", self.place)
        if os.path.exists(self.path):
            if not os.path.isfile(self.path):
                raise ConfigError(f"{self.place} is no regular file; name another one")
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise refused("no permission to read and write the file", self.place)

    def _prepare(self, cursor: sqlite3.Cursor) -> None:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigError(
                f"{self.place} cannot use a write-ahead log (its mode is {mode}); "
                "put it on a local disk"
            )
        cursor.execute("PRAGMA synchronous = NORMAL")  # see `SqliteLog`
        cursor.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        cursor.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")
        # Some builds overwrite what is deleted with zeros, and so write every body once more.
        cursor.execute("PRAGMA secure_delete = OFF")
        if self._max_size:
            pages = self._max_size // cursor.execute("PRAGMA page_size").fetchone()[0]
            self.max_pages = cursor.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]


class SqliteCatalog:
    """The tables of one SQLite file; see `queue_core.transports.sql.schema.Catalog`."""

    __slots__ = ("compiler", "cursor", "place")

    def __init__(self, place: str, compiler: Compiler, cursor: sqlite3.Cursor) -> None:
        """Look at nothing yet."""
        self.place = place
        self.compiler = compiler
        self.cursor = cursor

    def columns(self) -> dict[str, set[str]]:
        """Return the columns of the tables and views whose names begin like ours."""
        columns: dict[str, set[str]] = {}
        self.cursor.execute(
            "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c "
            "WHERE t.type IN ('table', 'view') AND substr(t.name, 1, ?) = ?",
            (len(PREFIX), PREFIX),
        )
        for table, column in self.cursor.fetchall():
            columns.setdefault(table, set()).add(column)
        return columns

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Run in a transaction, which changes of tables are part of."""
        self.cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.cursor.execute("ROLLBACK")
            raise

    def repeats(self, error: Exception) -> bool:
        """Never: it would have been undone."""
        return False
