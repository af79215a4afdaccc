"""A random user of a store, compared call by call with the model.

Subclass `StoreMachine`, and let pytest run its ``TestCase``::

    class Machine(StoreMachine):
        features = FEATURES

        def open_store(self):
            return functools.partial(MemoryStore, MemoryBroker())

    TestMachine = Machine.TestCase
    TestMachine.settings = settings(MACHINE_SETTINGS, max_examples=100)

hypothesis makes up runs of puts, claims, crashes, lost replies and the rest, and shortens one that
fails to the few calls that are needed. After every call the whole visible state is compared with
`StoreModel`. That proves conservation (what was stored is ready, delayed, claimed or dead, or was
settled or deleted, and nothing else exists), that nobody gets what another holds nor more than
there is room for, fencing (a token is stale if and only if the model says so), order, and the count
of attempts. At the end of each run everything is drained, and nothing may be left.

With ``exact`` time passes only in ``advance``, and a run goes through expiry and delays. Otherwise
time is taken to stand still: delays and ttls are either zero or too long to matter.
"""
# ruff: noqa: D102 - the names of rules are sentences

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_core.errors import SessionLost
from queue_core.message import Token
from queue_core.testing.model import ModelMessage, StoreModel
from queue_core.transport import Change, Claim, Envelope, Features, Limit, Store

