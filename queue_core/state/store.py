"""A store for whatever can keep one `State`: all methods of the contract but the keeping itself.

A subclass says in ``step`` where the state comes from and how it is made safe; each method of the
contract is one such step. A claim that finds nothing looks again every few milliseconds, unless
the subclass knows better (``wait_and_take``).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import ClassVar

from queue_core.arguments import check_kind
from queue_core.errors import ConfigError, SessionLost, UsageError
from queue_core.message import Token
from queue_core.state.queues import CLAIMED, Message
from queue_core.state.state import State
from queue_core.transport import (
    Change,
    Claim,
    Claimed,
    Counts,
    Entry,
    Envelope,
    Features,
    KeyEntry,
    KeyWrite,
    Lease,
    Limit,
    PutResult,
    Transaction,
    require,
)

_NO_LIMITS: Mapping[str, Limit] = MappingProxyType({})
_SURPLUS = 10_000
"""How many beyond a limit die in one step, which keeps others waiting: some 30 milliseconds."""


class StateStore:
    """The base of a handle on a `State`: `Store` and `KeyValue`.

    Attributes:
        name: of the transport, for errors.
        pause: seconds between two looks of a claim that waits.
    """

    name: ClassVar[str]
    pause: ClassVar[float] = 0.01

    _interrupted = False
    _is_checked = False

    # what a subclass says

    def step(self) -> AbstractContextManager[State]:
        """Begin an atomic step; ``with`` gives the state.

        Nobody else, in any process, has it until the ``with`` ends. Then what was changed must be
        safe and visible to all; after an exception nothing may have changed. The exceptions that
        it raises itself are those of `Store`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs step()")

    def now(self) -> float:
        """Return the present in seconds, on a clock that lives as long as the state.

        The wall clock, unless a subclass has a better one.
        """
        return time.time()

    def hand_over(self, message: Message) -> Claim:
        """Return what the session that holds the message gets; called in the step that claims it.

        A subclass that keeps bodies elsewhere adds them here.
        """
        return message.claim()

    def wait_and_take(
        self, session: str, life: int, request: str, wants: Mapping[str, int], wait: float
    ) -> list[Claim]:
        """Claim what comes within ``wait`` seconds, unless the session or ``interrupt`` ends it.

        It is the session's life with this number that waits. Called outside of any step.
        """
        end = time.monotonic() + wait
        claims: list[Claim] = []
        while not (claims or self._interrupted) and (rest := end - time.monotonic()) > 0:
            time.sleep(min(rest, self.pause))
            with self._step() as state:
                if session not in state.sessions or state.sessions[session].number != life:
                    break
                taken = state.take(session, request, wants, self.now())
                claims = [self.hand_over(message) for message in taken]
        self._interrupted = False
        return claims

    # sessions

    def open_session(self, session: str, lease: float) -> None:
        """See `Store.open_session`."""
        with self._step() as state:
            state.open_session(session, lease)

    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        with self._step() as state:
            for name in sessions:
                if found := state.sessions.get(name):
                    found.beats = state.number()
            return [name for name in sessions if name not in state.sessions]

    def sessions(self) -> Mapping[str, Lease]:
        """See `Store.sessions`."""
        with self._step() as state:
            return {n: Lease(s.lease, s.beats) for n, s in state.sessions.items()}

    def end_session(self, session: str, beats: int | None = None) -> bool:
        """See `Store.end_session`."""
        with self._step() as state:
            found = state.sessions.get(session)
            if found is None or (beats is not None and found.beats != beats):
                return False
            state.end_session(session, self.now(), crashed=beats is not None)
            return True

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
            require(Features(), "transactions", self.name)
        with self._step() as state:
            now = self.now()
            state.advance(now)
            if versions and (stale_entries := state.stale_entries(versions)):
                return PutResult(stale_entries=stale_entries)
            settled, stale_tokens = state.split(settle)
            if limits and (full := state.full(batch, settled, limits)):
                return PutResult(full=full)
            for message in settled.values():
                state.forget(message)
            already = [
                index
                for index, envelope in enumerate(batch)
                if not state.is_moot(envelope, settled) and not state.append(envelope, now)
            ]
            state.drop_surplus(limits, max(_SURPLUS, len(batch)))
            return PutResult(already=already, stale_tokens=stale_tokens)

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
        with self._step() as state:
            life = self._life(state, session)
            mine = state.held[session].values() if repeat else ()
            if again := [self.hand_over(m) for m in mine if m.request == request]:
                return Claimed(again)
            settled, stale = state.split(settle)
            for message in settled.values():
                state.forget(message)
            taken = state.take(session, request, wants, self.now())
            claims = [self.hand_over(message) for message in taken]
        if not claims and wait > 0:
            claims = self.wait_and_take(session, life, request, wants, wait)
        return Claimed(claims, stale)

    def interrupt(self) -> None:
        """See `Store.interrupt`."""
        self._interrupted = True

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        with self._step() as state:
            return list(state.held.get(session, ()))

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""
        with self._step() as state:
            now = self.now()
            held, stale = state.split(tokens)
            for message in held.values():
                state.give_back(message, now, delay=delay, counted=counted)
            return stale

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        with self._step() as state:
            self._life(state, session)
            state.advance(self.now())
            dead = list(itertools.islice(state.dead.values(), max(0, limit)))
            for message in dead:
                state.hold(message, session)
            return [self.hand_over(message) for message in dead]

    def inspect(self, queue: str) -> Counts:
        """See `Store.inspect`."""
        with self._step() as state:
            now = self.now()
            state.advance(now)
            found = state.queues.get(queue)
            if found is None:
                return Counts()
            state.promote(found, now)
            return Counts(found.ready, found.delayed, found.claimed)

    def purge(self, queue: str) -> int:
        """See `Store.purge`."""
        with self._step() as state:
            found = state.queues.get(queue)
            unclaimed = [m for m in found.ids.values() if m.state != CLAIMED] if found else []
            for message in unclaimed:
                state.forget(message)
            return len(unclaimed)

    # topology

    def read_table(self, names: Sequence[str] | None = None) -> Mapping[str, Entry]:
        """See `Store.read_table`."""
        with self._step() as state:
            table = state.table
            wanted = table if names is None else [name for name in names if name in table]
            return {name: Entry(table[name].version, table[name].value) for name in wanted}

    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        """See `Store.write_table`."""
        with self._step() as state:
            if state.stale_entries({change.name: change.version for change in changes}):
                return False
            for change in changes:
                if change.value is None:
                    state.table.pop(change.name, None)
                else:
                    state.table[change.name] = Entry(state.number(), change.value)
            for name in drop:
                if queue := state.queues.get(name):
                    for message in list(queue.ids.values()):
                        state.forget(message)
                    del state.queues[name]
            return True

    # keys

    def key_get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        with self._step() as state:
            found = state.live_value(key, self.now())
            return None if found is None else KeyEntry(found.value, found.version)

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """See `KeyValue.key_set`."""
        return self.key_set_many([KeyWrite(key, value, ttl, version)])[0]

    def key_set_many(self, writes: Sequence[KeyWrite]) -> list[int | None]:
        """See `KeyValue.key_set_many`."""
        answers: list[int | None] = []
        with self._step() as state:
            now = self.now()
            for write in writes:
                found = state.live_value(write.key, now)
                version = found.version if found else 0
                expires = None if write.ttl is None else now + write.ttl
                answers.append(
                    state.set_value(write.key, write.value, expires)
                    if write.version in (None, version)
                    else None
                )
        return answers

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        with self._step() as state:
            now = self.now()
            found = state.live_value(key, now)
            if found is None:
                state.set_value(key, b"%d" % amount, None if ttl is None else now + ttl)
                return amount
            try:
                total = int(found.value) + amount
            except ValueError:
                raise UsageError(
                    f"the key {key!r} holds no whole number, so nothing can be added to it"
                ) from None
            found.value, found.version = b"%d" % total, state.number()
            return total

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        with self._step() as state:
            found = state.live_value(key, self.now())
            if found is None or (version is not None and version != found.version):
                return False
            del state.keys[key]
            return True

    def close(self) -> None:
        """See `Store.close`."""

    def _step(self) -> AbstractContextManager[State]:
        return self.step() if self._is_checked else self._first_step()

    @contextmanager
    def _first_step(self) -> Iterator[State]:
        """Begin a handle's first step, with a look at what its class says."""
        kind = type(self).__name__
        name = getattr(self, "name", None)
        check_kind(f"{kind}.name", name, str, "a string: what errors call the transport")
        step = self.step()
        if not isinstance(step, AbstractContextManager):
            raise ConfigError(
                f"{kind}.step() returns {type(step).__name__}, which is no context manager; write "
                "@contextlib.contextmanager above it, and yield the State in it"
            )
        with step as state:
            check_kind(f"what {kind}.step() yields", state, State, "a State, as of State(saved)")
            check_kind(f"what {kind}.now() returns", self.now(), int | float, "a number of seconds")
            self._is_checked = True
            yield state

    def _life(self, state: State, session: str) -> int:
        """Return the number of a session's life. Raises SessionLost."""
        found = state.sessions.get(session)
        if found is None:
            raise SessionLost(
                f"the session {session!r} does not exist (any more) in the {self.name} broker"
            )
        return found.number
