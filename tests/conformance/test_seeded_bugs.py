"""Testing the tests: the memory store with one bug, again and again. The suite must notice each.

Every class here is the memory store, or its broker, with a single mistake that somebody might make;
its name says which. The suite's tests run in their order until one fails, and that one's name is in
the report (``pytest -rP`` shows it). The random machine gets a choice of the same bugs.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from queue_core.errors import SessionLost
from queue_core.message import Token
from queue_core.policy import Clock, SystemClock
from queue_core.state.queues import READY, Message, Queue
from queue_core.state.state import Life, State
from queue_core.testing.clocks import FakeClock
from queue_core.testing.machine import StoreMachine
from queue_core.testing.store_bench import StoreBench
from queue_core.testing.store_suite import OpenStore, StoreSuite
from queue_core.transport import (
    Change,
    Claim,
    Claimed,
    Counts,
    Envelope,
    Limit,
    PutResult,
    Transaction,
)
from queue_core.transports.memory import FEATURES, MemoryBroker, MemoryStore
from queue_core.transports.memory.broker import Interrupt


def orphan(broker: MemoryBroker, session: str) -> None:
    """Let what the session holds be held by nobody who could end."""
    orphans = broker.held.setdefault("nobody", {})
    for token, message in broker.held[session].items():
        message.session = "nobody"
        orphans[token] = message
    broker.held[session] = {}


# --- giving back -------------------------------------------------------------------------------


class ReturnsToTheTail(MemoryBroker):
    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        self.leave(message)
        message.place = self.number()
        message.attempts -= not counted and not message.reason
        self.place(message, now, delay)


class ForgetsAttempts(MemoryBroker):
    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        super().give_back(message, now, delay=delay, counted=False)


class CountsPoliteReturns(MemoryBroker):
    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        super().give_back(message, now, delay=delay, counted=True)


class ForgetsTheDelayOfARelease(MemoryBroker):
    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        super().give_back(message, now, counted=counted)


class TakesCollectingBackFromAttempts(MemoryBroker):
    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        if message.reason == "delivery_limit" and not counted:
            message.reason = ""
        super().give_back(message, now, delay=delay, counted=counted)


class RevivesTheOverflowed(MemoryBroker):
    def give_back(self, message: Message, now: float, *, delay: float = 0.0, counted: bool) -> None:
        if message.reason == "maxlen":
            message.reason = ""
        super().give_back(message, now, delay=delay, counted=counted)


class LosesWhatACrashedSessionHeld(MemoryStore):
    def end_session(self, session: str, beats: int | None = None) -> bool:
        if beats is not None:
            self.put([], {}, settle=self.owned(session))
        return super().end_session(session, beats)


class LeavesClaimsWithTheDead(MemoryStore):
    def end_session(self, session: str, beats: int | None = None) -> bool:
        with self.broker.lock:
            found = self.broker.sessions.get(session)
            if found is None or (beats is not None and found.beats != beats):
                return False
            orphan(self.broker, session)
            del self.broker.sessions[session]
            return True


class EndsSessionsThatBeat(MemoryStore):
    def end_session(self, session: str, beats: int | None = None) -> bool:
        found = self.broker.sessions.get(session)
        now = found.beats if found and beats is not None else beats
        return super().end_session(session, now)


class CountsLeavingAsACrash(MemoryStore):
    def end_session(self, session: str, beats: int | None = None) -> bool:
        with self.broker.lock:
            for message in self.broker.held.get(session, {}).values():
                message.crashes += beats is None
        return super().end_session(session, beats)


# --- sessions ----------------------------------------------------------------------------------


class BeginsBeatsAtOne(MemoryStore):
    def open_session(self, session: str, lease: float) -> None:
        super().open_session(session, lease)
        self.broker.sessions[session].beats = 1


class StartsAfreshWhenOpenedAgain(MemoryStore):
    def open_session(self, session: str, lease: float) -> None:
        with self.broker.lock:
            number = self.broker.number()
            self.broker.sessions[session] = Life(number, lease, number)
            self.broker.held.setdefault(session, {})
            orphan(self.broker, session)


class HeartbeatsMakeSessions(MemoryStore):
    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        for session in sessions:
            self.open_session(session, 30.0)
        return []


class HeartbeatsChangeNothing(MemoryStore):
    def heartbeat(self, sessions: Sequence[str]) -> Sequence[str]:
        return [session for session in sessions if session not in self.broker.sessions]


class ClaimsForAnybody(MemoryStore):
    def _life(self, state: State, session: str) -> int:
        if session not in state.sessions:
            state.open_session(session, 30.0)
        return super()._life(state, session)


class TruncatesSessionNames(MemoryStore):
    def open_session(self, session: str, lease: float) -> None:
        super().open_session(session[:255], lease)


class OwnsOnlyTheLatest(MemoryStore):
    def owned(self, session: str) -> Sequence[Token]:
        return list(super().owned(session))[-1:]


# --- tokens ------------------------------------------------------------------------------------


class TokensNameMessagesNotClaims(MemoryBroker):
    place_of_token = 0

    def number(self) -> int:
        return self.place_of_token or super().number()

    def hold(self, message: Message, session: str, request: str = "") -> None:
        self.place_of_token = message.place
        super().hold(message, session, request)
        self.place_of_token = 0


class SettlesInSilence(MemoryStore):
    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        result = super().put(batch, versions, settle=settle, limits=limits, transaction=transaction)
        result.stale_tokens = []
        return result


# --- put ---------------------------------------------------------------------------------------


class AppendsBeforeItSettles(MemoryStore):
    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        result = super().put(batch, versions, limits=limits, transaction=transaction)
        if not result.stale_entries and not result.full:
            result.stale_tokens = super().put([], {}, settle=settle).stale_tokens
        return result


class SettlesEvenIfItStoresNothing(MemoryStore):
    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        result = super().put(batch, versions, settle=settle, limits=limits, transaction=transaction)
        if result.stale_entries:
            super().put([], {}, settle=settle)
        return result


class SettlesThoughTheQueueIsFull(MemoryStore):
    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        result = super().put(batch, versions, settle=settle, limits=limits, transaction=transaction)
        if result.full:
            super().put([], {}, settle=settle)
        return result


class PutsOneAfterTheOther(MemoryStore):
    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        if len(batch) != 2:
            return super().put(
                batch, versions, settle=settle, limits=limits, transaction=transaction
            )
        result = super().put(batch[:1], versions, settle=settle, limits=limits)
        time.sleep(0.001)
        second = super().put(batch[1:], versions, limits=limits)
        result.already = [*result.already, *(1 for _ in second.already)]
        return result


class IgnoresTransactions(MemoryStore):
    def put(
        self,
        batch: Sequence[Envelope],
        versions: Mapping[str, int],
        *,
        settle: Sequence[Token] = (),
        limits: Mapping[str, Limit] = {},
        transaction: Transaction | None = None,
    ) -> PutResult:
        return super().put(batch, versions, settle=settle, limits=limits)


class TrustsThatAnEntryIsAbsent(MemoryBroker):
    def stale_entries(self, versions: Mapping[str, int]) -> list[str]:
        return super().stale_entries({name: v for name, v in versions.items() if v})


class NeverFindsAVersionStale(MemoryBroker):
    def stale_entries(self, versions: Mapping[str, int]) -> list[str]:
        return []


class StoresCopiesOfStaleCauses(MemoryBroker):
    def is_moot(self, envelope: Envelope, settled: Mapping[Token, Message]) -> bool:
        return False


class StoresAnIdAgainOnceItIsClaimed(MemoryBroker):
    def append(self, envelope: Envelope, now: float) -> bool:
        queue = self.queues.get(envelope.queue)
        if queue and (older := queue.ids.get(envelope.id)) and older in self._held():
            older.id = f"{older.id} (claimed)"
            queue.ids[older.id] = queue.ids.pop(envelope.id)
        return super().append(envelope, now)

    def _held(self) -> list[Message]:
        return list(self.claims.values())


class ReplacesWhatIsThereAlready(MemoryBroker):
    def append(self, envelope: Envelope, now: float) -> bool:
        queue = self.queues.get(envelope.queue)
        if queue and (older := queue.ids.get(envelope.id)):
            older.body = envelope.body
        return super().append(envelope, now)


class MixesUpperAndLowerCase(MemoryBroker):
    def append(self, envelope: Envelope, now: float) -> bool:
        queue = self.queues.get(envelope.queue)
        if queue and any(name.lower() == envelope.id.lower() for name in queue.ids):
            return False
        return super().append(envelope, now)


class StoresBodiesAsText(MemoryBroker):
    def append(self, envelope: Envelope, now: float) -> bool:
        body = envelope.body.decode(errors="replace").encode()
        changed = Envelope(
            envelope.queue,
            envelope.id,
            body,
            envelope.properties,
            envelope.priority,
            envelope.delay,
            envelope.ttl,
            envelope.max_deliveries,
            envelope.cause,
        )
        return super().append(changed, now)


class IgnoresDelay(MemoryBroker):
    def place(self, message: Message, now: float, delay: float = 0.0) -> None:
        super().place(message, now)


class DelaysABitLess(MemoryBroker):
    def place(self, message: Message, now: float, delay: float = 0.0) -> None:
        super().place(message, now, max(0.0, delay - 0.01))


# --- limits ------------------------------------------------------------------------------------


class LetsOneMoreIn(MemoryBroker):
    def full(
        self,
        batch: Sequence[Envelope],
        settled: Mapping[Token, Message],
        limits: Mapping[str, Limit],
    ) -> list[str]:
        wider = {name: Limit(x.max_length + 1, x.overflow) for name, x in limits.items()}
        return super().full(batch, settled, wider)


class NeverFindsAQueueFull(MemoryBroker):
    def full(
        self,
        batch: Sequence[Envelope],
        settled: Mapping[Token, Message],
        limits: Mapping[str, Limit],
    ) -> list[str]:
        return []


class CountsClaimedMessagesIntoTheLimit(MemoryBroker):
    def unclaimed(self, name: str) -> int:
        queue = self.queues.get(name)
        return super().unclaimed(name) + (queue.claimed if queue else 0)


class LeavesDelayedMessagesOutOfTheLimit(MemoryBroker):
    def unclaimed(self, name: str) -> int:
        queue = self.queues.get(name)
        return queue.ready if queue else 0


class DropsTheNewest(MemoryBroker):
    def drop_surplus(self, limits: Mapping[str, Limit], most: int) -> None:
        for name, limit in limits.items():
            queue = self.queues.get(name)
            while queue and limit.overflow == "drop-head" and queue.ready > limit.max_length:
                newest = max(
                    (m for m in queue.ids.values() if m not in self._held() and not m.reason),
                    key=lambda m: m.place,
                )
                self.leave(newest)
                self.die(newest, "maxlen")

    def _held(self) -> list[Message]:
        return list(self.claims.values())


class DeletesTheSurplus(MemoryBroker):
    def drop_surplus(self, limits: Mapping[str, Limit], most: int) -> None:
        for name, limit in limits.items():
            queue = self.queues.get(name)
            while queue and limit.overflow == "drop-head" and queue.ready > limit.max_length:
                head = queue.head_to_drop()
                assert head
                self.forget(head)


# --- claim -------------------------------------------------------------------------------------


class TakesOneMoreThanThereIsRoomFor(MemoryBroker):
    def next_messages(self, queue: Queue, room: int) -> list[Message]:
        return super().next_messages(queue, room + 1)


class IgnoresPriority(MemoryBroker):
    def next_messages(self, queue: Queue, room: int) -> list[Message]:
        chosen = super().next_messages(queue, 10_000)
        chosen.sort(key=lambda message: message.place)
        for message in chosen[room:]:
            self.leave(message)
            queue.add_ready(message)
        return chosen[:room]


class TakesTheNewestFirst(MemoryBroker):
    def next_messages(self, queue: Queue, room: int) -> list[Message]:
        return super().next_messages(queue, room)[::-1]


class ClaimsTheExpired(MemoryBroker):
    def advance(self, now: float) -> None:
        return


class ExpiresWhatIsHeld(MemoryBroker):
    def advance(self, now: float) -> None:
        for message in list(self.claims.values()):
            if not message.reason and message.expires is not None and message.expires <= now:
                self.leave(message)
                self.die(message, "expired")
        super().advance(now)


class AllowsOneDeliveryMore(MemoryBroker):
    def verdict(self, message: Message, now: float) -> str:
        verdict = super().verdict(message, now)
        last = message.attempts == message.max_deliveries
        return "" if verdict == "delivery_limit" and last else verdict


class RevivesTheExpired(MemoryBroker):
    def verdict(self, message: Message, now: float) -> str:
        verdict = super().verdict(message, now)
        return "" if verdict == "expired" and message.attempts else verdict


class MovesDueMessagesToTheTail(MemoryBroker):
    def promote(self, queue: Queue, now: float) -> None:
        while (message := queue.due.first()) and queue.due.entries[0][0][0] <= now:
            self.leave(message)
            queue.due.entries.pop(0)
            message.place = self.number()
            queue.add_ready(message)


class ClaimsCrashersWithOthers(MemoryBroker):
    def next_messages(self, queue: Queue, room: int) -> list[Message]:
        for message in queue.ids.values():
            message.crashes = 0
        return super().next_messages(queue, room)


class TakesNewMessagesInARepeat(MemoryStore):
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
        return super().claim(session, request, wants, wait, settle=settle)


class RepeatsEverythingItHolds(MemoryStore):
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
        held = self.broker.held.get(session, {}).values()
        if repeat and any(message.request == request for message in held):
            return Claimed([message.claim() for message in held])
        return super().claim(session, request, wants, wait, settle=settle, repeat=repeat)


class SettlesForASessionThatIsLost(MemoryStore):
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
        try:
            return super().claim(session, request, wants, wait, settle=settle, repeat=repeat)
        except SessionLost:
            self.put([], {}, settle=settle)
            raise


class ChoosesOutsideTheLock(MemoryBroker):
    def take(
        self, session: str, request: str, wants: Mapping[str, int], now: float
    ) -> list[Message]:
        seen = [
            message
            for name, room in wants.items()
            if (queue := self.queues.get(name))
            for message in [m for m in queue.ids.values() if m.state == READY][:room]
        ]
        self.lock.release()
        time.sleep(0.001)
        self.lock.acquire()
        taken = super().take(session, request, wants, now)
        return taken + [m for m in seen if m.token not in self.held[session]]


class BlocksEverybodyWhileItWaits(MemoryBroker):
    def wait_and_take(
        self,
        session: str,
        life: int,
        request: str,
        wants: Mapping[str, int],
        wait: float,
        interrupt: Interrupt,
    ) -> list[Message]:
        time.sleep(wait)
        return self.take(session, request, wants, self.clock.monotonic())


class NeverWaits(MemoryBroker):
    def wait_and_take(
        self,
        session: str,
        life: int,
        request: str,
        wants: Mapping[str, int],
        wait: float,
        interrupt: Interrupt,
    ) -> list[Message]:
        return []


class IsNotInterrupted(MemoryStore):
    def interrupt(self) -> None:
        return


class ForgetsAnInterruptThatCameEarly(MemoryStore):
    def interrupt(self) -> None:
        with self.broker.lock:
            self._interrupt.requested = bool(self.broker.waiters)
            self._interrupt.signal.notify_all()


class NoLock:
    """A lock that everybody gets, with what a condition asks of one."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return True

    def release(self) -> None:
        return

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        return

    def _is_owned(self) -> bool:
        return True


