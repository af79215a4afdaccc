"""Every statement of the store, written once and compiled once for each kind of database.

SQLAlchemy's own execution costs about 29 microseconds a statement and the driver's 1.2, so what
runs is the compiled text. A `Statement` is that text with the names of its parameters in the order
in which the driver wants them.

A rule for readers: conditions on ``state`` are written as literals and not as parameters, since a
partial index is used only where the planner can see that its condition holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from queue_core.transports.sql.dialects import Language
from queue_core.transports.sql.tables import (
    DEAD,
    DELAYED,
    EXHAUSTED,
    EXPIRED,
    FIRST,
    FREE,
    HELD,
    NOBODY,
    OVERFLOWED,
    READY,
    entry,
    key,
    message,
    meta,
    request,
    session,
)

SWEEP: Final = 10_000
"""How many rows one step moves from one state to another because of the time: some 30 milliseconds
of work.
"""

INSERTED: Final = (
    "queue",
    "id",
    "priority",
    "state",
    "reason",
    "max_deliveries",
    "available_at",
    "expires_at",
    "properties",
    "body",
)
"""The columns of a new message in the order of the parameters of ``insert_message``."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement.

    Its text, the names of its parameters in the driver's order, and those that never change.
    """

    text: str
    names: tuple[str, ...]
    constants: Mapping[str, object]

    def bind(self, **values: object) -> list[object]:
        """Return the parameters in the driver's order. A missing one is a KeyError."""
        if self.constants:
            values.update(self.constants)
        return [values[name] for name in self.names]


def compile_statement(element: ClauseElement, language: Language) -> Statement:
    """Compile for one kind of database."""
    compiled = cast(SQLCompiler, element.compile(dialect=language.compiler))
    names = compiled.positiontup if compiled.positional else list(compiled.params)
    constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
    return Statement(str(compiled), tuple(names or ()), constants)


