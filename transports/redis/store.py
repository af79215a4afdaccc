"""The store on Redis: `queue_core.transport.Store` and `KeyValue`.

Each method is one Lua script, and so one atomic step and one round trip. The server's own clock
decides what is due; a client's clock only bounds how long it waits. The layout is in `keys`, the
steps are in ``scripts/``.

The rules:

- A token is (queue, id, life of the session, fence), and a fence is random and made for each claim:
  so a token stays unique even if the server came back with old data.
- What grows is refused by a full server before anything has happened. Claiming, settling,
  releasing, collecting, sessions and the table begin with a removal, which a full server allows.
- A claim that finds nothing leaves a waiter in the lists of its queues in the same step; a put pops
  one waiter for each message and pushes a token to its list, on which the claim blocks. A token
  that is lost costs at most the rest of the wait.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from queue_core.errors import SessionLost, Unsupported, UsageError
from queue_core.message import Token
from queue_core.transport import (
    Change,
    Claim,
    Claimed,
    Counts,
    Durability,
    Entry,
    Envelope,
    KeyEntry,
    Lease,
    Limit,
    PutResult,
    Transaction,
)
from queue_core.transports.redis.durability import detect
from queue_core.transports.redis.server import Server

_NO_LIMITS: Final[Mapping[str, Limit]] = {}
_SIZE: Final = 4
_TOKEN: Final = (str, str, int, str)
_LATE: Final = 50_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class RedisStore:
    """One handle on a Redis broker. One thread at a time; see `queue_core.transport.Store`."""

    def __init__(self, server: Server) -> None:
        """Connect at the first use."""
        self._server = server
        self._waiter = secrets.token_hex(8)
        self._registered = False

    def connect(self) -> None:
        """Connect now, so that what is wrong with the server is said now."""
        self._server.connect()

    def durability(self, queue: str = "") -> Durability:
        """See `Detector.durability`."""
        return detect(self._server)

    # sessions

    def open_session(self, session: str, lease: float) -> None:
        """See `Store.open_session`."""
        self._run("session", "open", session, repr(float(lease)))

    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        if not sessions:
            return ()
        unknown = _decode(self._run("session", "beat", list(sessions)))
        return [sessions[index] for index in unknown or ()]

    def sessions(self) -> Mapping[str, Lease]:
        """See `Store.sessions`."""
        found = self._server.command("HGETALL", self._server.key("sessions"))
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode(): _lease(_decode(packed)) for name, packed in pairs}

    def end_session(self, session: str, beats: int | None = None) -> bool:
        """See `Store.end_session`."""
        return bool(self._run("end_session", session, 0 if beats is None else beats))

    # messages

    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = _NO_LIMITS,
        transaction: Transaction | None = None,
    ) -> PutResult:
        """See `Store.put`."""
        if transaction is not None:
            raise Unsupported(
                "transactions", "redis", "publish without transaction=, or use an SQL broker"
            )
        tokens, odd = _split(settle)
        settled = len(tokens)
        causes = {token: number for number, token in enumerate(tokens, 1)}
        queues: dict[str, list[tuple[object, ...]]] = {}
        contents: list[bytes] = []
        for envelope in batch:
            cause = 0
            if envelope.cause is not None:
                cause = _number_of(envelope.cause, causes, tokens)
                if not cause:
                    contents.append(b"")
                    continue
            queues.setdefault(envelope.queue, []).append(_row(len(contents), envelope, cause))
            contents.append(_pack(envelope))
        names = list(versions)
        answer = self._run(
            "put",
            names,
            [versions[name] for name in names],
            tokens,
            settled,
            [(name, *_limit(limits.get(name)), rows) for name, rows in queues.items()]
            + [
                (name, limit.max_length, 0, ())
                for name, limit in limits.items()
                if name not in queues and limit.overflow == "drop-head"
            ],
            more=contents,
        )
        kind, *rest = _decode(answer)
        if kind == "stale":
            return PutResult(stale_entries=[names[index] for index in rest[0]])
        if kind == "full":
            return PutResult(full=rest[0])
        already, stale = rest
        return PutResult(
            already=sorted(already or ()),
            stale_tokens=[tokens[index] for index in stale or ()] + odd,
        )

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
        """See `Store.claim`."""
        deadline = time.monotonic() + wait
        rooms = [(queue, room) for queue, room in wants.items() if room > 0]
        tokens, odd = _split(settle)
        fence = secrets.token_urlsafe(9)
        stale: list[Token] = odd
        life = 0
        while True:
            left = max(0.0, deadline - time.monotonic()) if wait > 0 else 0.0
            micros = int(left * 1_000_000) + _LATE if left > 0 else 0
            answer = self._run(
                "claim",
                session,
                life,
                request,
                fence,
                repeat,
                rooms,
                () if life else tokens,
                self._waiter,
                micros,
                self._registered,
            )
            kind, *rest = _decode(answer[0])
            if kind == "lost":
                raise self._lost(session)
            if kind == "gone":
                return Claimed((), stale)
            first, life = life == 0, rest[0]
            if first:
                stale = [tokens[index] for index in rest[2] or ()] + odd
            claims = _claims(rest[3], answer, life)
            self._registered = not claims and micros > 0
            if claims or left <= 0:
                return Claimed(claims, stale)
            left = deadline - time.monotonic()
            due_in = rest[1] / 1_000_000 if rest[1] >= 0 else left
            if left <= 0 or not (
                self._server.wait(f"wake:{self._waiter}", min(left, due_in)) or due_in < left
            ):
                return Claimed((), stale)
            repeat = False

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        return [tuple(token) for token in _decode(self._run("session", "owned", session)) or ()]

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""
        known, odd = _split(tokens)
        if not known:
            return odd
        stale = _decode(self._run("release", known, _micros(delay), counted))
        return [known[index] for index in stale or ()] + odd

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        answer = self._run("collect", session, limit, secrets.token_urlsafe(9))
        kind, *rest = _decode(answer[0])
        if kind == "lost":
            raise self._lost(session)
        return _claims(rest[1], answer, rest[0])

    def inspect(self, queue: str) -> Counts:
        """See `Store.inspect`."""
        more = 1
        while more:
            ready, delayed, claimed, more = self._run("queues", "inspect", queue)
        return Counts(ready, delayed, claimed)

    def purge(self, queue: str) -> int:
        """See `Store.purge`."""
        return int(self._run("queues", "purge", queue))

    # topology

    def read_table(self, names: Sequence[str] | None = None) -> Mapping[str, Entry]:
        """See `Store.read_table`."""
        found = self._run("table", "read", False if names is None else list(names))
        return {
            found[index].decode(): Entry(int(found[index + 1]), found[index + 2])
            for index in range(0, len(found), 3)
        }

    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        """See `Store.write_table`."""
        return bool(
            self._run(
                "table",
                "write",
                [change.name for change in changes],
                [change.version for change in changes],
                [change.value is None for change in changes],
                list(drop),
                more=[change.value or b"" for change in changes],
            )
        )

    def close(self) -> None:
        """See `Store.close`."""
        self._server.close()

    # KeyValue

    def key_get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        found = self._run("value", "get", key)
        return KeyEntry(found[1], int(found[0])) if found else None

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """See `KeyValue.key_set`."""
        wanted = -1 if version is None else version
        number = self._run("value", "set", key, _ttl(ttl), wanted, more=[value])
        return None if number is None else int(number)

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        total = self._run("value", "increment", key, _ttl(ttl), str(amount))
        if total == 0:
            raise UsageError(
                f"the key {key!r} holds no whole number of 64 bits, so {amount} cannot be added "
                "to it"
            )
        return int(total)

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        return bool(self._run("value", "delete", key, -1 if version is None else version))

    def _run(self, script: str, *plan: object, more: Iterable[bytes] = ()) -> Any:
        return self._server.run(script, _encode(plan), *more)

    def _lost(self, session: str) -> SessionLost:
        return SessionLost(
            f"the session {session!r} has ended at {self._server.place}; its messages went back to "
            "their queues"
        )


# between values of the contract and plans


def _micros(seconds: float) -> int:
    """Return whole microseconds, never fewer than asked for."""
    return max(0, math.ceil(seconds * 1_000_000))


def _ttl(seconds: float | None) -> int:
    return -1 if seconds is None else _micros(seconds)


def _row(index: int, envelope: Envelope, cause: int) -> tuple[object, ...]:
    delay, ttl = envelope.delay, envelope.ttl
    return (
        index,
        envelope.id,
        envelope.priority,
        _micros(delay) if delay else 0,
        -1 if ttl is None else _micros(ttl),
        envelope.max_deliveries,
        cause,
    )


def _limit(limit: Limit | None) -> tuple[int, int]:
    if limit is None:
        return -1, 0
    return limit.max_length, int(limit.overflow == "reject-publish")


def _pack(envelope: Envelope) -> bytes:
    """Return a message's content: the length of its properties in 4 bytes, properties, body."""
    properties = envelope.properties
    return b"%b%b%b" % (len(properties).to_bytes(_SIZE, "big"), properties, envelope.body)