class TakesNoLock(MemoryBroker):
    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.lock = cast("threading.Lock", NoLock())

    def number(self) -> int:
        last = self.last
        time.sleep(0)
        self.last = last + 1
        return self.last


class PatientClock(SystemClock):
    """A clock set by hand that the broker takes for the machine's."""

    __slots__ = ("clock",)

    def __init__(self, clock: Clock | None) -> None:
        self.clock = clock or SystemClock()

    def monotonic(self) -> float:
        return self.clock.monotonic()


class SleepsThroughPuts(MemoryBroker):
    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(PatientClock(clock))

    def wake(self, name: str, *, everybody: bool = False) -> None:
        return

    def until_due(self, names: Iterable[str], now: float) -> float:
        return 1e6


# --- collect, inspect, purge -------------------------------------------------------------------


class CountsCollectingAsAnAttempt(MemoryStore):
    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        claims = super().collect(session, limit)
        for claim in claims:
            claim.attempts += 1
        return claims


class CollectsForEverybody(MemoryStore):
    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        claims = super().collect(session, limit)
        self.release([claim.token for claim in claims])
        return claims


class CollectsEverything(MemoryStore):
    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        return super().collect(session, limit + 1)


class CollectsNothing(MemoryStore):
    def collect(self, session: str, limit: int) -> Sequence[Claim]:
        super().collect(session, 0)
        return []


