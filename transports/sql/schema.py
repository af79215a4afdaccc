"""Making the tables, and telling whether those that exist are ours.

The schema has a version of two numbers, kept in the meta table. A higher ``minor`` only adds (a
table, an index, a column with a default), so programs of the same ``major`` work side by side
whatever their minor is; each opening program adds the steps that are missing. Another ``major`` is
refused, since this program would misread it. So are tables with our names that somebody else made.

Some databases cannot undo a change of tables. So the meta table is made first and says `BEGUN`
until all others are there, each step is noted when it is done, and a program that finds half of it
goes on where another one was killed: what had been done already says so (`Catalog.repeats`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.schema import CreateIndex, CreateTable

from queue_core.errors import ConfigError, StoreCorrupt
from queue_core.schema import Schema, Version, number
from queue_core.transports.sql.dialects import Cursor
from queue_core.transports.sql.tables import PREFIX, indexes, meta, metadata, table_for

MAJOR: Final = 1
STEPS: tuple[tuple[str, ...], ...] = ()
"""What each minor version after 0 adds: statements that all the databases understand.

Never change one that was released.
"""

BEGUN: Final = -1
"""The ``minor`` of tables that somebody has begun to make."""


class Catalog(Protocol):
    """One connection's view of the tables of its database."""

    @property
    def place(self) -> str:
        """The database for people, without a password."""

    @property
    def compiler(self) -> Compiler:
        """The SQLAlchemy dialect that writes the statements."""

    @property
    def cursor(self) -> Cursor:
        """A cursor outside of a transaction."""

    def columns(self) -> Mapping[str, set[str]]:
        """Return the columns of the tables and views whose names begin like ours."""

    def alone(self) -> AbstractContextManager[object]:
        """Keep other programs from making tables meanwhile; a transaction where that helps.

        Waits for another program that does so.
        """

    def repeats(self, error: Exception) -> bool:
        """Return whether a statement failed because its effect was there before.

        Never where changes of tables are undone with their transaction.
        """


def look(catalog: Catalog) -> Schema:
    """Return which version there is.

    Raises:
        StoreCorrupt: the tables are of another major version, or not ours.
    """
    wanted = (MAJOR, len(STEPS))
    columns = catalog.columns()
    if not columns or _is_begun(catalog, columns):
        return Schema(catalog.place, None, wanted)
    for table in metadata.tables.values():
        missing = {column.name for column in table.columns} - columns.get(table.name, set())
        if missing:
            raise StoreCorrupt(
                f"{catalog.place} has tables named {PREFIX}* that queue_core did not make: "
                f"{table.name} lacks {', '.join(sorted(missing))}; name another database"
            )
    return Schema(catalog.place, _version(catalog, _numbers(catalog), wanted), wanted)


def ensure(catalog: Catalog, *, upgrade: bool = True, create: bool = True) -> Schema:
    """Make the tables, or add what an older minor version lacks, unless everything is there.

    Raises:
        ConfigError: there are no tables, and ``create`` or ``upgrade`` says to make none.
        StoreCorrupt: as for `look`; and without ``upgrade``, that something is missing.
    """
    found = look(catalog)
    if found.current:
        return found
    if found.found is None and not (create and upgrade):
        raise ConfigError(
            f"{catalog.place} has no tables of queue_core: check the URL, or make them with: "
            "queue-core db upgrade -b URL"
        )
    if not upgrade:
        raise StoreCorrupt(
            f"{found}; upgrade=false in its URL leaves that to: queue-core db upgrade -b URL"
        )
    with catalog.alone():
        found = look(catalog)
        if found.found is None:
            _make(catalog)
        if not found.current:
            _add_steps(catalog)
        return look(catalog)


def _make(catalog: Catalog) -> None:
    """Make what is missing of the tables of minor version 0."""
    for statement in _creation(catalog.compiler, meta.name):
        _run(catalog, statement)
    if not _numbers(catalog):
        values = f"('major', {MAJOR}), ('minor', {BEGUN}), ('version', 0)"
        catalog.cursor.execute(f"INSERT INTO {meta.name} (name, number) VALUES {values}")
    for table in metadata.sorted_tables:
        if table is not meta:
            for statement in _creation(catalog.compiler, table.name):
                _run(catalog, statement)
    _note_minor(catalog, 0)


def _creation(compiler: Compiler, name: str) -> Iterator[str]:
    table = table_for(name, compiler)
    yield str(CreateTable(table).compile(dialect=compiler))
    for index in indexes(table, compiler):
        yield str(CreateIndex(index).compile(dialect=compiler))


def _add_steps(catalog: Catalog) -> None:
    for minor in range(_numbers(catalog)["minor"], len(STEPS)):
        for statement in STEPS[minor]:
            _run(catalog, statement)
        _note_minor(catalog, minor + 1)


def _run(catalog: Catalog, statement: str) -> None:
    try:
        catalog.cursor.execute(statement)
    except Exception as error:
        if not catalog.repeats(error):
            raise


def _note_minor(catalog: Catalog, minor: int) -> None:
    catalog.cursor.execute(f"UPDATE {meta.name} SET number = {minor} WHERE name = 'minor'")


def _numbers(catalog: Catalog) -> dict[str, int]:
    catalog.cursor.execute(f"SELECT name, number FROM {meta.name}")
    return dict(catalog.cursor.fetchall())


def _is_begun(catalog: Catalog, columns: Mapping[str, set[str]]) -> bool:
    """Return whether somebody has begun to make the tables, and nobody has ended it."""
    if columns.get(meta.name) != {column.name for column in meta.columns}:
        return False
    numbers = _numbers(catalog)
    if not numbers:
        return len(columns) == 1
    return numbers.get("major") == MAJOR and numbers.get("minor") == BEGUN


def _version(catalog: Catalog, numbers: Mapping[str, int], wanted: Version) -> Version:
    if not {"major", "minor", "version"} <= numbers.keys():
        raise StoreCorrupt(
            f"{catalog.place}: the table {meta.name} does not say which version the schema has; "
            "name another database"
        )
    found = numbers["major"], numbers["minor"]
    if found[0] != MAJOR:
        advice = "upgrade queue_core, or " if found[0] > MAJOR else ""
        raise StoreCorrupt(
            f"{catalog.place} has schema version {number(found)} and this queue_core reads "
            f"version {number(wanted)}; {advice}name another database"
        )
    return found
