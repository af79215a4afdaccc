"""The store on Redis: `queue_core.transport.Store` and `KeyValue`.

Each method is one Lua script, and so one atomic step and one round trip. The server's own clock
decides what is due; a client's clock only bounds how long it waits. The layout is in `keys`, the
steps are in ``scripts/``.

The rules:

- A token is (queue, id, tag). A tag is the life of the session and a fence, made of the handle's
  random name and a number: so a token stays unique even if the server came back with old data.
- What grows is refused by a full server before anything has happened. Claiming, settling,
  releasing, collecting, sessions and the table begin with a removal, which a full server allows.
- A change of a key says until when somebody waits for its answer, and does nothing after that: it
  may come after a newer one.
- A claim that finds nothing blocks in BLPOP on the bells of its queues. There are bells as long as
  there are ready messages, so none is missed between the look and the wait, and Redis gives each to
  one claim. A bell that is lost with who took it costs others at most the rest of their wait.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final

import msgspec

from queue_core.errors import SessionLost, TransportError, Unsupported, UsageError
from queue_core.interrupt import Interrupt
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
    KeyWrite,
    Lease,
    Limit,
    PutResult,
    Transaction,
)
from queue_core.transports.redis.durability import detect
from queue_core.transports.redis.plans import (
    Tokens,
    micros,
    plan_batch,
    read_claims,
    ttl_of,
    words_to_append,
)
from queue_core.transports.redis.server import Server

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 1000
"""How many messages are returned in one step, so that nobody waits for the server long."""

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
        self._fences = itertools.count(1)
        self._interrupt = Interrupt()
        self._seen: _Look | None = None  # the last one, if nothing was left
        self._clock: int | None = None  # by how much the server's is ahead of ours, at most

    def connect(self) -> None:
        """Connect now, so that what is wrong with the server is said now."""
        self._server.connect()

    def durability(self, queue: str = "") -> Durability:
        """See `Detector.durability`."""
        return detect(self._server)

    def expect_by(self, until: float) -> None:
        """See `Punctual.expect_by`."""
        self._server.expect_by(until)
        self._second.expect_by(until)

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
        leases = {name.decode(): _lease(packed) for name, packed in pairs}
        return {name: lease for name, lease in leases.items() if lease is not None}

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
        if not limits and (plain := words_to_append(batch, versions, tokens)):
            return self._append(versions, tokens, *plain)
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

    def _append(
        self,
        versions: Mapping[str, int],
        tokens: Tokens,
        words: Sequence[bytes],
        order: Sequence[int],
    ) -> PutResult:
        """Put plain messages; ``order`` says which message of ``words`` is where in the batch."""
        answer = self._server.run("append", *words)
        if not answer and not tokens.odd:
            return PutResult()
        changed, already, stale = answer or ((), (), ())
        if changed:
            names = list(versions)
            return PutResult(stale_entries=[names[index] for index in changed])
        return PutResult(
            already=sorted([order[place] for place in already]),
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
        tokens = Tokens(settle)
        call = _Call(
            session,
            request,
            self._new_fence(),
            {queue: room for queue, room in wants.items() if room > 0},
            time.monotonic() + wait,
        )
        seen, self._seen = self._seen, None
        look, stale = None, None
        if seen is not None and wait > 0 and not repeat and not self._interrupt.requested:
            # Nothing was left, and what has come since has rung: there is no need to look first.
            if seen.session == session and seen.queues == call.rooms.keys():
                stale, look = self._wait(call, seen, tokens.groups)
        if look is None and stale is not None:
            return Claimed((), tokens.stale(stale))  # the session ended while it waited
        if look is None:
            first = self._server.run("claim", call.plan("", tokens.groups, repeat=repeat))
            look = _read(first, call)
            if look is None:
                raise self._lost(session)
            stale = look.stale
        while not look.claims:
            if look.left:  # only what has expired was there, and more than one step looks through
                again = _read(self._server.run("claim", call.plan(look.life, [])), call)
            elif time.monotonic() < call.until and not self._interrupt.requested:
                _, again = self._wait(call, look, [])
            else:
                break
            if again is None:
                return Claimed((), tokens.stale(stale or ()))  # the session ended meanwhile
            look = again
        if wait > 0:
            self._interrupt.clear()
        claims, look.claims = look.claims, []
        self._seen = None if look.left else look
        return Claimed(claims, tokens.stale(stale or ()), look.broken)

    def _wait(
        self, call: _Call, last: _Look, groups: Sequence[object]
    ) -> tuple[Sequence[int] | None, _Look | None]:
        """Settle, wait for a bell, and look: one round trip.

        Returns which tokens were stale (None: nothing was settled), and the look (None: the session
        has not the life any more that it had at the last one).
        """
        before = call.plan(last.life, groups, looking=False) if groups else None
        seconds = min(call.until, last.due_at) - time.monotonic()
        lists = [f"wake:{self._handle}", *(f"b:{queue}" for queue in last.queues)]
        first, then = self._server.wait(
            lists,
            seconds,
            self._interrupt,
            self._end_wait,
            "claim",
            call.plan(last.life, []),
            before,
        )
        settled = None if first is None else _read(first, call)
        return None if settled is None else settled.stale, _read(then, call)

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        self._interrupt.request()

    def _end_wait(self) -> None:
        """End the BLPOP of the first connection."""
        try:
            self._second.run("interrupt", _encode((self._handle,)))
        except TransportError as error:
            logger.debug("a wait goes on to its end, for it cannot be interrupted: %s", error)

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        return [tuple(token) for token in _decode(self._run("session", "owned", session)) or ()]

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""
        stale: list[Token] = []
        once = list(dict.fromkeys(tokens))
        for first in range(0, len(once), _MOST_AT_ONCE):
            known = Tokens(once[first : first + _MOST_AT_ONCE])
            stale += known.stale(
                _decode(self._run("release", known.groups, micros(delay), counted))
            )
        return stale

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        answer = self._run("collect", session, limit, self._new_fence())
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
        self._interrupt.close()

    # KeyValue

    def key_get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        found = self._run("value", "get", key)
        return KeyEntry(found[1], int(found[0])) if found else None

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """See `KeyValue.key_set`."""
        return self.key_set_many([KeyWrite(key, value, ttl, version)])[0]

    def key_set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """See `KeyValue.key_set_many`."""
        plan: list[object] = []
        for write in writes:
            plan += [write.key, ttl_of(write.ttl), -1 if write.version is None else write.version]
        numbers = self._change_keys("set", *plan, more=[write.value for write in writes])
        return [None if number is None else int(number) for number in numbers]

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        total = self._change_keys("increment", key, ttl_of(ttl), str(amount))
        if total == 0:
            raise UsageError(
                f"the key {key!r} holds no whole number of 64 bits, so {amount} cannot be added "
                "to it"
            )
        return int(total)

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        return bool(self._change_keys("delete", key, -1 if version is None else version))

    def _change_keys(self, command: str, *plan: object, more: Sequence[bytes] = ()) -> Any:
        """Change keys now or never: not if the server gets to it when we have given it up."""
        while (answer := self._run("value", command, self._until(), *plan, more=more)) == b"late":
            self._clock = None  # somebody has set the server's, for we are still here
        return answer

    def _until(self) -> int:
        """Return when an answer that is asked for now comes too late, by the server's clock."""
        if self._clock is None:
            began = time.monotonic()
            self._clock = int(self._run("value", "now")) - micros(began)
        return self._clock + micros(time.monotonic() + self._server.patience())

    def _run(self, script: str, *plan: object, more: Iterable[bytes] = ()) -> Any:
        return self._server.run(script, _encode(plan), *more)

    def _new_fence(self) -> str:
        """Return what no other claim has, of this handle or of any other one."""
        return f"{self._handle}-{next(self._fences)}"

    def _lost(self, session: str) -> SessionLost:
        return SessionLost(
            f"the session {session!r} has ended at {self._server.place}; its messages went back to "
            "their queues"
        )