class CountsTheDead(MemoryStore):
    def inspect(self, queue: str) -> Counts:
        counts = super().inspect(queue)
        dead = self.broker.dead.values()
        counts.ready += sum(message.queue == queue for message in dead)
        return counts


class PurgesWhatIsClaimed(MemoryStore):
    def purge(self, queue: str) -> int:
        count = super().purge(queue)
        self.write_table([], drop=[queue])
        return count


class LeavesTheDeadInAPurge(MemoryStore):
    def purge(self, queue: str) -> int:
        with self.broker.lock:
            dead = [m for m in self.broker.dead.values() if m.queue == queue]
            for message in dead:
                self.broker.leave(message)
        count = super().purge(queue) if not dead else 0
        with self.broker.lock:
            for message in dead:
                self.broker.die(message, message.reason)
        return count


# --- table and keys ----------------------------------------------------------------------------


class ReusesVersionsAfterARemoval(MemoryStore):
    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        done = super().write_table(changes, drop)
        for change in changes:
            if done and change.value is not None:
                self.broker.table[change.name].version = change.version + 1
        return done


class WritesTheTableChangeByChange(MemoryStore):
    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        return all(
            super(WritesTheTableChangeByChange, self).write_table([c]) for c in changes
        ) and (super().write_table([], drop))


