"""The transport contract: what to implement so that queue_core works on one more broker.

There are two ways in; choose one.

**Store** - for anything that keeps rows: a database, a key-value server, a folder of files. A
dozen short methods, each one atomic step. `queue_core.emulation.StoreTransport` turns a store into
a transport with exchanges, bindings, prefetch, leases, ttl, dead letters and the rest, so that a
store knows nothing of AMQP. `queue_core.state.StateStore` has the methods for whoever can load and
save one whole state under a lock: `transports/memory` and `examples/folder_transport.py` stand on
it. `transports/sql` implements them on rows.

**Session** - for a real broker, which does all of that by itself (`transports/amqp`).

The rules that hold for both:

- A method returns when its effect is certain, or raises a `TransportError`; then the effect is
  *unknown*, and the caller repeats the call with the same ids. So every method is safe to repeat.
- No method retries, reconnects by a schedule of its own, logs errors, or blocks beyond the bound
  that it names.
- Only durations (float seconds) cross this line, never timestamps: clocks of different machines may
  differ.
- What a transport cannot do is declared in its `Features`, and asking for it raises `Unsupported`.
  Nothing degrades in silence.

Run `queue_core.testing.StoreSuite` or `SessionSuite` against your transport: they are this contract
as tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, get_type_hints, runtime_checkable

import msgspec

from queue_core.durability import Durability, Survives
from queue_core.errors import Unsupported
from queue_core.message import (
    Delivery,
    Properties,
    PropertyReader,
    Publication,
    Settlement,
    Token,
)
from queue_core.policy import Clock, SystemClock
from queue_core.topology import Entity
from queue_core.url import BrokerURL

__all__ = [
    "Change",
    "Claim",
    "Claimed",
    "Counts",
    "Delivery",
    "Detector",
    "Durability",
    "Entry",
    "Envelope",
    "Features",
    "KeyEntry",
    "KeyValue",
    "KeyWrite",
    "Lease",
    "Limit",
    "Outcome",
    "Properties",
    "PropertyReader",
    "Publication",
    "Punctual",
    "PutResult",
    "QueueInfo",
    "Session",
    "SessionOptions",
    "Settlement",
    "Shredder",
    "Store",
    "Survives",
    "Token",
    "Transaction",
    "Transport",
    "require",
]


class Features(msgspec.Struct, frozen=True):
    """What a transport can do. Every field is False ("cannot") unless the transport says otherwise.

    Asking for what is missing raises `Unsupported` with the field's name and what to do instead,
    which stands beside the field's meaning here. The conformance suites read the same object: they
    test each "can", and that each "cannot" raises. Fields up to ``key_value`` are a store's own and
    its author declares them; the others come from `queue_core.emulation` for every store.
    """

    durable: Annotated[
        bool,
        "confirmed messages survive the end of every process",
        "use a broker on a disk: sqlite:///queue.db, or a server",
    ] = False
    shared: Annotated[
        bool,
        "other processes see the same queues",
        "use a broker that several processes can open: sqlite:///queue.db, or a server",
    ] = False
    priority: Annotated[
        bool,
        "priorities 0-9, higher first, in queues with max_priority",
        "use one queue for what is urgent and one for the rest",
    ] = False
    delay: Annotated[
        bool,
        "a message can become visible later",
        "publish it when it is due",
    ] = False
    transactions: Annotated[
        bool,
        "publish(transaction=...): stored if and only if the caller's own transaction commits",
        "publish after the commit, or use an SQL broker in the same database",
    ] = False
    key_value: Annotated[
        bool,
        "connection.key_value(): key_get, key_set, key_increment, key_delete",
        "keep them in a second broker: another Connection, App(backend=...), Mailbox(store=...)",
    ] = False
    deduplicate: Annotated[
        bool,
        "a repeated publish with the same id is stored once",
        "let handlers bear a message that comes twice; a message_id of your own tells",
    ] = False
    atomic_settle: Annotated[
        bool,
        "message.ack(then=[...]): publish and ack in one atomic step, not confirm and then ack",
        "let handlers bear a message that comes twice: what follows is confirmed before the ack",
    ] = False
    requeue_in_place: Annotated[
        bool,
        "requeue() returns a message to its old place",
        "count on no order after a requeue",
    ] = False
    message_ttl: Annotated[
        bool,
        "a ttl per message and per queue",
        "look at the age of a message in its handler",
    ] = False
    queue_expiry: Annotated[
        bool,
        "Queue(expires=...)",
        "delete queues that nobody needs",
    ] = False
    max_length: Annotated[
        bool,
        "Queue(max_length=...), dropping the oldest or refusing",
        "count with connection.inspect() before publishing",
    ] = False
    dead_letter: Annotated[
        bool,
        "Queue(dead_letter_exchange=...) with x-death",
        "publish what failed to a queue of its own with ack(then=[...])",
    ] = False
    max_deliveries: Annotated[
        bool,
        "Queue(max_deliveries=...); such queues tell message.attempts",
        "count attempts in a header, and publish the copy with ack(then=[...])",
    ] = False
    exclusive: Annotated[
        bool,
        "Queue(exclusive=True)",
        "use a name that nobody else knows",
    ] = False
    auto_delete: Annotated[
        bool,
        "auto_delete queues and exchanges",
        "delete what nobody needs",
    ] = False
    exchange_bindings: Annotated[
        bool,
        "bindings from exchange to exchange",
        "bind the queues to both exchanges",
    ] = False
    attempts: Annotated[
        bool,
        "message.attempts counts the deliveries of every queue, crashes too",
        "declare the queue with max_deliveries: such queues count failures",
    ] = False
    arguments: Annotated[
        bool,
        "arguments= of exchanges and queues, passed to the broker",
        "leave arguments= out: what the emulation can do are parameters of Queue and Exchange",
    ] = False

    def describe(self) -> dict[str, tuple[bool, str]]:
        """Return field name -> (can, what it means), in the order of declaration."""
        return {name: (getattr(self, name), meaning) for name, (meaning, _) in _words().items()}

    def lacks(self) -> dict[str, str]:
        """Return field name -> what to do instead, for what it cannot do."""
        return {name: words[1] for name, words in _words().items() if not getattr(self, name)}

    def __str__(self) -> str:
        """A table for people, one line per feature."""
        return "\n".join(
            f"{'yes' if can else 'no':<4}{name:<20}{meaning}"
            for name, (can, meaning) in self.describe().items()
        )


def _words() -> dict[str, tuple[str, str]]:
    """Return feature -> what it means, and what to do without it."""
    hints = get_type_hints(Features, include_extras=True)
    return {name: hints[name].__metadata__ for name in Features.__struct_fields__}


# --- Store: values --------------------------------------------------------------------------------


class Envelope(msgspec.Struct):
    """One copy of a message for one queue, as a store keeps it.

    Attributes:
        queue: the queue that it waits in.
        id: unique per (queue, id) while that copy exists; a second put with the same pair stores
            nothing.
        body, properties: opaque bytes, handed back unchanged.
        priority: 0 to 9; higher is claimed first.
        delay: seconds until it may be claimed. Its place in the queue is that of its put.
        ttl: seconds until it is dead as ``expired`` if nobody claimed it by then; None is never; 0
            is at once.
        max_deliveries: claims after which it is dead as ``delivery_limit``; 0 is no limit.
        cause: a token that this copy replaces (a dead letter, a retry). If that token is stale, the
            copy is not stored.
    """

    queue: str
    id: str
    body: bytes
    properties: bytes
    priority: int = 0
    delay: float = 0.0
    ttl: float | None = None
    max_deliveries: int = 0
    cause: Token | None = None


class Limit(msgspec.Struct, frozen=True):
    """How many unclaimed messages a queue may hold, and what a put beyond it does."""

    max_length: int
    overflow: Literal["drop-head", "reject-publish"] = "drop-head"


class Transaction(msgspec.Struct):
    """The caller's own database transaction, for stores with `Features.transactions`.

    Attributes:
        handle: the caller's object, for SQL a SQLAlchemy ``Session`` or ``Connection``.
        on_end: called by the store once the transaction has ended: True for a commit, False for a
            rollback.
    """

    handle: object
    on_end: Callable[[bool], None]


class PutResult(msgspec.Struct):
    """What a put did. With ``stale_entries`` or ``full`` it did nothing at all.

    Attributes:
        stale_entries: names in ``versions`` whose entry has another version now: read them, route
            again, put again.
        full: queues whose ``reject-publish`` limit does not leave room for the batch.
        already: indices into the batch that an earlier put with the same (queue, id) had stored: a
            success.
        stale_tokens: tokens in ``settle`` that are not held any more; their settling had no effect,
            and envelopes with such a ``cause`` were not stored.
    """

    stale_entries: Sequence[str] = ()
    full: Sequence[str] = ()
    already: Sequence[int] = ()
    stale_tokens: Sequence[Token] = ()


class Claim(msgspec.Struct):
    """One message that a session holds.

    Attributes:
        token: settles or releases this claim; a later claim of the same message has another token.
        queue, id, body, properties, priority: as they were put.
        attempts: counted claims of this message, this one included: 1 for the first.
        reason: why it is dead; only from ``collect``: ``expired``, ``maxlen`` or
            ``delivery_limit``.
    """

    token: Token
    queue: str
    id: str
    body: bytes
    properties: bytes
    attempts: int = 1
    priority: int = 0
    reason: str = ""


class Claimed(msgspec.Struct):
    """The answer to ``Store.claim``.

    The new claims in delivery order per queue, and the tokens of ``settle`` that were stale.
    ``broken`` are queues from which nothing can be taken, with what is wrong with their data.
    """

    claims: Sequence[Claim] = ()
    stale_tokens: Sequence[Token] = ()
    broken: Mapping[str, str] = {}


class Counts(msgspec.Struct):
    """How many messages a queue holds.

    ``ready`` to be claimed now, ``delayed``, and ``claimed`` by sessions.
    """

    ready: int = 0
    delayed: int = 0
    claimed: int = 0


class Entry(msgspec.Struct):
    """One entry of the topology table.

    An opaque value, and a version that is never used twice for the same name.
    """

    version: int
    value: bytes


class Change(msgspec.Struct):
    """One change to the topology table.

    ``name`` gets ``value`` (None removes it) if its version is ``version`` (0: if it is absent).
    """

    name: str
    version: int
    value: bytes | None


class Lease(msgspec.Struct):
    """What others see of a session.

    ``seconds`` is its lease, ``beats`` changes with every heartbeat. A session has no ``beats``
    twice, not even when it has ended and is opened again under the same name: whoever watched the
    earlier one must not end the later one.
    """

    seconds: float
    beats: int


class KeyEntry(msgspec.Struct):
    """A value of `KeyValue` and its version."""

    value: bytes
    version: int


class KeyWrite(msgspec.Struct):
    """One `KeyValue.key_set`, with its arguments."""

    key: str
    value: bytes
    ttl: float | None = None
    version: int | None = None


# --- Store ----------------------------------------------------------------------------------------


@runtime_checkable
class Store(Protocol):
    """Rows with leases: the contract for everything that is not a broker itself.

    A store object is one *handle*: one thread at a time uses it (but for ``interrupt``), and
    several handles on the same URL, in one process or in many, see the same data. Every method is
    one atomic step for all of them: it happens as a whole or not at all. Arguments belong to the
    caller and are not changed; results belong to the caller.

    Every method may raise `ConnectionLost` (effect unknown; the handle may be used again and
    reconnects by itself, or stays broken and is thrown away by the caller: both are fine),
    `BrokerFull` (no room), `AccessRefused` (no permission) or `StoreCorrupt` (it holds something
    else), and nothing else but what it names; opening a handle may raise them too. None blocks for
    more than a few round trips, except ``claim``.

    Where data of one queue alone can be damaged, a step on several does what it can for the others:
    ``claim`` (which says so; one of nothing else raises) and ``collect`` leave that queue out,
    ``release`` and ``end_session`` give the rest back and raise, and the session stays with what it
    cannot.

    A token is valid for every handle until its claim ends, and is never used twice, not even after
    a restart. To measure durations use a clock that survives as long as your data: ``time.time()``
    if they outlive the process, else ``options.clock``. Queue names and message ids are at most 255
    bytes, bodies at most what the client's limits allow (16 MiB by default).

    The suite cannot kill your process in the middle of a step: that a crash leaves all or nothing
    is for you to try.
    """

    # sessions: who holds what

    def open_session(self, session: str, lease: float) -> None:
        """Create the session, or renew it if it exists. It owns claims until it ends.

        Renewing sets the lease and changes ``beats``, like a heartbeat.
        ``lease`` is in seconds and only noted for others: the store itself never ends a session
        because of time. Session names are at most 400 characters.
        """

    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        """Change ``beats`` of each session named; return those that do not exist (any more)."""

    def sessions(self) -> Mapping[str, Lease]:
        """Return every session as a `Lease`: others watch whose ``beats`` stand still."""

    def end_session(self, session: str, beats: int | None = None) -> bool:
        """End the session and make everything that it holds ready again, at its old place.

        With ``beats`` the session died: it ends only if its ``beats`` are still these (checked in
        the same atomic step), its claims stay counted as attempts, and each of its messages notes
        one more *crash*. Without, it leaves politely: its claims are taken back from the attempts.
        Returns whether this call ended it. With ``beats`` it need not wait for what somebody else
        keeps locked: then nothing is given back, and the session stays for a later call.
        """

    # messages

    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        """Settle claims and append envelopes, in that order and in one atomic step.

        Returning means stored.

        1. If an entry of the topology table has another version than in ``versions`` (0: absent),
           do nothing; say ``stale_entries``.
        2. Forget the claims in ``settle`` for ever. A token that is not held any more is reported
           as stale. An envelope whose ``cause`` was not held when the step began is left out, and
           not reported as ``already``.
        3. If a ``reject-publish`` queue in ``limits`` would then hold more than ``max_length``
           unclaimed messages (ready and delayed; dead ones do not count; envelopes that exist
           already do not count twice), undo everything and say ``full``. Only queues that would
           hold more of them than before are judged.
        4. Append the others, in the order given. One whose (queue, id) exists is left out and
           reported as ``already``.
        5. If a ``drop-head`` queue in ``limits`` now holds more unclaimed messages than
           ``max_length``, whether or not it gained one, the surplus becomes dead as ``maxlen``,
           lowest priority and oldest first, for ``collect`` to hand out. Of thousands some may be
           left to steps of their own that follow, and to later puts.

        ``batch`` may be empty, to check versions or only to settle. What is settled need not be the
        ``cause`` of anything: acks travel with whatever is published next. So a store that keeps
        some room for settling refuses (`BrokerFull`) what has no ``cause``; what has one replaces
        what is settled.

        ``transaction`` is for stores with `Features.transactions`: do all of this inside
        ``transaction.handle``, leave the commit to its owner, and call ``transaction.on_end`` when
        it came; others raise ``Unsupported("transactions", NAME)``, with the transport's name.
        """

    def claim(
        self,
        session: str,
        request: str,
        wants: Mapping[str, int],
        wait: float,
        *,
        settle: Sequence[Token] = (),
        repeat: bool = False,
    ) -> Claimed:
        """Settle, then take up to ``wants[queue]`` messages from each queue, in one atomic step.

        Per queue the best priority comes first, then the oldest. Each claim counts as an attempt.
        Not claimed are messages that are delayed, or dead (expired, over ``max_deliveries``,
        overflowed): those wait for ``collect``. A message whose sessions crashed twice or more is
        claimed alone, as the only one of its queue in an answer, so that it cannot take others down
        with it again.

        Blocks until there is something, at most ``wait`` seconds (0 to 2); an empty answer is
        normal. Other handles are not blocked meanwhile, and a message put by another handle or
        process ends the wait soon (within some milliseconds where the store can, and never later
        than ``wait``). So does `interrupt`. Settling does not wait with it. If the session ends
        meanwhile, nothing is claimed and the answer is empty, also if it was opened again under
        the same name.

        ``request`` is a fresh id per claim. After a lost reply the caller repeats the call with the
        same id and ``repeat=True``: if the first call took effect, the answer is what it took (as
        far as it is still held), and nothing new is taken; a first call that took nothing may be
        repeated like a fresh one. A session repeats only its latest request per consumer, so the
        request may be kept with the claimed messages alone. The ``stale_tokens`` of a repeat tell
        nothing: they may include what the first call settled.

        Raises:
            SessionLost: the session does not exist (any more). Nothing was settled or claimed.
        """

    def interrupt(self) -> None:
        """End the wait of this handle's ``claim`` soon; without one, the next does not wait.

        Soon is within some milliseconds where the store can, and within 0.1 s where it looks
        around now and then. The claim answers with what it took, usually nothing. This is the one
        method that other threads call, at any time, on a closed handle too; it does not block and
        raises nothing. `queue_core.interrupt.Interrupt` is one way to do it.
        """

    def owned(self, session: str) -> Sequence[Token]:
        """Return the tokens of everything that the session holds; empty for an unknown session."""

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """Make claimed messages ready again after ``delay`` seconds, at their old place.

        Returns the tokens that were stale. ``counted=False`` takes the claim back from the
        attempts. A message past its ttl or out of deliveries is dead at once, whatever the delay.
        """

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """Hand out up to ``limit`` dead messages to the session, each with its ``reason``.

        Does not wait. Dead are unclaimed messages whose ttl is over (``expired``), whose attempts
        reached ``max_deliveries`` (``delivery_limit``), or that overflowed (``maxlen``). The
        session holds them like any claim, and settles them with the ``put`` of their dead letters.
        Collecting is not an attempt. Dead is for ever: what is released, or comes back from a
        session that ended, waits for ``collect`` again, with the same ``attempts``. In no
        particular order.

        Raises:
            SessionLost: the session does not exist (any more).
        """

    def inspect(self, queue: str) -> Counts:
        """Count the queue's messages; dead ones that wait for ``collect`` are not counted.

        Those that a session collected count as claimed. An unknown queue has none.
        """

    def purge(self, queue: str) -> int:
        """Delete the queue's unclaimed messages, delayed and dead ones too; return how many."""

    # topology

    def read_table(self, names: Sequence[str] | None = None) -> Mapping[str, Entry]:
        """Return the entries of these names that exist; None asks for all.

        Names are at most 400 characters.
        """

    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        """Apply all changes and delete all messages of the queues in ``drop``, claimed ones too.

        One atomic step. Returns False and does nothing if the version of one entry is not the
        expected one. New versions are positive and never used before for that name, not even before
        a removal.
        """

    def close(self) -> None:
        """Give the handle's resources back.

        May be called twice, and from any thread while no other call runs. Nothing is called after
        it.
        """


