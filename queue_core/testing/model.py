"""What a store should do, as a model that can be checked by reading it.

`StoreModel` keeps every message in one list, in the order of their places, and answers each
question by looking at all of them. It knows no clock but ``now``, which the test moves. It says
what a call must answer, and then makes the call's effect its own. Tokens are the store's: the model
learns them from the store's answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from queue_core.message import Token
from queue_core.transport import Claim, Counts, Envelope, Limit

ALONE_AFTER = 2


@dataclass(slots=True)
class ModelMessage:
    """One message, and what became of it; whether it is dead follows from the rest."""

    envelope: Envelope
    place: int
    due: float
    expires: float | None
    attempts: int = 0
    crashes: int = 0
    overflowed: bool = False
    token: Token | None = None
    session: str = ""
    request: str = ""
    collected: bool = False

    @property
    def claimed(self) -> bool:
        """A session holds it."""
        return self.session != ""

    def reasons(self, now: float) -> set[str]:
        """Return every reason for which it is dead if nobody holds it; empty while it is alive."""
        limit = self.envelope.max_deliveries
        reasons = {"maxlen"} if self.overflowed else set()
        if self.expires is not None and self.expires <= now:
            reasons.add("expired")
        if limit and self.attempts >= limit:
            reasons.add("delivery_limit")
        return reasons


@dataclass(slots=True)
class PutEffect:
    """What a put must answer."""

    stale_entries: set[str] = field(default_factory=set)
    full: set[str] = field(default_factory=set)
    already: list[int] = field(default_factory=list)
    stale_tokens: set[Token] = field(default_factory=set)


class StoreModel:
    """The state of a store.

    Attributes:
        now: seconds; moved by the test.
        messages: every message that exists, oldest place first.
        sessions: the names of those that exist.
        table: name -> (version, value).
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.messages: list[ModelMessage] = []
        self.sessions: set[str] = set()
        self.table: dict[str, tuple[int, bytes]] = {}
        self._places = itertools.count()

    # looking

    def find(self, queue: str, id: str) -> ModelMessage | None:  # noqa: A002 - as in Envelope
        """Return the message with this id in this queue."""
        for message in self.messages:
            if (message.envelope.queue, message.envelope.id) == (queue, id):
                return message
        return None

    def held(self, token: Token) -> ModelMessage | None:
        """Return the message that somebody holds by this token."""
        for message in self.messages:
            if message.claimed and message.token == token:
                return message
        return None

    def owned(self, session: str) -> list[ModelMessage]:
        """Return what the session holds."""
        return [message for message in self.messages if message.session == session]

    def stale(self, tokens: Iterable[Token]) -> set[Token]:
        """Return the tokens that are not held."""
        return {token for token in tokens if self.held(token) is None}

    def living(self, queue: str) -> list[ModelMessage]:
        """Return the queue's messages that are neither claimed nor dead."""
        return [
            message
            for message in self.messages
            if message.envelope.queue == queue
            and not message.claimed
            and not message.reasons(self.now)
        ]

    def dead(self) -> list[ModelMessage]:
        """Return what waits to be collected."""
        return [m for m in self.messages if not m.claimed and m.reasons(self.now)]

    def counts(self, queue: str) -> Counts:
        """Return what ``inspect`` must say."""
        living = self.living(queue)
        ready = sum(message.due <= self.now for message in living)
        claimed = sum(m.claimed and m.envelope.queue == queue for m in self.messages)
        return Counts(ready, len(living) - ready, claimed)

    def next_messages(self, queue: str, room: int) -> list[ModelMessage]:
        """Return what a claim must take from the queue, in its order."""
        ready = [message for message in self.living(queue) if message.due <= self.now]
        ready.sort(key=lambda message: (-message.envelope.priority, message.place))
        chosen: list[ModelMessage] = []
        for message in ready[: max(0, room)]:
            alone = message.crashes >= ALONE_AFTER
            if not (alone and chosen):
                chosen.append(message)
            if alone:
                break
        return chosen

    def taken_by(self, session: str, request: str) -> list[ModelMessage]:
        """Return what the claim with this request id took and still holds."""
        return [message for message in self.owned(session) if message.request == request]

    # changing

    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        settle: Sequence[Token],
        limits: Mapping[str, Limit],
    ) -> PutEffect:
        """Do what a put does, and return what it must answer."""
        effect = PutEffect()
        effect.stale_entries = {
            name
            for name, version in versions.items()
            if self.table.get(name, (0, b""))[0] != version
        }
        if effect.stale_entries:
            return effect
        before = list(self.messages)
        living_before = {name: len(self.living(name)) for name in limits}
        effect.stale_tokens = self.stale(settle)
        moot = self.stale(message.cause for message in batch if message.cause is not None)
        self.settle(settle)
        for index, envelope in enumerate(batch):
            if envelope.cause is not None and envelope.cause in moot:
                continue
            if self.find(envelope.queue, envelope.id):
                effect.already.append(index)
                continue
            expires = None if envelope.ttl is None else self.now + envelope.ttl
            due = self.now + envelope.delay
            self.messages.append(ModelMessage(envelope, next(self._places), due, expires))
        for name, limit in limits.items():
            size = len(self.living(name))
            if limit.overflow == "reject-publish" and size > max(
                limit.max_length, living_before[name]
            ):
                effect.full.add(name)
        if effect.full:
            self.messages = before
            return PutEffect(full=effect.full)
        for name, limit in limits.items():
            if limit.overflow == "drop-head":
                surplus = sorted(
                    self.living(name),
                    key=lambda message: (message.envelope.priority, message.place),
                )
                for message in surplus[: max(0, len(surplus) - limit.max_length)]:
                    message.overflowed = True
        return effect

    def settle(self, tokens: Iterable[Token]) -> None:
        """Forget what is held by these tokens."""
        gone = set(tokens)
        self.messages = [m for m in self.messages if not (m.claimed and m.token in gone)]

    def claimed(self, message: ModelMessage, session: str, request: str, claim: Claim) -> None:
        """Note that the session took the message."""
        message.session, message.request, message.token = session, request, claim.token
        message.collected = False
        message.attempts += 1

    def collected(self, message: ModelMessage, session: str, claim: Claim) -> None:
        """Note that the session collected the message."""
        message.session, message.request, message.token = session, "", claim.token
        message.collected = True

    def release(self, message: ModelMessage, *, delay: float = 0.0, counted: bool) -> None:
        """Take a message from its holder."""
        if not counted and not message.collected:
            message.attempts -= 1
        message.session, message.request, message.token = "", "", None
        message.due = self.now + delay

    def end_session(self, session: str, *, crashed: bool) -> None:
        """Take everything from a session that ends."""
        for message in self.owned(session):
            message.crashes += crashed
            self.release(message, counted=crashed)
        self.sessions.discard(session)

    def purge(self, queue: str) -> int:
        """Delete what is unclaimed, and return how much."""
        kept = [m for m in self.messages if m.claimed or m.envelope.queue != queue]
        count = len(self.messages) - len(kept)
        self.messages = kept
        return count

    def drop(self, queue: str) -> None:
        """Delete everything in the queue."""
        self.messages = [m for m in self.messages if m.envelope.queue != queue]