class DropsMessagesThoughTheChangeFailed(MemoryStore):
    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        super().write_table([], drop)
        return super().write_table(changes)


class DropsOnlyWhatIsUnclaimed(MemoryStore):
    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        done = super().write_table(changes)
        for queue in drop if done else ():
            self.purge(queue)
        return done


class ComparesNoVersions(MemoryStore):
    def write_table(self, changes: Sequence[Change], drop: Sequence[str] = ()) -> bool:
        table = self.read_table()
        current = [
            Change(c.name, table[c.name].version if c.name in table else 0, c.value)
            for c in changes
        ]
        return super().write_table(current, drop)


class SetsKeysWhateverTheirVersion(MemoryStore):
    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        return super().key_set(key, value, ttl=ttl, version=0 if version == 0 else None)


class KeepsKeysForEver(MemoryStore):
    def key_set(
        self, key: str, value: bytes, *, ttl: float | None = None, version: int | None = None
    ) -> int | None:
        return super().key_set(key, value, version=version)


class CountsInTwoSteps(MemoryStore):
    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        found = self.key_get(key)
        if found is None or not found.value.lstrip(b"-").isdigit():
            return super().key_increment(key, amount, ttl=ttl)
        time.sleep(0)
        total = int(found.value) + amount
        self.key_set(key, b"%d" % total)
        return total