@runtime_checkable
class KeyValue(Protocol):
    """Optional: small values with expiry and compare-and-set.

    A store handle with `Features.key_value` has these methods too.

    Keys are at most 400 characters. Threads and errors are as for `Store`. An expired key is
    absent.
    """

    def key_get(self, key: str) -> KeyEntry | None:
        """Return value and version, or None."""

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """Set the key and return its new version.

        Versions are positive and never used before for that key while it exists. ``ttl`` is in
        seconds; None is for ever. ``version`` None: always; 0: only if the key is
        absent; n: only if its version is n. None is returned when the condition did not hold.
        """

    def key_set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """Do `key_set` for each, whether or not others are refused, and return the answers.

        They are made in few round trips, those of one key in their order; after an error any of
        them may have happened. No more than a million bytes or so belong into one call.
        """

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """Add to a counter (absent is 0) and return its new value.

        ``ttl`` is set when the key is made. The value reads as decimal ASCII.

        Raises:
            UsageError: the key holds something else than a whole number.
        """

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """Delete the key, with ``version`` only if it has that; return whether it was deleted."""


@runtime_checkable
class Punctual(Protocol):
    """Optional, for a `Store` handle: its calls end in time, also when the store stands still.

    A handle without it keeps its caller waiting for as long as its driver waits for the store.
    """

    def expect_by(self, until: float) -> None:
        """Give up every following call that has no answer at ``until``, with `ConnectTimeout`.

        ``until`` is by ``time.monotonic()``; infinity is the handle's own patience, as it is before
        the first call of this. Reconnecting counts too. A long answer that is on its way by then
        may come to its end. What was given up may have happened, and its caller throws the handle
        away. Does not block; the handle's thread calls it.
        """


