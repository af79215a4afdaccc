"""Publishing on a store: route by what is known, put, and route again if it was out of date.

Each put carries the versions of everything that the routing looked at. The store refuses it when
one of them is not right any more; then those entries are read and the messages are routed again.
What needs no put at all ("no queue wants it", "no such exchange") is checked with an empty one, so
that a binding made a moment ago by another process counts.

The rules: a message for several queues is stored in all of them or in none; a batch goes in one put
of at most `BATCH_MESSAGES` messages and `BATCH_BYTES` bytes; if a full queue refuses a batch, its
messages go one by one, so that only those are refused that have to be. Dead letters are never
refused: nobody is there to be told, and dropping them would lose messages, so a queue may grow
beyond its ``reject-publish`` limit by them.

All methods do I/O on the handle that the caller gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from queue_core.arguments import MAX_PRIORITY
from queue_core.emulation import stored
from queue_core.emulation.deadletter import dead_id, dead_properties, is_cycle
from queue_core.emulation.entries import QueueEntry, q
from queue_core.emulation.table import Table
from queue_core.errors import (
    ConfigError,
    ConnectTimeout,
    DecodeError,
    QueueNotFound,
)
from queue_core.message import Properties, Publication, Token
from queue_core.policy import Clock, Deadline
from queue_core.transport import (
    Envelope,
    Features,
    Limit,
    Outcome,
    PutResult,
    Store,
    Transaction,
    require,
)

__all__ = ["Dead", "Publisher"]

logger = logging.getLogger(__name__)

BATCH_MESSAGES: Final = 100
BATCH_BYTES: Final = 64 * 1024
_NOT_SENT: Final = "not sent within the timeout; the topology or the store kept it waiting"


class _Plan(msgspec.Struct):
    """What one put is made of, and what becomes of each publication if it succeeds.

    ``versions`` are those of all routes; ``missing`` is the first publication to an exchange that
    does not exist.
    """

    batch: list[Envelope] = []
    versions: dict[str, int] = {}
    limits: dict[str, Limit] = {}
    outcomes: list[Outcome] = []
    missing: Publication | None = None


class AcksToCarry(Protocol):
    """Claims that are settled on the way: by the first put of a publish that does anything."""

    @property
    def tokens(self) -> Sequence[Token]:
        """What the next put settles."""

    def arrived(self, stale: Sequence[Token]) -> None:
        """Note that a put has settled them, ``stale`` among them: there are no more."""


class Dead(msgspec.Struct):
    """A claimed message to be buried: where it died and why."""

    queue: str
    token: Token
    body: bytes
    raw: bytes
    reason: str


class Publisher:
    """Publishes for one session. Thread-safe as far as the handles are not shared."""

    def __init__(self, table: Table, features: Features, transport: str, clock: Clock) -> None:
        """Publish by ``table``; ``transport`` is the name in errors."""
        self._table = table
        self._features = features
        self._transport = transport
        self._clock = clock

    # --- what clients publish ---------------------------------------------------------------------

    def check(self, publications: Sequence[Publication], transaction: Transaction | None) -> None:
        """Raise Unsupported or ConfigError if one of them asks for what cannot be done."""
        if transaction is not None:
            require(self._features, "transactions", self._transport)
        for publication in publications:
            if publication.delay > 0:
                require(self._features, "delay", self._transport)
                ttl = publication.properties.expiration
                if ttl is not None and ttl <= publication.delay:
                    raise ConfigError(
                        f"a message with routing key {publication.routing_key!r} has a ttl of"
                        f" {ttl:g} seconds and a delay of {publication.delay:g}: it would expire"
                        " before anybody could see it"
                    )

    def publish(
        self,
        store: Store,
        publications: Sequence[Publication],
        piggybacked: AcksToCarry,
        *,
        deadline: Deadline,
        transaction: Transaction | None = None,
    ) -> list[Outcome]:
        """Store all that can be stored; return one outcome for each. See `Session.publish`."""
        outcomes: list[Outcome] = []
        if transaction is not None:
            transaction = Transaction(transaction.handle, _Once(transaction.on_end))
        for chunk in _chunks(publications):
            outcomes += self._publish_chunk(store, chunk, piggybacked, deadline, transaction)
        if piggybacked.tokens:  # nothing could be stored
            piggybacked.arrived(store.put([], {}, settle=piggybacked.tokens).stale_tokens)
        return outcomes

    def _publish_chunk(
        self,
        store: Store,
        chunk: Sequence[Publication],
        piggybacked: AcksToCarry,
        deadline: Deadline,
        transaction: Transaction | None,
    ) -> list[Outcome]:
        while True:
            plan = self._plan(store, chunk)
            result = store.put(
                plan.batch if plan.missing is None else [],
                plan.versions,
                settle=piggybacked.tokens,
                limits=plan.limits,
                transaction=transaction,
            )
            if result.stale_entries:
                self._table.refresh(store, result.stale_entries)
                if deadline.expired:
                    return [Outcome("unknown", _NOT_SENT)] * len(chunk)
                continue
            if not result.full:
                piggybacked.arrived(result.stale_tokens)
            if plan.missing is not None:
                raise _no_exchange(plan.missing)
            if not result.full:
                return plan.outcomes
            if len(chunk) == 1:
                return [_refused(result)]
            return [
                outcome
                for publication in chunk
                for outcome in self._publish_chunk(
                    store, [publication], piggybacked, deadline, transaction
                )
            ]

    def publish_with(
        self, store: Store, publications: Sequence[Publication], token: Token, deadline: Deadline
    ) -> tuple[list[Outcome], bool]:
        """Publish all and settle ``token``, in one atomic step or not at all.

        Returns the outcomes, and whether the token was stale (then nothing was stored). If one
        outcome is not ``confirmed``, nothing was stored or settled.

        Raises:
            QueueNotFound: an exchange does not exist; nothing was stored or settled.
            ConnectTimeout: the topology was changed all the time; nothing was stored or settled.
        """
        while True:
            plan = self._plan(store, publications, cause=token)
            outcomes = plan.outcomes
            wrong = next((o for o in outcomes if o.status != "confirmed"), None)
            possible = plan.missing is None and wrong is None
            result = store.put(
                plan.batch if possible else [],
                plan.versions,
                settle=[token] if possible else [],
                limits=plan.limits,
            )
            if result.stale_entries:
                self._table.refresh(store, result.stale_entries)
                if deadline.expired:
                    raise ConnectTimeout(_NOT_SENT)
                continue
            if plan.missing is not None:
                raise _no_exchange(plan.missing)
            if result.full:
                return [_refused(result)] * len(publications), False
            if wrong is not None:
                refused = Outcome("refused", f"not stored, because of another one: {wrong.detail}")
                return [refused if o.status == "confirmed" else o for o in outcomes], False
            return outcomes, bool(result.stale_tokens)

    def _plan(
        self, store: Store, publications: Sequence[Publication], *, cause: Token | None = None
    ) -> _Plan:
        plan = _Plan()
        for publication in publications:
            exchange, key = publication.exchange, publication.routing_key
            properties = publication.properties
            found = self._table.route(store, exchange, key, properties.headers)
            plan.versions.update(found.versions)
            if not found.queues:
                plan.outcomes.append(_unwanted(publication))
                if found.missing and plan.missing is None:
                    plan.missing = publication
                continue
            plan.outcomes.append(Outcome("confirmed"))
            raw = stored.encode(exchange, key, properties)
            for queue, entry in found.queues:
                plan.batch.append(
                    Envelope(
                        queue,
                        publication.id,
                        publication.body,
                        raw,
                        _priority(entry, properties.priority) if entry.max_priority else 0,
                        publication.delay,
                        properties.expiration
                        if entry.message_ttl is None
                        else _ttl(entry.message_ttl, properties.expiration, publication.delay),
                        entry.max_deliveries or 0,
                        cause,
                    )
                )
                if entry.max_length is not None:
                    plan.limits[queue] = Limit(entry.max_length, entry.overflow)
        return plan

    # --- what dies --------------------------------------------------------------------------------

    def bury(self, store: Store, dead: Dead, deadline: Deadline) -> bool:
        """Put a dead message's copies where its queue wants them and settle it, in one step.

        Returns False if the token was stale: then nothing was stored.
        """
        while True:
            known = self._table.queue(store, dead.queue)
            plan = _Plan(versions={q(dead.queue): known.version})
            if known.queue is not None and known.queue.dead_letter_exchange is not None:
                self._add_copies(store, dead, known.queue, plan)
            result = store.put(plan.batch, plan.versions, settle=[dead.token], limits=plan.limits)
            if not result.stale_entries:
                return not result.stale_tokens
            self._table.refresh(store, result.stale_entries)
            if deadline.expired:
                raise ConnectTimeout(_NOT_SENT)

    def _add_copies(self, store: Store, dead: Dead, entry: QueueEntry, plan: _Plan) -> None:
        """Add the copies of a dead message to ``plan``, one for each queue that wants it."""
        exchange = entry.dead_letter_exchange or ""
        key, properties = _copy(dead, entry, self._clock.time())
        found = self._table.route(store, exchange, key, properties.headers)
        plan.versions.update(found.versions)
        copy_id = dead_id(dead.token, dead.queue, dead.raw)
        raw = stored.encode(exchange, key, properties)
        for queue, target in found.queues:
            if is_cycle(properties.headers, queue):
                logger.debug(
                    "a message that died in %r as %s is dropped: it would go round to %r for ever",
                    dead.queue,
                    dead.reason,
                    queue,
                )
                continue
            plan.batch.append(
                Envelope(
                    queue,
                    copy_id,
                    dead.body,
                    raw,
                    _priority(target, properties.priority),
                    0.0,
                    target.message_ttl,
                    target.max_deliveries or 0,
                    dead.token,
                )
            )
            if target.max_length is not None and target.overflow == "drop-head":
                plan.limits[queue] = Limit(target.max_length, target.overflow)
        if not found.queues:
            logger.debug(
                "a message that died in %r as %s is dropped: nothing is bound to %r for %r",
                dead.queue,
                dead.reason,
                exchange,
                key,
            )


class _Once:
    """Calls a function at most once, however many puts of one transaction tell their end."""

    def __init__(self, function: Callable[[bool], None]) -> None:
        self._function = function
        self._called = False

    def __call__(self, committed: bool) -> None:
        if not self._called:
            self._called = True
            self._function(committed)


def _chunks(publications: Sequence[Publication]) -> Sequence[Sequence[Publication]]:
    """Cut into puts; a message larger than a put is one of its own."""
    if len(publications) == 1:
        return (publications,)
    chunks = []
    start = size = 0
    for index, publication in enumerate(publications):
        bytes_here = len(publication.body)
        if index > start and (index - start >= BATCH_MESSAGES or size + bytes_here > BATCH_BYTES):
            chunks.append(publications[start:index])
            start, size = index, 0
        size += bytes_here
    if start < len(publications):
        chunks.append(publications[start:])
    return chunks


def _unwanted(publication: Publication) -> Outcome:
    """Return what becomes of a publication that no queue is bound for."""
    if not publication.mandatory:
        return Outcome("confirmed")
    return Outcome(
        "unroutable",
        f"no queue is bound to exchange {publication.exchange!r} for routing key"
        f" {publication.routing_key!r}"
        if publication.exchange
        else f"there is no queue {publication.routing_key!r}",
    )


def _priority(entry: QueueEntry, priority: int) -> int:
    if entry.max_priority is None:
        return 0
    return max(0, min(priority, entry.max_priority, MAX_PRIORITY))


def _ttl(message_ttl: float, expiration: float | None, delay: float) -> float:
    """The message's own ttl counts from its publish, the queue's from when it can be seen there."""
    own = delay + message_ttl
    return own if expiration is None else min(own, expiration)


def _copy(dead: Dead, entry: QueueEntry, now: float) -> tuple[str, Properties]:
    """Return routing key and properties of a dead message's copy."""
    try:
        message = stored.load(dead.raw)
    except DecodeError as error:
        logger.warning("a dead message of queue %r keeps only its body: %s", dead.queue, error)
        message = stored.Stored("", dead.queue, None, Properties())
    key = entry.dead_letter_routing_key
    return (
        message.routing_key if key is None else key,
        dead_properties(message, dead.queue, dead.reason, now),
    )


def _refused(result: PutResult) -> Outcome:
    names = ", ".join(repr(name) for name in result.full)
    return Outcome("refused", f"queue {names} is full (reject-publish); nothing was stored")


def _no_exchange(publication: Publication) -> QueueNotFound:
    return QueueNotFound(
        f"cannot publish to exchange {publication.exchange!r}: it does not exist; declare it first"
    )