class ProlongsCounters(MemoryStore):
    def key_increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        total = super().key_increment(key, amount, ttl=ttl)
        self.key_set(key, b"%d" % total, ttl=ttl)
        return total


BROKER_BUGS: list[type[MemoryBroker]] = [
    ReturnsToTheTail,
    ForgetsAttempts,
    CountsPoliteReturns,
    ForgetsTheDelayOfARelease,
    TakesCollectingBackFromAttempts,
    RevivesTheOverflowed,
    TokensNameMessagesNotClaims,
    TrustsThatAnEntryIsAbsent,
    NeverFindsAVersionStale,
    StoresCopiesOfStaleCauses,
    StoresAnIdAgainOnceItIsClaimed,
    ReplacesWhatIsThereAlready,
    MixesUpperAndLowerCase,
    StoresBodiesAsText,
    IgnoresDelay,
    DelaysABitLess,
    LetsOneMoreIn,
    NeverFindsAQueueFull,
    CountsClaimedMessagesIntoTheLimit,
    LeavesDelayedMessagesOutOfTheLimit,
    DropsTheNewest,
    DeletesTheSurplus,
    TakesOneMoreThanThereIsRoomFor,
    IgnoresPriority,
    TakesTheNewestFirst,
    ClaimsTheExpired,
    ExpiresWhatIsHeld,
    AllowsOneDeliveryMore,
    RevivesTheExpired,
    MovesDueMessagesToTheTail,
    ClaimsCrashersWithOthers,
    ChoosesOutsideTheLock,
    BlocksEverybodyWhileItWaits,
    NeverWaits,
    SleepsThroughPuts,
    TakesNoLock,
]
STORE_BUGS: list[type[MemoryStore]] = [
    LosesWhatACrashedSessionHeld,
    LeavesClaimsWithTheDead,
    EndsSessionsThatBeat,
    CountsLeavingAsACrash,
    BeginsBeatsAtOne,
    StartsAfreshWhenOpenedAgain,
    HeartbeatsMakeSessions,
    HeartbeatsChangeNothing,
    ClaimsForAnybody,
    TruncatesSessionNames,
    IsNotInterrupted,
    ForgetsAnInterruptThatCameEarly,
    OwnsOnlyTheLatest,
    SettlesInSilence,
    AppendsBeforeItSettles,
    SettlesEvenIfItStoresNothing,
    SettlesThoughTheQueueIsFull,
    PutsOneAfterTheOther,
    IgnoresTransactions,
    TakesNewMessagesInARepeat,
    RepeatsEverythingItHolds,
    SettlesForASessionThatIsLost,
    CountsCollectingAsAnAttempt,
    CollectsForEverybody,
    CollectsEverything,
    CollectsNothing,
    CountsTheDead,
    PurgesWhatIsClaimed,
    LeavesTheDeadInAPurge,
    ReusesVersionsAfterARemoval,
    WritesTheTableChangeByChange,
    DropsMessagesThoughTheChangeFailed,
    DropsOnlyWhatIsUnclaimed,
    ComparesNoVersions,
    SetsKeysWhateverTheirVersion,
    KeepsKeysForEver,
    CountsInTwoSteps,
    ProlongsCounters,
]