class Statements:
    """The statements of one kind of database, by what they do."""

    def __init__(self, language: Language) -> None:
        """Compile all of them: some 15 milliseconds."""
        self._language = language
        self._now = language.now()
        self._numbers = select(literal_column("value", Integer)).select_from(language.numbers())
        self._write_messages()
        self._move_messages()
        self._count_messages()
        self._sessions()
        self._table()
        self._keys()

    def _compile(self, element: ClauseElement) -> Statement:
        return compile_statement(element, self._language)

    def _compile_rows(self, element: ClauseElement, names: Iterable[str]) -> str:
        """Compile a statement that runs once a row, with parameters in the order of ``names``."""
        statement = self._compile(element)
        if statement.names != tuple(names):
            raise AssertionError(f"parameters come as {statement.names}")
        return statement.text

    def _write_messages(self) -> None:
        m = message.c
        values: dict[str, Any] = {name: bindparam(name) for name in INSERTED}
        self.insert_message = self._compile_rows(
            self._language.insert_new(message).values(values), INSERTED
        )
        forget = delete(message).where(
            m.seq == bindparam("token_seq"), m.fence == bindparam("token_fence")
        )
        self.settle = self._compile_rows(forget, ("token_seq", "token_fence"))
        self.is_held = self._compile_rows(
            select(m.seq).where(
                m.seq == bindparam("token_seq"), m.fence == bindparam("token_fence")
            ),
            ("token_seq", "token_fence"),
        )
        self.is_stored = self._compile(
            select(m.seq).where(m.queue == bindparam("queue"), m.id == bindparam("id"))
        )
        best = (
            select(m.seq)
            .where(_in(READY), m.queue == bindparam("queue"), _alive(self._now))
            .order_by(m.priority.desc(), m.seq)
            .limit(bindparam("room"))
        )
        held: dict[str, Any] = {
            "state": literal_column(str(HELD)),
            "session": bindparam("owner"),
            "fence": bindparam("claim"),
        }
        taken = (m.seq, m.id, m.body, m.properties, m.attempts, m.priority, m.crashes)
        take = update(message).values(**held, attempts=m.attempts + 1)
        self.claim = self._compile(
            self._language.claim(take.where(m.seq.in_(best)).returning(*taken))
        )
        dead = select(m.seq).where(_in(DEAD)).order_by(m.seq).limit(bindparam("room"))
        self.collect = self._compile(
            update(message)
            .values(**held)
            .where(m.seq.in_(dead))
            .returning(*taken, m.queue, m.reason)
        )
        self.untake = self._compile(
            update(message)
            .values(
                state=literal_column(str(READY)),
                session=literal_column(str(NOBODY)),
                fence=literal_column(str(FREE)),
                attempts=m.attempts - 1,
            )
            .where(m.seq.in_(self._numbers))
        )
        self.taken = self._compile(
            select(*taken, m.queue)
            .where(_in(HELD), m.session == bindparam("owner"), m.fence == bindparam("claim"))
            .order_by(m.queue, m.priority.desc(), m.seq)
        )
        self.purge = self._compile(
            delete(message).where(
                m.queue == bindparam("queue"), m.state != literal_column(str(HELD))
            )
        )
        self.drop = self._compile(delete(message).where(m.queue == bindparam("queue")))

    def _move_messages(self) -> None:
        m, now = message.c, self._now
        due = and_(_in(DELAYED), m.queue == bindparam("queue"), m.available_at <= now)
        self.has_due = self._compile(select(literal_column("1")).where(due).limit(1))
        self.promote = self._compile(self._move(due, m.available_at, READY))
        over = and_(literal_column("state") < literal_column(str(DEAD)), m.expires_at <= now)
        self.has_expired = self._compile(select(literal_column("1")).where(over).limit(1))
        self.bury_expired = self._compile(self._move(over, m.expires_at, DEAD, reason=EXPIRED))
        self.has_dead = self._compile(select(literal_column("1")).where(_in(DEAD)).limit(1))
        self.bury_overflowed = self._compile(
            update(message)
            .values(state=literal_column(str(DEAD)), reason=literal_column(str(OVERFLOWED)))
            .where(m.seq.in_(self._numbers))
        )
        self.tokens = self._compile(select(m.seq, m.fence, m.queue).where(m.seq.in_(self._numbers)))
        self.release = self._compile(self._give_back().where(m.seq.in_(self._numbers)))
        self.give_back = self._compile(
            self._give_back(crashes=m.crashes + bindparam("crash"))
            .where(_in(HELD), m.session == bindparam("owner"))
            .returning(m.queue)
        )

    def _move(self, condition: Any, order: Any, state: int, **values: int) -> Any:
        m = message.c
        chosen = select(m.seq).where(condition).order_by(order).limit(SWEEP)
        literals: dict[str, Any] = {
            name: literal_column(str(value)) for name, value in values.items()
        }
        return (
            update(message)
            .values(state=literal_column(str(state)), **literals)
            .where(m.seq.in_(chosen))
        )

    def _give_back(self, **values: Any) -> Any:
        """Held messages become what they are by now: ready, delayed, or dead.

        Collected ones stay dead.
        """
        m, now = message.c, self._now
        attempts = case(
            (m.reason == 0, m.attempts - bindparam("back", type_=Integer)), else_=m.attempts
        )
        exhausted = and_(m.max_deliveries > 0, attempts - FIRST >= m.max_deliveries)
        reason = case(
            (m.reason != 0, m.reason),
            (m.expires_at <= now, literal_column(str(EXPIRED))),
            (exhausted, literal_column(str(EXHAUSTED))),
            else_=literal_column("0"),
        )
        state = case(
            (reason != 0, literal_column(str(DEAD))),
            (bindparam("due", type_=Integer) > now, literal_column(str(DELAYED))),
            else_=literal_column(str(READY)),
        )
        return update(message).values(
            state=state,
            reason=reason,
            session=literal_column(str(NOBODY)),
            fence=literal_column(str(FREE)),
            attempts=attempts,
            available_at=bindparam("due", type_=Integer),
            **values,
        )

    def _count_messages(self) -> None:
        m, now = message.c, self._now
        queue = m.queue == bindparam("queue")
        self.look = self._compile(
            select(
                select(literal_column("1")).where(_in(READY), queue).limit(1).scalar_subquery(),
                select(func.min(m.available_at)).where(_in(DELAYED), queue).scalar_subquery(),
            )
        )

        def count(*conditions: ColumnElement[bool]) -> Any:
            return select(func.count()).select_from(message).where(*conditions).scalar_subquery()

        over = and_(literal_column("state") < literal_column(str(DEAD)), m.expires_at <= now)
        # An expression, lest the planner goes through the whole queue where few are held or over.
        found = m.queue.concat(literal_column("''")) == bindparam("queue")
        self.inspect = self._compile(
            select(
                count(_in(READY), queue) + count(_in(DELAYED), queue, m.available_at <= now),
                count(_in(DELAYED), queue, m.available_at > now),
                count(_in(HELD), found),
                count(over, found, or_(_in(READY), m.available_at <= now)),
                count(over, found, _in(DELAYED), m.available_at > now),
            )
        )

        def up_to(state: int) -> Any:
            some: Any = select(literal_column("1")).where(_in(state), queue).limit(bindparam("cap"))
            return select(func.count()).select_from(some.subquery()).scalar_subquery()

        self.unclaimed = self._compile(select(up_to(READY) + up_to(DELAYED)))
        self.has_unclaimed = self._compile(
            select(literal_column("1")).where(queue, m.state != literal_column(str(HELD))).limit(1)
        )
        self.lowest = self._compile(
            select(m.priority).where(_in(READY), queue).order_by(m.priority, m.seq.desc()).limit(1)
        )
        self.oldest = self._compile(
            select(m.priority, m.seq)
            .where(_in(READY), queue, m.priority == bindparam("priority"))
            .order_by(m.seq)
            .limit(bindparam("room"))
        )
        self.oldest_delayed = self._compile(
            select(m.priority, m.seq)
            .where(_in(DELAYED), queue)
            .order_by(m.priority, m.seq)
            .limit(bindparam("room"))
        )

    def _sessions(self) -> None:
        s, r, m = session.c, request.c, message.c
        named = s.name == bindparam("session")
        self.session_number = self._compile(select(s.number, s.beats).where(named))
        self.sessions = self._compile(select(s.name, s.lease, s.beats))
        self.add_session = self._compile(
            insert(session).values(
                number=bindparam("owner"),
                name=bindparam("session"),
                lease=bindparam("lease"),
                beats=bindparam("beats"),
            )
        )
        beat = update(session).values(beats=s.beats + 1)
        self.renew_session = self._compile(beat.values(lease=bindparam("lease")).where(named))
        self.beat = self._compile(beat.where(named))
        self.end_session = self._compile(delete(session).where(s.number == bindparam("owner")))
        self.end_requests = self._compile(delete(request).where(r.session == bindparam("owner")))
        self.owned = self._compile(
            select(m.seq, m.fence)
            .select_from(message.join(session, m.session == s.number))
            .where(_in(HELD), named)
            .order_by(m.seq)
        )
        self.note_request = self._compile(
            self._language.insert_or_replace(request).values(
                session=bindparam("owner"),
                slot=bindparam("slot"),
                request=bindparam("request"),
                fence=bindparam("claim"),
                stale=bindparam("stale"),
            )
        )
        self.find_request = self._compile(
            select(r.fence, r.stale).where(
                r.session == bindparam("owner"), r.request == bindparam("request")
            )
        )

    def _table(self) -> None:
        e = entry.c
        named = e.name == bindparam("entry")
        self.version = self._compile(select(e.version).where(named))
        self.entry = self._compile(select(e.version, e.value).where(named))
        self.entries = self._compile(select(e.name, e.version, e.value))
        self.set_entry = self._compile(
            self._language.insert_or_replace(entry).values(
                name=bindparam("entry"), version=bindparam("version"), value=bindparam("value")
            )
        )
        self.remove_entry = self._compile(delete(entry).where(named))
        counter = meta.c.name == "version"
        self.next_version = self._compile(
            update(meta).values(number=meta.c.number + 1).where(counter)
        )
        self.last_version = self._compile(select(meta.c.number).where(counter))

    def _keys(self) -> None:
        k = key.c
        named = k.key == bindparam("name")
        alive = or_(k.expires_at.is_(None), k.expires_at > self._now)
        self.key = self._compile(select(k.value, k.version, k.expires_at).where(named, alive))
        self.set_key = self._compile(
            self._language.insert_or_replace(key).values(
                key=bindparam("name"),
                version=bindparam("version"),
                expires_at=bindparam("expires_at"),
                value=bindparam("value"),
            )
        )
        self.delete_key = self._compile(delete(key).where(named))
        self.has_expired_keys = self._compile(
            select(literal_column("1")).where(k.expires_at <= self._now).limit(1)
        )
        old = select(k.key).where(k.expires_at <= self._now).limit(SWEEP)
        self.purge_keys = self._compile(delete(key).where(k.key.in_(old)))


def _in(state: int) -> ColumnElement[bool]:
    return message.c.state == literal_column(str(state))


def _alive(now: ColumnElement[int]) -> ColumnElement[bool]:
    return or_(message.c.expires_at.is_(None), message.c.expires_at > now)
