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
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Delete, Update
from sqlalchemy.sql.elements import ClauseElement

from queue_core.transports.sql.dialects import Language, Move
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
    whole_index,
)

SWEEP: Final = 10_000
SHRED: Final = 2_000
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


_ONE: Final[Select[Any]] = select(literal_column("1")).select_from(message)


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


@dataclass(frozen=True, slots=True)
class Change:
    """A compiled `Move`.

    ``read`` is the only statement, or ``apply`` where it returns nothing. Or there is ``choose``,
    which returns the numbers that ``apply``, and ``read`` if there is one, take.
    """

    choose: Statement | None
    apply: Statement | None
    read: Statement | None


class Versions(NamedTuple):
    """Two statements that read name and version: of the entry ``entry``, and of all ``names``.

    The first costs SQLite a fifth of what a list of one name does.
    """

    one: Statement
    many: Statement


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
        self._put_messages()
        self._claim_messages()
        self._move_messages()
        self._delete_messages()
        self._count_messages()
        self._find_surplus()
        self._sessions()
        self._table()
        self._keys()
        self._duties()

    def _compile(self, element: ClauseElement) -> Statement:
        return compile_statement(element, self._language)

    def _compile_change(self, **move: Any) -> Change:
        texts = [self._compile(step) for step in self._language.change(Move(**move))]
        if len(texts) > 1:
            return Change(texts[0], texts[1], texts[2] if len(texts) > 2 else None)
        text, reads = texts[0], bool(move.get("returning"))
        return Change(None, None if reads else text, text if reads else None)

    def _compile_rows(self, element: ClauseElement, names: Iterable[str]) -> str:
        """Compile a statement that runs once a row, with parameters in the order of ``names``."""
        statement = self._compile(element)
        if statement.names != tuple(names):
            raise AssertionError(f"parameters come as {statement.names}")
        return statement.text

    def _put_messages(self) -> None:
        m = message.c
        values: dict[str, Any] = {name: bindparam(name) for name in INSERTED}
        for name in ("available_at", "expires_at"):
            values[name] = self._language.moment(bindparam(name, type_=BigInteger))
        self.insert_message = self._compile_rows(
            self._language.insert_new(message).values(values), INSERTED
        )
        token = m.seq == bindparam("token_seq"), m.fence == bindparam("token_fence")
        names = ("token_seq", "token_fence")
        self.settle = self._compile_rows(delete(message).where(*token), names)
        some = self._language.among(m.seq, "numbers"), m.fence == bindparam("claim")
        self.settle_some = self._compile(_by_primary_key(delete(message), message).where(*some))
        self.is_held = self._compile_rows(self._language.hold(select(m.seq).where(*token)), names)
        self.is_stored = self._compile(
            select(m.seq).where(m.queue == bindparam("queue"), m.id == bindparam("id"))
        )

    def _claim_messages(self) -> None:
        m = message.c
        held: dict[str, Any] = {
            "state": literal_column(str(HELD)),
            "session": bindparam("owner"),
            "fence": bindparam("claim"),
        }
        taken = (m.seq, m.id, m.body, m.properties, m.attempts, m.priority, m.crashes)
        self.claim = self._compile_change(
            rows=and_(_in(READY), m.queue == bindparam("queue"), _alive(self._now)),
            index="ready",
            order=(m.priority.desc(), m.seq),
            limit=bindparam("room", type_=Integer),
            skip=True,
            update=update(message).values(**held, attempts=m.attempts + 1),
            returning=taken,
        )
        self.collect = self._compile_change(
            rows=_in(DEAD),
            index="dead",
            limit=bindparam("room", type_=Integer),
            skip=True,
            update=update(message).values(**held),
            returning=(*taken, m.queue, m.reason),
        )
        self.untake = self._compile_change(
            rows=self._language.among(m.seq, "numbers"),
            update=update(message).values(
                state=literal_column(str(READY)),
                session=literal_column(str(NOBODY)),
                fence=literal_column(str(FREE)),
                attempts=m.attempts - 1,
            ),
        )
        self.taken = self._compile(
            _by("held", select(*taken, m.queue))
            .where(_in(HELD), m.session == bindparam("owner"), m.fence == bindparam("claim"))
            .order_by(m.queue, m.priority.desc(), m.seq)
        )

    def _move_messages(self) -> None:
        m, now = message.c, self._now
        due = and_(_in(DELAYED), m.queue == bindparam("queue"), m.available_at <= now)
        self.has_due = self._compile(_by("delayed", _ONE).where(due).limit(1))
        self.promote = self._move("delayed", due, m.available_at, READY)
        over = and_(literal_column("state") < literal_column(str(DEAD)), m.expires_at <= now)
        self.has_expired = self._compile(_by("expiring", _ONE).where(over).limit(1))
        self.bury_expired = self._move("expiring", over, m.expires_at, DEAD, reason=EXPIRED)
        self.bury_overflowed = self._compile_change(
            rows=and_(self._language.among(m.seq, "numbers"), m.state < literal_column(str(DEAD))),
            update=update(message).values(
                state=literal_column(str(DEAD)), reason=literal_column(str(OVERFLOWED))
            ),
        )
        tokens = select(m.seq, m.fence, m.queue).where(self._language.among(m.seq, "numbers"))
        self.tokens = self._compile(tokens)
        self.hold_tokens = self._compile(self._language.hold(tokens.order_by(m.seq)))
        self.release = self._compile_change(
            rows=self._language.among(m.seq, "numbers"), update=self._give_back()
        )
        held = and_(_in(HELD), m.session == bindparam("owner"))
        self.give_back, self.give_back_free = (
            self._compile_change(
                rows=held,
                index="held",
                skip=skip,
                update=self._give_back(crashes=m.crashes + bindparam("crash", type_=Integer)),
                returning=(m.queue,),
            )
            for skip in (False, True)
        )
        self.is_holding = self._compile(_by("held", _ONE).where(held).limit(1))

    def _delete_messages(self) -> None:
        m = message.c
        queue = m.queue == bindparam("queue")
        unclaimed = queue, m.state != literal_column(str(HELD))
        self.purge = self._compile(delete(message).where(*unclaimed))
        self.some_unclaimed = self._compile(
            self._language.hold(select(m.seq).where(*unclaimed).limit(SHRED))
        )
        some = self._language.among(m.seq, "numbers")
        self.shred = self._compile(_by_primary_key(delete(message), message).where(some))
        self.drop = self._compile(delete(message).where(queue))

    def _move(self, index: str, rows: Any, order: Any, state: int, **values: int) -> Change:
        literals: dict[str, Any] = {
            name: literal_column(str(value)) for name, value in values.items()
        }
        return self._compile_change(
            rows=rows,
            index=index,
            order=(order,),
            limit=SWEEP,
            skip=True,
            update=update(message).values(state=literal_column(str(state)), **literals),
        )

    def _give_back(self, **values: Any) -> Update:
        """Held messages become what they are by now: ready, delayed, or dead.

        Collected ones stay dead.
        """
        m, now = message.c, self._now
        due = self._language.moment(bindparam("due", type_=BigInteger))
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
            (due > now, literal_column(str(DELAYED))),
            else_=literal_column(str(READY)),
        )
        return update(message).values(
            state=state,
            reason=reason,
            session=literal_column(str(NOBODY)),
            fence=literal_column(str(FREE)),
            attempts=attempts,
            available_at=due,
            **values,
        )

    def _count_messages(self) -> None:
        m, now = message.c, self._now
        queue = m.queue == bindparam("queue")
        wanted = self._language.names().alias("wanted")
        name = wanted.c.value
        ready: Any = _by("ready", _ONE).where(_in(READY), m.queue == name).limit(1)
        delayed = _by("delayed", select(m.available_at)).where(_in(DELAYED), m.queue == name)
        due: Any = delayed.order_by(m.available_at).limit(1)  # MariaDB would read all for a min()
        self.look = self._compile(
            select(
                select(session.c.number)
                .where(session.c.name == bindparam("session"))
                .scalar_subquery(),
                func.max(ready.scalar_subquery()),
                func.min(due.scalar_subquery()) - now,
            ).select_from(wanted)
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

    def _find_surplus(self) -> None:
        m = message.c
        queue = m.queue == bindparam("queue")

        def up_to(state: int) -> Any:
            some: Any = _by("ready", _ONE).where(_in(state), queue).limit(bindparam("cap"))
            return select(func.count()).select_from(some.subquery()).scalar_subquery()

        self.unclaimed = self._compile(select(up_to(READY) + up_to(DELAYED)))
        self.has_unclaimed = self._compile(
            select(literal_column("1")).where(queue, m.state != literal_column(str(HELD))).limit(1)
        )
        self.lowest = self._compile(
            _by("ready", select(m.priority))
            .where(_in(READY), queue)
            .order_by(m.priority, m.seq.desc())
            .limit(1)
        )
        self.oldest = self._compile(
            _by("ready", select(m.priority, m.seq))
            .where(_in(READY), queue, m.priority == bindparam("priority"))
            .order_by(m.seq)
            .limit(bindparam("room"))
        )
        self.oldest_delayed = self._compile(
            _by("ready", select(m.priority, m.seq))
            .where(_in(DELAYED), queue)
            .order_by(m.priority, m.seq)
            .limit(bindparam("room"))
        )

    def _sessions(self) -> None:
        s, r, m = session.c, request.c, message.c
        named = s.name == bindparam("session")
        number = select(s.number, s.beats).where(named)
        self.session_number = self._compile(number)
        self.share_session = self._compile(self._language.share(number))
        self.hold_session = self._compile(self._language.hold(number))
        self.hold_free_session = self._compile(self._language.hold(number, skip=True))
        self.sessions = self._compile(select(s.name, s.lease, s.beats))
        self.add_session = self._compile(
            self._language.insert_new(session).values(
                number=bindparam("owner"),
                name=bindparam("session"),
                lease=bindparam("lease"),
                beats=bindparam("beats"),
            )
        )
        beat = update(session).values(beats=s.beats + 1)
        self.renew_session = self._compile(beat.values(lease=bindparam("lease")).where(named))
        some = self._language.among(s.name, "names")
        self.beat = self._compile(beat.where(some))
        self.known_sessions = self._compile(select(s.name).where(some))
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
        some = self._language.among(e.name, "names")
        one = select(e.name, e.version).where(named)
        many = select(e.name, e.version).where(some).order_by(e.name)
        share, hold = self._language.share, self._language.hold
        self.versions = Versions(self._compile(one), self._compile(many))
        self.share_entries = Versions(self._compile(share(one)), self._compile(share(many)))
        self.hold_entries = Versions(self._compile(hold(one)), self._compile(hold(many)))
        self.some_entries = self._compile(select(e.name, e.version, e.value).where(some))
        self.entries = self._compile(select(e.name, e.version, e.value))
        self.set_entry = self._compile(
            self._language.insert_or_replace(entry).values(
                name=bindparam("entry"), version=bindparam("version"), value=bindparam("value")
            )
        )
        self.remove_entry = self._compile(delete(entry).where(named))
        counter = select(meta.c.name).where(meta.c.name == "version")
        self.share_counter = self._compile(self._language.share(counter))
        self.hold_counter = self._compile(self._language.hold(counter))
        self.next_version = [self._compile(step) for step in self._language.next_version()]

    def _keys(self) -> None:
        k = key.c
        named = k.key == bindparam("name")
        alive = or_(k.expires_at.is_(None), k.expires_at > self._now)
        self.key = self._compile(select(k.value, k.version).where(named, alive))
        self.hold_key = self._compile(
            self._language.hold(select(k.value, k.version, case((alive, 1), else_=0)).where(named))
        )
        until = self._language.moment(bindparam("expires_at", type_=BigInteger))
        values = {
            "key": bindparam("name"),
            "version": bindparam("version"),
            "expires_at": until,
            "value": bindparam("value"),
        }
        self.set_key = self._compile(self._language.insert_or_replace(key).values(values))
        self.add_key = self._compile(self._language.insert_new(key).values(values))
        self.change_key = self._compile(
            update(key).where(named).values(version=bindparam("version"), value=bindparam("value"))
        )
        self.delete_key = self._compile(delete(key).where(named))
        over = k.expires_at <= self._now
        self.has_expired_keys = self._compile(select(literal_column("1")).where(over).limit(1))
        old = select(k.key).where(over).limit(SWEEP)
        old = old.with_hint(key, whole_index("key_expiring"), "mariadb")
        self.hold_expired_keys = self._compile(self._language.hold(old, skip=True))
        self.delete_keys = self._compile(
            _by_primary_key(delete(key), key).where(self._language.among(k.key, "names"))
        )

    def _duties(self) -> None:
        s, m, k, now = session.c, message.c, key.c, self._now
        some: dict[str, Any] = {
            "session": select(s.number).where(s.name == bindparam("session")),
            "dead": _by("dead", _ONE).where(_in(DEAD)).limit(1),
            "expired": _by("expiring", _ONE)
            .where(literal_column("state") < literal_column(str(DEAD)), m.expires_at <= now)
            .limit(1),
            "old": select(literal_column("1")).where(k.expires_at <= now).limit(1),
        }
        self.duties = self._compile(select(*[rows.scalar_subquery() for rows in some.values()]))


def _by(index: str, rows: Select[Any]) -> Select[Any]:
    """Name the index that the messages are found by, for MariaDB, which would choose others."""
    return rows.with_hint(message, whole_index(index), "mariadb")


def _by_primary_key(rows: Delete, table: Table) -> Delete:
    """Have MariaDB find them so: it would read, and lock, a small table as a whole."""
    rows = rows.with_hint(whole_index(), table, "mariadb")
    return rows.prefix_with(table.name, dialect="mariadb")  # without it, it takes no hint


def _in(state: int) -> ColumnElement[bool]:
    return message.c.state == literal_column(str(state))


def _alive(now: ColumnElement[int]) -> ColumnElement[bool]:
    return or_(message.c.expires_at.is_(None), message.c.expires_at > now)
