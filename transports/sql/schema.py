"""Making the tables, and telling whether those that exist are ours.

The schema has a version of two numbers, kept in the meta table. A higher ``minor`` only adds (a
table, an index, a column with a default), so programs of the same ``major`` work side by side
whatever their minor is; each opening program adds the steps that are missing. A higher ``major`` is
refused, since this program would misread it. So are tables with our names that somebody else made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.schema import CreateIndex, CreateTable

from queue_core.errors import StoreCorrupt
from queue_core.transports.sql.dialects import Cursor
from queue_core.transports.sql.tables import PREFIX, metadata

MAJOR: Final = 1
STEPS: Final[tuple[tuple[str, ...], ...]] = ()
"""What each minor version after 0 adds: statements that all the databases understand.

Never change one that was released.
"""


def is_current(
    cursor: Cursor,
    columns: Mapping[str, set[str]],
    place: str,
    steps: Sequence[Sequence[str]] = STEPS,
) -> bool:
    """Return whether nothing must be made or added.

    ``columns`` are those of the tables whose names begin like ours.

    Raises:
        StoreCorrupt: the tables are of a newer major version, or not ours.
    """
    if not columns:
        return False
    for table in metadata.tables.values():
        missing = {column.name for column in table.columns} - columns.get(table.name, set())
        if missing:
            raise StoreCorrupt(
                f"{place} has tables named {PREFIX}* that queue_core did not make: {table.name} "
                f"lacks {', '.join(sorted(missing))}; name another database"
            )
    cursor.execute(f"SELECT name, number FROM {PREFIX}meta")
    versions = dict(cursor.fetchall())
    if not {"major", "minor", "version"} <= versions.keys():
        raise StoreCorrupt(
            f"{place}: the table {PREFIX}meta does not say which version the schema has; "
            "name another database"
        )
    if versions["major"] != MAJOR:
        advice = "upgrade queue_core, or " if versions["major"] > MAJOR else ""
        raise StoreCorrupt(
            f"{place} has schema version {versions['major']}.{versions['minor']} and this "
            f"queue_core reads version {MAJOR}.{len(steps)}; {advice}name another database"
        )
    return bool(versions["minor"] >= len(steps))


def make(
    cursor: Cursor, compiler: Compiler, *, exists: bool, steps: Sequence[Sequence[str]] = STEPS
) -> None:
    """Make the tables, or add what an older minor version lacks.

    Runs in a transaction that keeps others out.
    """
    done = 0
    if exists:
        cursor.execute(f"SELECT number FROM {PREFIX}meta WHERE name = 'minor'")
        done = cursor.fetchone()[0]
    else:
        for table in metadata.sorted_tables:
            cursor.execute(str(CreateTable(table).compile(dialect=compiler)))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                cursor.execute(str(CreateIndex(index).compile(dialect=compiler)))
        for name, number in (("major", MAJOR), ("minor", 0), ("version", 0)):
            cursor.execute(f"INSERT INTO {PREFIX}meta (name, number) VALUES ('{name}', {number})")
    for step in steps[done:]:
        for statement in step:
            cursor.execute(statement)
    cursor.execute(f"UPDATE {PREFIX}meta SET number = {len(steps)} WHERE name = 'minor'")
