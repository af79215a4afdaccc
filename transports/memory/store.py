"""The handle on a memory broker: the reference for everybody who writes a store."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from queue_core.errors import SessionLost, Unsupported, UsageError
from queue_core.message import Token
from queue_core.policy import Clock
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
    SessionOptions,
    Store,
    Survives,
    Transaction,
)
from queue_core.transports.memory.broker import MemoryBroker, Session
from queue_core.transports.memory.queues import CLAIMED
from queue_core.url import BrokerURL

_NO_LIMITS: Mapping[str, Limit] = MappingProxyType({})


class MemoryStore:
    """A handle on a `MemoryBroker`: `Store` and `KeyValue`.

    Handles cost nothing, and closing one has no effect on others.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    def durability(self, queue: str = "") -> Durability:
        """See `Detector.durability`."""
        return Durability(Survives.NOTHING, "the broker is this process's own memory")

    # sessions

    def open_session(self, session: str, lease: float) -> None:
        """See `Store.open_session`."""
        broker = self.broker
        with broker.lock:
            existing = broker.sessions.get(session)
            if existing is None:
                broker.sessions[session] = Session(lease, broker.number())
            else:
                existing.lease, existing.beats = lease, broker.number()

    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        """See `Store.heartbeat`."""
        broker = self.broker
        with broker.lock:
            for name in sessions:
                if found := broker.sessions.get(name):
                    found.beats = broker.number()
            return [name for name in sessions if name not in broker.sessions]

    def sessions(self) -> Mapping[str, Lease]:
        """See `Store.sessions`."""
        with self.broker.lock:
            return {n: Lease(s.lease, s.beats) for n, s in self.broker.sessions.items()}

    def end_session(self, session: str, beats: int | None = None) -> bool:
        """See `Store.end_session`."""
        broker = self.broker
        with broker.lock:
            found = broker.sessions.get(session)
            if found is None or (beats is not None and found.beats != beats):
                return False
            del broker.sessions[session]
            crashed = beats is not None
            now = broker.clock.monotonic()
            for message in list(found.held.values()):
                message.crashes += crashed
                broker.give_back(message, now, counted=crashed)
            for waiter in found.waiters:
                waiter.signal.notify()
            found.waiters.clear()
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
            raise Unsupported(
                "transactions", "memory", "publish without transaction=, or use an SQL broker"
            )
        broker = self.broker
        with broker.lock:
            now = broker.clock.monotonic()
            broker.advance(now)
            if versions and (stale_entries := broker.stale_entries(versions)):
                return PutResult(stale_entries=stale_entries)
            settled, stale_tokens = broker.split(settle)
            if limits and (full := broker.full(batch, settled, limits)):
                return PutResult(full=full)
            for message in settled.values():
                broker.forget(message)
            already = [
                index
                for index, envelope in enumerate(batch)
                if not broker.is_moot(envelope, settled) and not broker.append(envelope, now)
            ]
            broker.drop_surplus(limits)
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
        """See `Store.claim`. A waiting claim whose session ends gives an empty answer."""
        broker = self.broker
        with broker.lock:
            found = self._session(session)
            if repeat and request in found.answers:
                held = [m.claim() for m in found.held.values() if m.request == request]
                return Claimed(held, found.answers[request])
            settled, stale = broker.split(settle)
            for message in settled.values():
                broker.forget(message)
            claims = broker.take(found, request, wants, broker.clock.monotonic())
            found.remember(request, stale)
            if not claims and wait > 0:
                claims = broker.wait_and_take(found, request, wants, wait)
            return Claimed(claims, stale)

    def owned(self, session: str) -> Sequence[Token]:
        """See `Store.owned`."""
        with self.broker.lock:
            found = self.broker.sessions.get(session)
            return list(found.held) if found else []

    def release(
        self, tokens: Sequence[Token], *, delay: float = 0.0, counted: bool = True
    ) -> Sequence[Token]:
        """See `Store.release`."""
        broker = self.broker
        with broker.lock:
            now = broker.clock.monotonic()
            held, stale = broker.split(tokens)
            for message in held.values():
                broker.give_back(message, now, delay=delay, counted=counted)
            return stale

    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        """See `Store.collect`."""
        broker = self.broker
        with broker.lock:
            found = self._session(session)
            broker.advance(broker.clock.monotonic())
            dead = list(itertools.islice(broker.dead.values(), max(0, limit)))
            for message in dead:
                broker.hold(message, found)
            return [message.claim() for message in dead]

    def inspect(self, queue: str) -> Counts:
        """See `Store.inspect`."""
        broker = self.broker
        with broker.lock:
            now = broker.clock.monotonic()
            broker.advance(now)
            found = broker.queues.get(queue)
            if found is None:
                return Counts()
            broker.promote(found, now)
            return Counts(found.ready, found.delayed, found.claimed)

    def purge(self, queue: str) -> int:
        """See `Store.purge`."""
        broker = self.broker
        with broker.lock:
            found = broker.queues.get(queue)
            unclaimed = [m for m in found.ids.values() if m.state != CLAIMED] if found else []
            for message in unclaimed:
                broker.forget(message)
            return len(unclaimed)

    # topology

    def read_table(self, names: Sequence[str] | None = None) -> Mapping[str, Entry]:
        """See `Store.read_table`."""
        with self.broker.lock:
            table = self.broker.table
            wanted = table if names is None else [name for name in names if name in table]
            return {name: Entry(table[name].version, table[name].value) for name in wanted}

    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        """See `Store.write_table`."""
        broker = self.broker
        with broker.lock:
            if broker.stale_entries({change.name: change.version for change in changes}):
                return False
            for change in changes:
                if change.value is None:
                    broker.table.pop(change.name, None)
                else:
                    broker.table[change.name] = Entry(broker.number(), change.value)
            for name in drop:
                if queue := broker.queues.pop(name, None):
                    for message in list(queue.ids.values()):
                        broker.forget(message)
            return True

    # keys

    def key_get(self, key: str) -> KeyEntry | None:
        """See `KeyValue.key_get`."""
        broker = self.broker
        with broker.lock:
            found = broker.live_value(key, broker.clock.monotonic())
            return None if found is None else KeyEntry(found.value, found.version)

    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        """See `KeyValue.key_set`."""
        broker = self.broker
        with broker.lock:
            now = broker.clock.monotonic()
            found = broker.live_value(key, now)
            if version is not None and version != (found.version if found else 0):
                return None
            return broker.set_value(key, value, None if ttl is None else now + ttl)

    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """See `KeyValue.key_increment`."""
        broker = self.broker
        with broker.lock:
            now = broker.clock.monotonic()
            found = broker.live_value(key, now)
            if found is None:
                broker.set_value(key, b"%d" % amount, None if ttl is None else now + ttl)
                return amount
            try:
                total = int(found.value) + amount
            except ValueError:
                raise UsageError(
                    f"the key {key!r} holds no whole number, so nothing can be added to it"
                ) from None
            found.value, found.version = b"%d" % total, broker.number()
            return total

    def key_delete(self, key: str, *, version: int | None = None) -> bool:
        """See `KeyValue.key_delete`."""
        broker = self.broker
        with broker.lock:
            found = broker.live_value(key, broker.clock.monotonic())
            if found is None or (version is not None and version != found.version):
                return False
            del broker.keys[key]
            return True

    def close(self) -> None:
        """See `Store.close`."""

    def _session(self, name: str) -> Session:
        found = self.broker.sessions.get(name)
        if found is None:
            raise SessionLost(
                f"the session {name!r} does not exist (any more) in the memory broker"
            )
        return found


class MemoryBrokers:
    """The memory brokers of a process, by name. A broker is made at its first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._brokers: dict[str, MemoryBroker] = {}

    def open(self, url: BrokerURL, options: SessionOptions) -> Store:
        """Return a handle on the broker that the URL names; see `StoreTransport`."""
        return MemoryStore(self.get(url.host or "default", options.clock))

    def get(self, name: str, clock: Clock) -> MemoryBroker:
        """Return the broker; an older one keeps the clock that it was made with."""
        with self._lock:
            if name not in self._brokers:
                self._brokers[name] = MemoryBroker(clock)
            return self._brokers[name]
