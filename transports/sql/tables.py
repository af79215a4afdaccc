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
- A claim changes no column's width: SQLite then overwrites the few bytes in place, where it would
  else write the whole row with its body once more (50 MB for a claim of 1,000 messages of 50 KB).
  That is why the smallest state is 2, why attempts are counted from `FIRST`, and why session
  numbers and fences, and the values for "none" of them, are large.
- Times are whole microseconds since 1970 by the store's clock.
"""

from __future__ import annotations

import secrets
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
    Column("session", BigInteger, nullable=False, server_default=text(str(NOBODY))),
    Column("fence", BigInteger, nullable=False, server_default=text(str(FREE))),
    Column("attempts", Integer, nullable=False, server_default=text(str(FIRST))),
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


_partial(
    "ready",
    f"state = {READY}",
    message.c.queue,
    message.c.state,
    message.c.priority.desc(),
    message.c.seq,
)
_partial("delayed", f"state = {DELAYED}", message.c.queue, message.c.state, message.c.available_at)
_partial("dead", f"state = {DEAD}", message.c.seq)
_partial("held", f"state = {HELD}", message.c.session, message.c.state, message.c.queue)
_partial("expiring", f"state < {DEAD} AND expires_at IS NOT NULL", message.c.expires_at)

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


def new_session_number() -> int:
    """Draw a number for a session."""
    return secrets.randbits(46) | 1 << 46


def new_fence() -> int:
    """Draw a fence for a claim."""
    return secrets.randbits(62) | 1 << 62