BUGS: dict[str, tuple[type[MemoryBroker], type[MemoryStore]]] = {
    **{bug.__name__: (bug, MemoryStore) for bug in BROKER_BUGS},
    **{bug.__name__: (MemoryBroker, bug) for bug in STORE_BUGS},
}
# One or two for each thing that the machine is to prove. It finds nearly all of the others too,
# but some only after many runs.
MACHINE_BUGS = [
    "AllowsOneDeliveryMore",
    "ClaimsTheExpired",
    "CollectsForEverybody",
    "CountsPoliteReturns",
    "DeletesTheSurplus",
    "DropsTheNewest",
    "EndsSessionsThatBeat",
    "ForgetsAttempts",
    "IgnoresDelay",
    "IgnoresPriority",
    "LeavesClaimsWithTheDead",
    "LosesWhatACrashedSessionHeld",
    "MovesDueMessagesToTheTail",
    "NeverFindsAQueueFull",
    "PurgesWhatIsClaimed",
    "ReplacesWhatIsThereAlready",
    "ReturnsToTheTail",
    "SettlesInSilence",
    "StoresCopiesOfStaleCauses",
    "TakesNewMessagesInARepeat",
    "TakesOneMoreThanThereIsRoomFor",
    "TokensNameMessagesNotClaims",
    "WritesTheTableChangeByChange",
]


