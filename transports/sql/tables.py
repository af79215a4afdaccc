"""The tables of the SQL store, as SQLAlchemy describes them, and what their columns mean.

Every name begins with ``queue_core_``, so that the tables can live in an application's own
database; that is what lets a publish join the application's transaction.

The rules that the statements keep:

- A message is in one of four states. ``READY`` may be claimed, ``DELAYED`` waits for
  ``available_at``, ``DEAD`` waits for ``collect`` and has a ``reason``, ``HELD`` belongs to a
  session. Passing time alone changes no row, so a row may be ``DELAYED`` although it is due, or
  ``READY`` although its ttl is over: whoever claims or collects moves it first.
- Each state has its own partial index, so that no statement reads past messages that it does not
  want: a million delayed messages cost a claim nothing.
- ``seq`` is the place in the queue. A message keeps it when it is claimed and returned.
- ``fence`` is drawn anew by each claim and 0 while nobody holds the message. ``(seq, fence)`` is
  the token, and no token is ever good for two claims, also where a database gives a number twice.
- Times are whole microseconds since 1970 by the store's clock.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    text,
)

READY: Final = 0
DELAYED: Final = 1
DEAD: Final = 2
HELD: Final = 3

REASONS: Final = ("", "expired", "maxlen", "delivery_limit")
"""The reason of a dead message by its number in the ``reason`` column."""
EXPIRED: Final = 1
OVERFLOWED: Final = 2
EXHAUSTED: Final = 3

PREFIX: Final = "queue_core_"
NAME_LENGTH: Final = 400

metadata = MetaData()

_Key = BigInteger().with_variant(Integer(), "sqlite")

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
    Column("session", BigInteger),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Column("max_deliveries", Integer, nullable=False),
    Column("available_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("properties", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("queue", "id", name=f"{PREFIX}message_id"),
)


def _partial(name: str, condition: str, *columns: object) -> Index:
    """Make an index of the messages that meet ``condition``.

    A dialect without partial indexes gets a whole one.
    """
    where = text(condition)
    return Index(f"{PREFIX}{name}", *columns, sqlite_where=where, postgresql_where=where)  # type: ignore[arg-type]


_partial("ready", "state = 0", message.c.queue, message.c.priority.desc(), message.c.seq)
_partial("delayed", "state = 1", message.c.queue, message.c.available_at)
_partial("dead", "state = 2", message.c.seq)
_partial("held", "state = 3", message.c.session, message.c.queue)
_partial("expiring", "state < 2 AND expires_at IS NOT NULL", message.c.expires_at)

session = Table(
    f"{PREFIX}session",
    metadata,
    Column("number", _Key, primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("lease", Float, nullable=False),
    Column("beats", BigInteger, nullable=False),
)

request = Table(
    f"{PREFIX}request",
    metadata,
    Column("session", BigInteger, primary_key=True, autoincrement=False),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("request", String(NAME_LENGTH), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("stale", String, nullable=False),
    sqlite_with_rowid=False,
)
"""The last claims of each store handle, so that a claim whose reply was lost gets the same answer
again.
"""

entry = Table(
    f"{PREFIX}entry",
    metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
)

key = Table(
    f"{PREFIX}key",
    metadata,
    Column("key", String(NAME_LENGTH), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("value", LargeBinary, nullable=False),
)
_EXPIRING_KEYS = text("expires_at IS NOT NULL")
Index(
    f"{PREFIX}key_expiring",
    key.c.expires_at,
    sqlite_where=_EXPIRING_KEYS,
    postgresql_where=_EXPIRING_KEYS,
)