@runtime_checkable
class Shredder(Protocol):
    """Optional, for a `Store` to which a million messages are too many for one step.

    Purges and deletions of large queues then take many steps, between which others have their turn.
    """

    def shred(self, queue: str, versions: Mapping[str, int]) -> int:
        """Delete some of the queue's unclaimed messages in one short atomic step; return how many.

        0 says that there are none any more, or that an entry of the topology table has another
        version than in ``versions`` (0: absent). Threads and errors are as for `Store`.
        """


@runtime_checkable
class Detector(Protocol):
    """Optional, for a `Store` handle and for a `Session`: how well the broker keeps messages.

    A transport without it works all the same; `Connection.durability` is then unknown.
    """

    def durability(self, queue: str = "") -> Durability:
        """Look at the broker's settings, and return what they promise of a confirmed message.

        With ``queue`` (which exists) of messages in that queue, where that differs. Called once
        when a session opens, and when the user asks. Threads and errors are as for the other
        methods; it blocks for a few round trips, a session at most its options' ``timeout``.

        What may not be asked (a managed server, a missing permission) is no error: the answer is
        then what is certain at least, or ``Survives.UNKNOWN``, and its sentence says why. Settings
        that weaken the promise are ``warnings``, each with its remedy; what the user of this kind
        of broker expects anyway is none.

        Raises:
            QueueNotFound: a session was asked for a queue that does not exist.
        """