def _claims(rows: Any, answer: Sequence[bytes], life: int) -> list[Claim]:
    claims = []
    for position, (queue, name, attempts, priority, fence, *reason) in enumerate(rows or (), 1):
        content = answer[position]
        start = _SIZE + int.from_bytes(content[:_SIZE], "big")
        claims.append(
            Claim(
                (queue, name, life, fence),
                queue,
                name,
                content[start:],
                content[_SIZE:start],
                attempts,
                priority,
                *reason,
            )
        )
    return claims


def _is_token(token: Token) -> bool:
    return isinstance(token, tuple) and tuple(map(type, token)) == _TOKEN


def _split(tokens: Sequence[Token]) -> tuple[list[Token], list[Token]]:
    """Return each token once: those that can be ours, and the odd ones, which are stale."""
    once = dict.fromkeys(tokens)
    return [token for token in once if _is_token(token)], [t for t in once if not _is_token(t)]


def _number_of(cause: Token, causes: dict[Token, int], tokens: list[Token]) -> int:
    """Return the cause's number in ``tokens``, where it is added if need be; 0 for an odd one."""
    if cause not in causes:
        if not _is_token(cause):
            return 0
        tokens.append(cause)
        causes[cause] = len(tokens)
    return causes[cause]


def _lease(found: Any) -> Lease:
    return Lease(float(found[0]), found[1])