class Suite(StoreSuite):
    """The suite on a store with a bug (or, to test the test, without)."""

    features = FEATURES
    transport = "memory"
    tick = 1.0
    exact = True

    def __init__(self, broker: type[MemoryBroker], store: type[MemoryStore]) -> None:
        self.clock = FakeClock()
        self.opener: OpenStore = functools.partial(store, broker(self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


def suite_tests() -> Iterator[str]:
    """Yield the names of the suite's tests in the order of its parts: quick ones first."""
    for part in StoreSuite.__bases__:
        yield from (name for name in vars(part) if name.startswith("test_"))


def first_failure(make_suite: Callable[[], Suite]) -> str | None:
    """Run each test on a store of its own, and return the name of the first that fails."""
    for name in suite_tests():
        suite = make_suite()
        try:
            bench = StoreBench(suite, suite.opener)
            try:
                getattr(suite, name)(bench)
            finally:
                bench.close()
        except (Exception, pytest.fail.Exception):
            return name
    return None


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_the_suite_notices(bug: str) -> None:
    caught_by = first_failure(lambda: Suite(*BUGS[bug]))
    assert caught_by is not None, f"no test of the suite fails on the store that {bug}"
    print(f"{bug} fails {caught_by}")


class Machine(StoreMachine):
    features = FEATURES
    exact = True

    def __init__(self, bug: str) -> None:
        self.bug = bug
        self.clock = FakeClock()
        super().__init__()

    def open_store(self) -> OpenStore:
        broker, store = BUGS[self.bug]
        return functools.partial(store, broker(self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.mark.parametrize("bug", MACHINE_BUGS)
def test_the_random_machine_notices(bug: str) -> None:
    caught = False
    try:
        run_state_machine_as_test(
            functools.partial(Machine, bug),  # type: ignore[arg-type]  # any factory will do
            settings=settings(
                max_examples=400,
                stateful_step_count=40,
                phases=(Phase.generate,),
                database=None,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception:
        caught = True
    assert caught, f"the random machine found nothing wrong with the store that {bug}"


@pytest.mark.parametrize(
    "lie",
    ["durable", "shared", "transactions"],
)
def test_the_suite_notices_a_feature_that_is_declared_and_missing(lie: str) -> None:
    def make_suite() -> Suite:
        suite = Suite(MemoryBroker, MemoryStore)
        suite.features = replace(FEATURES, **{lie: True})
        return suite

    assert first_failure(make_suite) is not None


@pytest.mark.parametrize("modesty", ["priority", "delay", "key_value"])
def test_the_suite_notices_a_feature_that_is_there_and_denied(modesty: str) -> None:
    def make_suite() -> Suite:
        suite = Suite(MemoryBroker, MemoryStore)
        suite.features = replace(FEATURES, **{modesty: False})
        return suite

    assert first_failure(make_suite) is not None