# --- Session --------------------------------------------------------------------------------------


class Outcome(msgspec.Struct):
    """What became of one publication.

    ``status`` is ``confirmed``, ``unroutable`` (only if mandatory), ``refused`` (certainly not
    stored) or ``unknown`` (no answer within the timeout); ``detail`` says more for people.
    """

    status: Literal["confirmed", "unroutable", "refused", "unknown"]
    detail: str = ""


class QueueInfo(msgspec.Struct):
    """What is known of a queue; None where the transport cannot tell.

    ``ready`` messages can be delivered now, ``delayed`` later, ``unacked`` are with consumers.
    """

    name: str
    ready: int
    delayed: int | None = None
    unacked: int | None = None
    consumers: int | None = None


class SessionOptions(msgspec.Struct, frozen=True):
    """What a connection asks of a session.

    Attributes:
        lease: seconds after which a dead process's messages return to their queues (AMQP: twice the
            heartbeat).
        node: a name for this process; opening a session under the same name ends the older one at
            once. Empty for none.
        origin: up to 16 hexadecimal digits that tell one connection from all others; its sessions
            have them in common.
        again: this connection had a session before. Opening one then ends that one only, and no
            other process's of the same ``node``: else two that were given one name would end each
            other's sessions for ever.
        connect_timeout: seconds within which ``Transport.open`` succeeds or raises.
        timeout: seconds within which background work (heartbeats, ack flushes) must be answered.
        create: False makes no database, nor tables, where there are none: opening is refused.
        clock: for tests.
        keeper: False starts no background thread: the test calls ``tick`` of the emulated session
            itself.
    """

    lease: float = 30.0
    node: str = ""
    origin: str = ""
    again: bool = False
    connect_timeout: float = 10.0
    timeout: float = 10.0
    create: bool = True
    clock: Clock = msgspec.field(default_factory=SystemClock)
    keeper: bool = True


