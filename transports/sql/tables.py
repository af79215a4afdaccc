"""The tables of the SQL store, as SQLAlchemy describes them, and what their columns mean.

Every name begins with ``queue_core_``, so that the tables can live in an application's own
database; that is what lets a publish join the application's transaction.

The rules that the statements keep:

- A message is in one of four states. ``READY`` may be claimed, ``DELAYED`` waits for
  ``available_at``, ``DEAD`` waits for ``collect`` and has a ``reason``, ``HELD`` belongs to a
  session. Passing time alone changes no row, so a row may be ``DELAYED`` although it is due, or
  ``READY`` although its ttl is over: whoever claims or collects moves it first.
- Each state has its own partial index, so that no statement reads past messages that it does not
  want: a million delayed messages cost a claim nothing. MariaDB has no partial indexes and
  gets whole ones, which begin with the state or the session.
- Text is compared byte by byte: case, accents and spaces at the end count.
- ``seq`` is the place in the queue. A message keeps it when it is claimed and returned.
- ``fence`` is drawn anew by each claim and 0 while nobody holds the message. ``(seq, fence)`` is
  the token, and no token is ever good for two claims, also where a database gives a number twice.
- A claim changes no column's width: SQLite then overwrites the few bytes in place, where it would
  else write the whole row with its body once more (50 MB for a claim of 1,000 messages of 50 KB).
  That is why the smallest state is 2, why attempts are counted from `FIRST`, and why session
  numbers and fences, and the values for "none" of them, are large.
- Times are whole microseconds since 1970 by the store's clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect as Compiler

READY: Final = 2
DELAYED: Final = 3
DEAD: Final = 4
HELD: Final = 5

FIRST: Final = 2
"""What ``attempts`` holds for a message that was never claimed."""
NOBODY: Final = 1 << 40
"""The ``session`` of a message that nobody holds; real ones lie between 2**46 and 2**47."""
FREE: Final = 1 << 61
"""The ``fence`` of a message that nobody holds; real ones lie between 2**62 and 2**63."""

REASONS: Final = ("", "expired", "maxlen", "delivery_limit")
"""The reason of a dead message by its number in the ``reason`` column."""
EXPIRED: Final = 1
OVERFLOWED: Final = 2
EXHAUSTED: Final = 3

ALONE: Final = 2
"""A message that crashed so many sessions is claimed alone."""

PREFIX: Final = "queue_core_"
NAME_LENGTH: Final = 400

metadata = MetaData()

_Key = BigInteger().with_variant(Integer(), "sqlite")
_LONG: Final = 2**24
"""The length from which on these databases take LONGBLOB for a BLOB, and LONGTEXT for a TEXT."""
_Bytes = LargeBinary().with_variant(LargeBinary(_LONG), "mysql", "mariadb")
_Text = Text().with_variant(Text(_LONG), "mysql", "mariadb")
_INNODB: Final = {"engine": "InnoDB", "row_format": "DYNAMIC", "charset": "utf8mb4"}
_OPTIONS: Final = {
    "mysql": {**_INNODB, "collate": "utf8mb4_0900_bin"},
    "mariadb": {**_INNODB, "collate": "utf8mb4_nopad_bin"},
}

meta = Table(
    f"{PREFIX}meta",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("number", BigInteger, nullable=False),
)
"""``major`` and ``minor`` of the schema, and ``version``, the last version given to a table entry
or key.
"""

message = Table(
    f"{PREFIX}message",
    metadata,
    Column("seq", _Key, primary_key=True),
    Column("queue", String(255), nullable=False),
    Column("id", String(255), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("reason", SmallInteger, nullable=False),
    Column("session", BigInteger, nullable=False, server_default=text(str(NOBODY))),
    Column("fence", BigInteger, nullable=False, server_default=text(str(FREE))),
    Column("attempts", Integer, nullable=False, server_default=text(str(FIRST))),
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Column("max_deliveries", Integer, nullable=False),
    Column("available_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("properties", _Bytes, nullable=False),
    Column("body", _Bytes, nullable=False),
    UniqueConstraint("queue", "id", name=f"{PREFIX}message_id"),
)


def _partial(
    name: str,
    condition: str,
    *columns: ColumnElement[Any],
    whole: Sequence[ColumnElement[Any]] = (),
) -> None:
    """Index the rows that meet ``condition`` by ``columns``.

    Where there are no partial indexes, all rows are indexed by ``whole``; without it another index
    serves.
    """
    Index(
        f"{PREFIX}{name}",
        *columns,
        info={"partial": True, "where": text(condition)},
    )
    if whole:
        Index(f"{PREFIX}{name}", *whole, info={"partial": False})


def table_for(name: str, compiler: Compiler) -> Table:
    """Return a table with what it needs on this kind of database alone.

    If the tables themselves named every kind's options, all of SQLAlchemy's dialects would be
    imported with them, a tenth of a second of each start.
    """
    table = metadata.tables[name]
    options = _OPTIONS.get(compiler.name) or table.info.get(compiler.name)
    if options:
        table.dialect_options[compiler.name].update(options)
    return table


def indexes(table: Table, compiler: Compiler) -> list[Index]:
    """Return the indexes that ``table`` has on this kind of database, by name."""
    partial = compiler.name in ("sqlite", "postgresql")
    found = [index for index in table.indexes if index.info["partial"] is partial]
    for index in found if partial else ():
        index.dialect_options[compiler.name]["where"] = index.info["where"]
    return sorted(found, key=lambda index: str(index.name))


def whole_index(name: str = "") -> str:
    """Return what tells MariaDB to find messages by the index that stands in for a partial one.

    Without a name it is the primary key.
    """
    index = f"{PREFIX}{'ready' if name == 'dead' else name}" if name else "PRIMARY"
    return f"FORCE INDEX ({index})"


_m = message.c
_partial(
    "ready",
    f"state = {READY}",
    _m.queue,
    _m.state,
    _m.priority.desc(),
    _m.seq,
    whole=(_m.state, _m.queue, _m.priority.desc(), _m.seq),
)
_partial(
    "delayed",
    f"state = {DELAYED}",
    _m.queue,
    _m.state,
    _m.available_at,
    whole=(_m.queue, _m.state, _m.available_at),
)
_partial("dead", f"state = {DEAD}", _m.seq)
_partial("held", f"state = {HELD}", _m.session, _m.state, _m.queue, whole=(_m.session,))
_partial(
    "expiring",
    f"state < {DEAD} AND expires_at IS NOT NULL",
    _m.expires_at,
    whole=(_m.expires_at,),
)

session = Table(
    f"{PREFIX}session",
    metadata,
    Column("number", _Key, primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("lease", Double, nullable=False),
    Column("beats", BigInteger, nullable=False),
)

request = Table(
    f"{PREFIX}request",
    metadata,
    Column("session", BigInteger, primary_key=True, autoincrement=False),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("request", String(NAME_LENGTH), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("stale", _Text, nullable=False),
    info={"sqlite": {"with_rowid": False}},
)
"""The last claims of each store handle, so that a claim whose reply was lost gets the same answer
again.
"""

entry = Table(
    f"{PREFIX}entry",
    metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("value", _Bytes, nullable=False),
)

key = Table(
    f"{PREFIX}key",
    metadata,
    Column("key", String(NAME_LENGTH), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("value", _Bytes, nullable=False),
)
_partial("key_expiring", "expires_at IS NOT NULL", key.c.expires_at, whole=(key.c.expires_at,))


def reason_of(number: int) -> str:
    """Return why a message is dead; a newer version may know more reasons."""
    return REASONS[number] if 0 <= number < len(REASONS) else "unknown"


def new_session_number() -> int:
    """Draw a number for a session."""
    return secrets.randbits(46) | 1 << 46


def new_fence() -> int:
    """Draw a fence for a claim."""
    return secrets.randbits(62) | 1 << 62
