"""The store on Redis: `queue_core.transport.Store` and `KeyValue`.

Each method is one Lua script, and so one atomic step and one round trip. The server's own clock
decides what is due; a client's clock only bounds how long it waits. The layout is in `keys`, the
steps are in ``scripts/``.

The rules:

- A token is (queue, id, tag), and a tag is the life of the session and a fence, which is random and
  made for each claim: so a token stays unique even if the server came back with old data.
- What grows is refused by a full server before anything has happened. Claiming, settling,
  releasing, collecting, sessions and the table begin with a removal, which a full server allows.
- A claim that finds nothing blocks in BLPOP on the bells of its queues. There are bells as long as
  there are ready messages, so none is missed between the look and the wait, and Redis gives each to
  one claim. A bell that is lost with who took it costs others at most the rest of their wait.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from queue_core.errors import SessionLost, TransportError, Unsupported, UsageError
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
from queue_core.transports.redis.bell import Bell
from queue_core.transports.redis.durability import detect
from queue_core.transports.redis.plans import Tokens, micros, plan_batch, read_claims, ttl_of
from queue_core.transports.redis.server import Server

logger = logging.getLogger(__name__)

_NO_LIMITS: Final[Mapping[str, Limit]] = {}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class RedisStore:
    """One handle on a Redis broker. One thread at a time; see `queue_core.transport.Store`."""

    def __init__(self, server: Server, second: Server) -> None:
        """Connect at the first use; ``second`` is for what must be sent while a claim waits."""
        self._server = server
        self._second = second
        self._handle = secrets.token_hex(8)
        self._bell = Bell(self._end_wait)
        self._busy = False  # the last wait ended with a bell: the next one will do so, too

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
        tokens = Tokens(settle)
        settled = len(tokens.groups)
        queues, contents, places = plan_batch(batch, limits, tokens)
        names = list(versions)
        answer = self._run(
            "put",
            names,
            [versions[name] for name in names],
            tokens.groups,
            settled,
            queues,
            more=contents,
        )
        kind, *rest = _decode(answer)
        if kind == "stale":
            return PutResult(stale_entries=[names[index] for index in rest[0]])
        if kind == "full":
            return PutResult(full=rest[0])
        already, stale = rest
        return PutResult(
            already=sorted(places[place] for place in already or ()),
            stale_tokens=tokens.stale(stale),
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
        tokens = Tokens(settle)
        fence = secrets.token_urlsafe(9)
        head, claims = self._take(
            self._run("claim", session, "", request, fence, repeat, rooms, tokens.groups)
        )
        if head is None:
            raise self._lost(session)
        life, due_in, indices = head
        stale = tokens.stale(indices)
        look = _encode((session, life, request, fence, False, rooms, ()))
        lists = [f"wake:{self._handle}", *(f"b:{queue}" for queue, _ in rooms)]
        while not claims and (left := deadline - time.monotonic()) > 0 and not self._bell.rung:
            pause = left if due_in < 0 else min(left, due_in / 1_000_000)
            rang, answer = self._server.wait(
                lists, pause, self._bell, ("claim", look) if self._busy else None
            )
            self._busy = rang
            if answer is None and (rang or pause < left):
                answer = self._server.run("claim", look)
            if answer is not None:
                head, claims = self._take(answer)
                if head is None:
                    break
                due_in = head[1]
        if wait > 0:
            self._bell.hush()
        return Claimed(claims, stale)

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        self._bell.ring()

    def _end_wait(self) -> None:
        """End the BLPOP of the first connection."""
        try:
            self._second.run("interrupt", _encode((self._handle,)))
        except TransportError as error:
            logger.debug("a wait goes on to its end, for it cannot be interrupted: %s", error)

    @staticmethod
    def _take(answer: Sequence[bytes]) -> tuple[tuple[str, int, Any] | None, list[Claim]]:
        """Return {life, due_in, stale} and the claims of an answer; None without a session."""
        kind, *rest = _decode(answer[0])
        if kind != "ok":
            return None, []
        life, due_in, stale, runs = rest
        return (life, due_in, stale), read_claims(runs, answer)

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        return [tuple(token) for token in _decode(self._run("session", "owned", session)) or ()]

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""
        known = Tokens(tokens)
        if not known.groups:
            return known.odd
        return known.stale(_decode(self._run("release", known.groups, micros(delay), counted)))

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        answer = self._run("collect", session, limit, secrets.token_urlsafe(9))
        kind, *rest = _decode(answer[0])
        if kind == "lost":
            raise self._lost(session)
        return read_claims(rest[0], answer)

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
        self._second.close()
        self._bell.close()

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
        number = self._run("value", "set", key, ttl_of(ttl), wanted, more=[value])
        return None if number is None else int(number)

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        total = self._run("value", "increment", key, ttl_of(ttl), str(amount))
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


def _lease(found: Any) -> Lease:
    return Lease(float(found[0]), found[1])