class Session(Protocol):
    """One connection's dealings with a broker: what the client calls. Thread-safe.

    A session lives until it is closed or lost. After `ConnectionLost` look at ``closed``: a session
    that is not closed may be used again, and its deliveries are still good (stores: a reconnect is
    not the loss of a session); a closed one is over, and so are its deliveries (AMQP). After
    `SessionLost` it is over in any case. Timeouts are in seconds; when one passes, `ConnectTimeout`
    is raised and the effect is unknown.
    """

    @property
    def closed(self) -> bool:
        """It cannot be used any more. Does not block."""

    @property
    def holds(self) -> bool:
        """Its deliveries are certainly still its own: it is not closed, and its lease not over.

        What was received and kept is handed out only while this is so: a process that stood still
        for longer than its lease finds that others have its messages. Does not block.
        """

    @property
    def features(self) -> Features:
        """What this broker can do, as found when the session opened."""

    def declare(self, entity: Entity, *, passive: bool = False, timeout: float = 10.0) -> str:
        """Create an exchange, queue or binding unless it is there; return its name.

        A queue without a name gets one. A queue brings its bindings, and the `Exchange` objects
        that it names. ``passive`` creates nothing and only looks.

        Raises:
            TopologyMismatch: it exists with other arguments. Both sides are named.
            QueueNotFound: a queue or exchange that it refers to (or that ``passive`` looks for)
                does not exist. The dead-letter exchange counts.
            Unsupported: it asks for a feature that is missing.
            AccessRefused: no permission, or the queue is exclusive to another connection.
        """

    def delete(
        self,
        entity: Entity,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float = 10.0,
    ) -> bool:
        """Delete an exchange, queue (with its messages) or binding; return whether it existed.

        Raises:
            TopologyMismatch: with ``if_unused`` or ``if_empty``: it is in use (a queue with
                consumers, an exchange with bindings) or not empty.
        """

    def inspect(self, queue: str, *, timeout: float = 10.0) -> QueueInfo:
        """Count a queue's messages and consumers. Raises QueueNotFound."""

    def purge(self, queue: str, *, timeout: float = 10.0) -> int:
        """Delete the messages that wait in a queue (not the unacked ones); return how many.

        Raises QueueNotFound.
        """

    def publish(
        self,
        publications: Sequence[Publication],
        *,
        timeout: float = 10.0,
        transaction: Transaction | None = None,
    ) -> Sequence[Outcome]:
        """Send all, wait for each one's fate, and return one outcome per publication, in order.

        Order is kept. Not atomic as a whole: one may be refused and the next stored. ``unknown``
        ones may be sent again with the same id.

        Raises:
            QueueNotFound: a named exchange does not exist. Others of the batch may have been
                stored.
            ConnectionLost: all are unknown.
            Unsupported: a delay, priority ... that this transport cannot do. Nothing was sent.
            UsageError: a header or text that this transport cannot carry. Others of the batch may
                have been stored.
        """

    def subscribe(self, consumer: str, queue: str, *, prefetch: int, timeout: float = 10.0) -> None:
        """Begin to take messages from ``queue`` for ``consumer``.

        ``consumer`` is any string unique in this session; it holds at most ``prefetch`` (1 to
        65535) unsettled messages of this queue.

        A consumer may subscribe to several queues, each with a window of its own. Raises
        QueueNotFound, or AccessRefused for somebody else's exclusive queue.
        """

    def cancel(self, consumer: str, queue: str | None = None, *, timeout: float = 10.0) -> None:
        """End the subscription to ``queue``, or all of the consumer's.

        Unsettled deliveries go back uncounted and become stale. Nothing happens if there is no
        subscription.
        """

    def receive(
        self, consumer: str, *, limit: int = 1000, wait: float = 1.0, timeout: float = math.inf
    ) -> Sequence[Delivery]:
        """Return what is there for the consumer, up to ``limit`` deliveries.

        Waits at most ``wait`` seconds for the first; empty is normal. A broker that has not
        answered after ``timeout`` seconds is given up (`ConnectTimeout`); what it had handed out
        comes with a later call. One thread at a time per consumer. Within a subscription deliveries
        are in queue order.

        Raises:
            SessionLost, ConnectionLost: see the class.
            QueueNotFound: a subscribed queue was deleted; the subscription to ``error.ended`` has
                ended.
        """

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Record what becomes of deliveries; does not block.

        They are sent within some 20 milliseconds. Stale ones have no effect at the broker;
        ``flush`` reports them.
        """

    def settle_then(
        self, delivery: Delivery, then: Sequence[Publication], *, timeout: float = 10.0
    ) -> Sequence[Outcome]:
        """Publish ``then`` and ack ``delivery``; blocks until both are certain.

        Atomic with `Features.atomic_settle`; otherwise each is confirmed before the ack is sent. If
        one outcome is not ``confirmed``, the delivery is not acked. Raises StaleDelivery (with
        atomic_settle nothing was published).
        """

    def flush(self, consumer: str, *, timeout: float = 10.0) -> None:
        """Block until every settlement recorded for the consumer is certain.

        From then on an acked message never comes again.

        Raises:
            StaleDelivery: one or more of them since the last flush were stale; says how many.
        """

    def stop(self, consumer: str) -> None:
        """Never take another message for the consumer; its subscriptions last until `cancel`.

        What was received can still be settled. What has arrived without being received goes back
        uncounted, soon. A ``receive`` that is under way ends, perhaps with deliveries; each later
        one is empty. Callable from any thread, does not block, and may be called twice.
        """

    def wake(self, consumer: str) -> None:
        """End a ``receive`` of this consumer early, where the transport can.

        Callable from any thread, does not block.
        """

    def key_value(self, *, timeout: float = 10.0) -> KeyValue:
        """Return a thread-safe `KeyValue`, each of whose calls ends within ``timeout`` seconds.

        Does not block. Raises Unsupported where there is none.
        """

    def close(self, *, timeout: float = 10.0) -> None:
        """Flush settlements, return what is unsettled uncounted, delete exclusive queues, and end.

        May be called twice. Blocks at most ``timeout`` seconds; what the broker did not confirm by
        then returns when the lease is over.
        """


@runtime_checkable
class Transport(Protocol):
    """A kind of broker: what an entry point of the group ``queue_core.transports`` names."""

    @property
    def name(self) -> str:
        """For people: ``memory``, ``sqlite``, ``amqp`` ..."""

    @property
    def features(self) -> Features:
        """What it can do, before a connection is made."""

    def check(self, url: BrokerURL) -> None:
        """Raise ConfigError if the URL is wrong or has unknown options. Does not connect."""

    def open(self, url: BrokerURL, options: SessionOptions) -> Session:
        """Connect within ``options.connect_timeout``.

        Raises:
            ConfigError: the URL is wrong, or a driver is not installed (the message has the pip
                command).
            AccessRefused, ConnectionLost, ConnectTimeout, StoreCorrupt, Unsupported: as they say.
        """


def require(features: Features, feature: str, transport: str, what: str = "") -> None:
    """Raise `Unsupported` unless ``features`` has the field ``feature`` set.

    ``what`` names the queue or exchange that asks for it, if there is one.
    """
    if not getattr(features, feature):
        instead = features.lacks()[feature]
        raise Unsupported(feature, transport, f"{instead} ({what})" if what else instead)