class _Call(msgspec.Struct):
    """One claim: what is the same in each of its looks. ``until`` is when it stops waiting."""

    session: str
    request: str
    fence: str
    rooms: dict[str, int]
    until: float

    def plan(
        self, life: str, groups: Sequence[object], *, repeat: bool = False, looking: bool = True
    ) -> bytes:
        rooms = tuple(self.rooms.items()) if looking else ()
        return _encode((self.session, life, self.request, self.fence, repeat, rooms, groups))


class _Look(msgspec.Struct):
    """What the script said about the queues, and what it took.

    ``queues`` are those that it could look at, ``broken`` the others. ``left`` says that there may
    be more. ``due_at``, by our own clock, is when the next delayed message is due. ``stale`` are
    places of tokens.
    """

    session: str
    queues: Set[str]
    life: str
    left: bool
    due_at: float
    stale: Sequence[int]
    claims: list[Claim]
    broken: Mapping[str, str]


def _read(answer: Sequence[bytes], call: _Call) -> _Look | None:
    """Return what the script answered; None if the session has ended."""
    kind, *rest = _decode(answer[0])
    if kind != "ok":
        return None
    life, left, due_in, stale, runs, broken = rest
    due_at = time.monotonic() + due_in / 1_000_000 if due_in >= 0 else math.inf
    claims = read_claims(runs, answer)
    queues: Set[str] = call.rooms.keys()
    if broken:
        names = list(queues)
        broken = {names[place]: problem for place, problem in broken}
        queues = queues - broken.keys()
    return _Look(call.session, queues, life, bool(left), due_at, stale or (), claims, broken or {})


def _lease(packed: bytes) -> Lease | None:
    """Return what a session's entry says; None if it is damaged: then it is no session."""
    try:
        seconds, beats, _ = _decode(packed)
        return Lease(float(seconds), int(beats))
    except (msgspec.DecodeError, TypeError, ValueError):
        return None