MACHINE_SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For a start: a store takes its time."""

QUEUES = ("one", "two")
SESSIONS = ("red", "green", "blue")
ENTRIES = ("x", "y")
NEVER = 3000.0

queues = st.sampled_from(QUEUES)
sessions = st.sampled_from(["red", "red", "red", *SESSIONS])
entries = st.sampled_from(ENTRIES)
rarely = st.sampled_from([False, False, False, False, True])
picks = st.lists(st.integers(0, 12), max_size=4)
some_picks = st.lists(st.integers(0, 12), min_size=1, max_size=4)
rooms = st.fixed_dictionaries({queue: st.sampled_from([0, 1, 2, 3, 8]) for queue in QUEUES})
limits = st.dictionaries(
    queues,
    st.builds(Limit, st.integers(0, 4), st.sampled_from(["drop-head", "reject-publish"])),
    min_size=1,
)
envelopes = st.builds(
    Envelope,
    queue=queues,
    id=st.integers(0, 8).map(lambda number: f"id-{number}"),
    body=st.binary(max_size=3),
    properties=st.binary(max_size=2),
    priority=st.sampled_from([0, 0, 0, 1, 9]),
    delay=st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0]),
    ttl=st.sampled_from([None, None, None, 0.0, 2.0, 8.0]),
    max_deliveries=st.sampled_from([0, 0, 1, 2, 3]),
    cause=st.one_of(st.none(), st.none(), st.integers(0, 30)),
)
batches = st.lists(envelopes, min_size=1, max_size=5)


class StoreMachine(RuleBasedStateMachine):
    """The random user. One instance makes one run, on one empty store.

    Attributes:
        features: what the store declares; the run does not ask for what is missing.
        exact: time passes only in ``advance``.
    """

    features: ClassVar[Features]
    exact: ClassVar[bool] = False

    def open_store(self) -> Callable[[], Store]:
        """Return what opens one more handle on a store that is empty and nobody else's."""
        raise NotImplementedError(f"{type(self).__name__} needs open_store()")

    def advance(self, seconds: float) -> None:
        """Let time pass; only with ``exact``."""
        raise NotImplementedError(f"{type(self).__name__} is exact and needs advance()")

    def __init__(self) -> None:
        super().__init__()
        self.model = StoreModel()
        self.tokens: list[Token] = []
        self.requests: list[tuple[str, str]] = []
        self.handles: list[Store] = []
        self.turn = 0

    @property
    def store(self) -> Store:
        """One of the handles, another one each time: they must not differ."""
        self.turn += 1
        return self.handles[self.turn % len(self.handles)]

    @initialize(batch=batches)
    def begin(self, batch: list[Envelope]) -> None:
        open_one = self.open_store()
        self.handles = [open_one(), open_one()]
        self.open_a_session("red")
        self.open_a_session("green")
        self._put(batch)

    # what one run does

    @rule(session=sessions)
    def open_a_session(self, session: str) -> None:
        self.store.open_session(session, 30.0)
        self.model.sessions.add(session)

    @rule(names=st.lists(sessions, max_size=3, unique=True))
    def beat(self, names: list[str]) -> None:
        before = self.store.sessions()
        unknown = self.store.heartbeat(names)
        after = self.store.sessions()
        assert set(unknown) == set(names) - self.model.sessions
        for session in self.model.sessions:
            assert (after[session].beats != before[session].beats) == (session in names)

    @rule(session=sessions, again=st.booleans())
    def leave(self, session: str, again: bool) -> None:
        assert self.store.end_session(session) == (session in self.model.sessions)
        self.model.end_session(session, crashed=False)
        if again:
            self.open_a_session(session)

    @rule(session=sessions, beaten=rarely, again=st.booleans())
    def crash(self, session: str, beaten: bool, again: bool) -> None:
        lease = self.store.sessions().get(session)
        if lease is None:
            assert not self.store.end_session(session, 1)
            return
        if beaten:
            self.store.heartbeat([session])
            assert not self.store.end_session(session, lease.beats)
            return
        assert self.store.end_session(session, lease.beats)
        self.model.end_session(session, crashed=True)
        if again:
            self.open_a_session(session)

    @rule(batch=batches)
    def put(self, batch: list[Envelope]) -> None:
        self._put(batch)

    @rule(batch=batches, settle=picks, with_causes=st.booleans())
    def put_and_settle(self, batch: list[Envelope], settle: list[int], with_causes: bool) -> None:
        self._put(batch, settle=settle, with_causes=with_causes)

    @rule(batch=batches, limits=limits, settle=picks)
    def put_within_limits(
        self, batch: list[Envelope], limits: dict[str, Limit], settle: list[int]
    ) -> None:
        self._put(batch, limits=limits, settle=settle)

    @rule(batch=batches, settle=picks, known=st.lists(entries, unique=True), outdated=rarely)
    def put_for_a_topology(
        self, batch: list[Envelope], settle: list[int], known: list[str], outdated: bool
    ) -> None:
        versions = {name: self.model.table.get(name, (0, b""))[0] for name in known}
        if outdated and known:
            versions[known[-1]] = 0 if versions[known[-1]] else 1
        self._put(batch, versions=versions, settle=settle)

    def _put(
        self,
        batch: list[Envelope],
        *,
        versions: Mapping[str, int] = {},
        settle: Sequence[int] = (),
        with_causes: bool = True,
        limits: Mapping[str, Limit] = {},
    ) -> None:
        batch = [self._possible(envelope) for envelope in batch]
        tokens = self._tokens(settle)
        if with_causes:
            causes = [envelope.cause for envelope in batch if envelope.cause is not None]
            tokens = list(dict.fromkeys([*tokens, *causes]))
        result = self.store.put(batch, versions, settle=tokens, limits=limits)
        effect = self.model.put(batch, versions, tokens, limits)
        assert set(result.stale_entries) == effect.stale_entries
        assert set(result.full) == effect.full
        assert list(result.already) == effect.already
        assert set(result.stale_tokens) == effect.stale_tokens

    @rule(session=sessions, wants=rooms)
    def claim(self, session: str, wants: dict[str, int]) -> None:
        self._claim(session, wants)

    @rule(session=sessions, wants=rooms, settle=picks)
    def claim_and_settle(self, session: str, wants: dict[str, int], settle: list[int]) -> None:
        self._claim(session, wants, settle=settle)

    @rule(session=sessions, wants=rooms, settle=picks)
    def claim_and_lose_the_reply(
        self, session: str, wants: dict[str, int], settle: list[int]
    ) -> None:
        self._claim(session, wants, settle=settle, lost=True)

    def _claim(
        self,
        session: str,
        wants: dict[str, int],
        *,
        settle: Sequence[int] = (),
        lost: bool = False,
    ) -> None:
        request = f"request-{len(self.requests)}"
        tokens = self._tokens(settle)
        if session not in self.model.sessions:
            self._is_lost(lambda: self.store.claim(session, request, wants, 0.0, settle=tokens))
            return
        stale = self.model.stale(tokens)
        self.model.settle(tokens)
        expected = {queue: self.model.next_messages(queue, wants[queue]) for queue in QUEUES}
        answer = self.store.claim(session, request, wants, 0.0, settle=tokens)
        assert set(answer.stale_tokens) == stale
        if lost and answer.claims:
            answer = self.store.claim(session, request, wants, 0.0, settle=tokens, repeat=True)
        self.requests.append((session, request))
        for queue, messages in expected.items():
            claims = [claim for claim in answer.claims if claim.queue == queue]
            assert [claim.id for claim in claims] == [m.envelope.id for m in messages]
            for message, claim in zip(messages, claims, strict=True):
                self._is_new(claim.token)
                self.model.claimed(message, session, request, claim)
                self._is_of(claim, message)
                assert claim.reason == ""
        assert len(answer.claims) == sum(len(messages) for messages in expected.values())

    @precondition(lambda self: self.requests)
    @rule(pick=st.integers(0, 3))
    def repeat_an_earlier_claim(self, pick: int) -> None:
        session, request = self.requests[-1 - pick % len(self.requests)]
        expected = self.model.taken_by(session, request)
        if session not in self.model.sessions or not expected:
            return
        answer = self.store.claim(session, request, dict.fromkeys(QUEUES, 5), 0.0, repeat=True)
        assert {claim.token for claim in answer.claims} == {m.token for m in expected}

    @rule(picks=some_picks, delay=st.sampled_from([0.0, 0.0, 1.0, 5.0]), counted=st.booleans())
    def release(self, picks: list[int], delay: float, counted: bool) -> None:
        tokens = self._tokens(picks)
        delay = self._possible_delay(delay)
        stale = self.model.stale(tokens)
        assert set(self.store.release(tokens, delay=delay, counted=counted)) == stale
        for token in tokens:
            if message := self.model.held(token):
                self.model.release(message, delay=delay, counted=counted)

    @rule(session=sessions, limit=st.integers(1, 5))
    def collect(self, session: str, limit: int) -> None:
        if session not in self.model.sessions:
            self._is_lost(lambda: self.store.collect(session, limit))
            return
        dead = {(m.envelope.queue, m.envelope.id): m for m in self.model.dead()}
        claims = self.store.collect(session, limit)
        assert len(claims) == min(limit, len(dead))
        for claim in claims:
            message = dead.pop((claim.queue, claim.id))
            self._is_new(claim.token)
            assert claim.reason in message.reasons(self.model.now)
            self.model.collected(message, session, claim)
            self._is_of(claim, message)

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        assert self.store.purge(queue) == self.model.purge(queue)

    @rule(
        changes=st.dictionaries(entries, st.one_of(st.none(), st.binary(max_size=2)), max_size=2),
        outdated=rarely,
        drop=st.lists(queues, max_size=1),
    )
    def change_the_table(
        self, changes: Mapping[str, bytes | None], outdated: bool, drop: Sequence[str]
    ) -> None:
        known = {name: self.model.table.get(name, (0, b""))[0] for name in changes}
        if outdated and known:
            known[list(known)[-1]] += 1
        wanted = [Change(name, known[name], value) for name, value in changes.items()]
        done = self.store.write_table(wanted, drop)
        assert done == (not (outdated and known))
        if not done:
            return
        table = self.store.read_table()
        for name, value in changes.items():
            self.model.table.pop(name, None)
            if value is not None:
                assert table[name].version != known[name]
                self.model.table[name] = (table[name].version, value)
        for queue in drop:
            self.model.drop(queue)

    @precondition(lambda self: self.exact)
    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.advance(seconds)
        self.model.now += seconds

    # what must be true after each call

    @invariant()
    def the_store_looks_like_the_model(self) -> None:
        if not self.handles:
            return
        store = self.store
        for queue in QUEUES:
            assert store.inspect(queue) == self.model.counts(queue)
        assert set(store.sessions()) == self.model.sessions
        for session in SESSIONS:
            owned = list(store.owned(session))
            assert len(owned) == len(set(owned))
            assert set(owned) == {message.token for message in self.model.owned(session)}
        table = {name: (e.version, e.value) for name, e in store.read_table().items()}
        assert table == self.model.table

    def teardown(self) -> None:
        """Drain the store: all that the model knows must come out, and then nothing may be left."""
        try:
            if self.handles:
                self._drain()
        finally:
            for handle in self.handles:
                handle.close()

    def _drain(self) -> None:
        store = self.store
        for session in SESSIONS:
            if session in self.model.sessions:
                self.leave(session, again=False)
        self.open_a_session("red")
        found: set[tuple[str, str]] = set()
        expected = {
            (m.envelope.queue, m.envelope.id)
            for m in self.model.messages
            if m.due <= self.model.now or m.reasons(self.model.now)
        }
        while claims := [
            *store.claim("red", f"drain-{len(found)}", dict.fromkeys(QUEUES, 100), 0.0).claims,
            *store.collect("red", 100),
        ]:
            came = {(claim.queue, claim.id) for claim in claims}
            assert len(came) == len(claims) and not came & found, "something came twice"
            found |= came
            store.put([], {}, settle=[claim.token for claim in claims])
        assert found == expected
        for queue in QUEUES:
            counts = store.inspect(queue)
            assert (counts.ready, counts.claimed) == (0, 0)
            assert store.purge(queue) == counts.delayed

    # drawing and comparing

    def _tokens(self, picks: Sequence[int]) -> list[Token]:
        """Turn numbers into tokens that were seen, the newest first, each at most once."""
        if not self.tokens:
            return []
        chosen = [self.tokens[-1 - pick % len(self.tokens)] for pick in picks]
        return list(dict.fromkeys(chosen))

    def _possible(self, drawn: Envelope) -> Envelope:
        """Make of a drawn envelope one that this store can take."""
        cause = self._tokens([drawn.cause])[0] if drawn.cause is not None and self.tokens else None
        ttl = drawn.ttl if self.exact or not drawn.ttl else NEVER
        return Envelope(
            drawn.queue,
            drawn.id,
            drawn.body,
            drawn.properties,
            priority=drawn.priority if self.features.priority else 0,
            delay=self._possible_delay(drawn.delay),
            ttl=ttl,
            max_deliveries=drawn.max_deliveries,
            cause=cause,
        )

    def _possible_delay(self, delay: float) -> float:
        if not self.features.delay:
            return 0.0
        return delay if self.exact or not delay else NEVER

    def _is_of(self, claim: Claim, message: ModelMessage) -> None:
        envelope = message.envelope
        assert (claim.body, claim.properties) == (envelope.body, envelope.properties)
        assert (claim.priority, claim.attempts) == (envelope.priority, message.attempts)

    def _is_new(self, token: Token) -> None:
        assert token not in self.tokens, "a token was used twice"
        self.tokens.append(token)

    def _is_lost(self, call: Callable[[], object]) -> None:
        try:
            call()
        except SessionLost:
            return
        raise AssertionError("a session that does not exist was served")
