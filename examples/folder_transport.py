"""Messages as files in a folder: a whole transport, to be read, tried and copied.

``17.message`` is the body of one message; ``index`` is all else. Each step locks the folder, reads
the index, changes it in memory and renames the new one over the old: in that instant it happens.
What dies before leaves at most files that no index names, for a later step to sweep away.

Not for real work: each step reads the whole index, a waiting claim polls, time is the wall clock of
one machine, and a power cut may lose what an fsync of each file before the rename would keep.
What the methods promise, and all types, stand in `queue_core.transport.Store`.
"""

import contextlib
import errno
import fcntl
import itertools
import time
from pathlib import Path

import msgspec

from queue_core import errors
from queue_core.emulation import StoreTransport
from queue_core.transport import Claim, Claimed, Counts, Entry, Envelope, Features, Lease, PutResult

ERRORS = {errno.ENOSPC: errors.BrokerFull, errno.EACCES: errors.AccessRefused}


class Row(Envelope, kw_only=True):
    """A message: its envelope, but for the body, and what became of it."""

    file: str  # has the body
    since: float  # when it was put
    attempts: int = 0
    crashes: int = 0
    reason: str = ""  # why it is dead, once that was noted
    token: int = 0  # of the claim that holds it
    session: str = ""
    request: str = ""

    def state(self):
        """Return ``claimed``, ``ready``, ``delayed`` or ``dead``, and note why it is dead."""
        age = time.time() - self.since
        if self.token:
            return "claimed"
        if not self.reason and self.ttl is not None and self.ttl <= age:
            self.reason = "expired"
        if not self.reason and 0 < self.max_deliveries <= self.attempts:
            self.reason = "delivery_limit"
        return "dead" if self.reason else "delayed" if age < self.delay else "ready"

    def let_go(self, counted, delay=0.0):
        self.attempts -= 0 if counted or self.reason else 1  # to collect the dead is no attempt
        self.token, self.delay = 0, time.time() - self.since + delay


class Index(msgspec.Struct):
    """All that changes. The messages are in their order: by priority, then as they were put."""

    last: int = 0
    rows: list[Row] = []
    leases: dict[str, Lease] = {}
    born: dict[str, int] = {}  # tells a session from a later one of the same name
    answered: dict[str, str] = {}  # session -> its last request that took something
    table: dict[str, Entry] = {}

    def number(self):
        """Return a number never used before: for a file, a token, a beat or a version."""
        self.last += 1
        return self.last

    def find(self, queue, *states):
        return [row for row in self.rows if row.queue == queue and row.state() in states]

    def held(self, session=None):
        """Return token -> message of all that is held, or of what one session holds."""
        return {r.token: r for r in self.rows if r.token and session in (None, r.session)}

    def settle(self, tokens):
        """Forget messages for ever; return the stale tokens."""
        settled = self.held().keys() & set(tokens)
        self.rows = [row for row in self.rows if row.token not in settled]
        return [token for token in tokens if token not in settled]

    def stale(self, versions):
        known = {name: entry.version for name, entry in self.table.items()}
        return [name for name, version in versions.items() if known.get(name, 0) != version]


class FolderStore:
    """One handle. It keeps nothing open between two steps, so that nothing can be lost."""

    def __init__(self, folder):
        self.folder, self.index = Path(folder), Path(folder, "index")

    @contextlib.contextmanager
    def step(self):
        """Lock the folder, hand out its index, and at the end make true what was changed in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "lock", "w") as lock, contextlib.ExitStack() as at_end:
                fcntl.flock(lock, fcntl.LOCK_EX)
                at_end.callback(fcntl.flock, lock, fcntl.LOCK_UN)  # whoever was forked has it open
                old = self.index.read_bytes() if self.index.exists() else b"{}"
                yield (index := msgspec.json.decode(old, type=Index))
                if (new := msgspec.json.encode(index)) != old:
                    self.index.with_suffix(".new").write_bytes(new)
                    self.index.with_suffix(".new").replace(self.index)
                    named = {self.folder / row.file for row in index.rows}
                    for file in set(self.folder.glob("*.message")) - named:
                        file.unlink()
        except msgspec.MsgspecError as error:
            raise errors.StoreCorrupt(f"{self.folder}: {error}") from error
        except OSError as error:
            raise ERRORS.get(error.errno, errors.ConnectionLost)(str(error)) from error

    def hand_out(self, index, rows, session, request=""):
        """Give messages to the session; return them as claims, with their bodies."""
        if session not in index.leases:
            raise errors.SessionLost(f"there is no session {session!r}")
        claims = []
        for row in rows:
            row.token, row.session, row.request = row.token or index.number(), session, request
            claims.append(msgspec.convert(row, Claim, from_attributes=True))  # all that they share
            claims[-1].body = (self.folder / row.file).read_bytes()
        return claims

    def take(self, index, session, request, wants):
        """Claim the best of each queue; what crashed twice, alone."""
        taken = []
        for queue, room in wants.items():
            ready = index.find(queue, "ready")
            safe = list(itertools.takewhile(lambda row: row.crashes < 2, ready))
            taken += (safe or ready[:1])[:room]
        for row in taken:
            row.attempts += 1
            index.answered[session] = request
        return self.hand_out(index, taken, session, request)

    def open_session(self, session, lease):
        with self.step() as index:
            index.leases[session] = Lease(lease, index.number())
            index.born.setdefault(session, index.last)

    def heartbeat(self, sessions):
        with self.step() as index:
            for name in index.leases.keys() & set(sessions):
                index.leases[name].beats = index.number()
            return [name for name in sessions if name not in index.leases]

    def sessions(self):
        with self.step() as index:
            return index.leases

    def end_session(self, session, beats=None):
        with self.step() as index:
            lease, crashed = index.leases.get(session), beats is not None
            if lease is None or (crashed and beats != lease.beats):
                return False
            for known in (index.leases, index.born, index.answered):
                known.pop(session, None)
            for row in index.held(session).values():
                row.crashes += crashed
                row.let_go(counted=crashed)
            return True

    def put(self, batch, versions, *, settle=(), limits={}, transaction=None):  # noqa: B006
        if transaction is not None:
            raise errors.Unsupported("transactions", "folder")
        with self.step() as index:
            if stale := index.stale(versions):
                return PutResult(stale_entries=stale)
            before, causes = index.rows, {None, *index.held()}
            sizes = {queue: len(index.find(queue, "ready", "delayed")) for queue in limits}
            stale, already, full, surplus = index.settle(settle), [], [], []
            there = {(row.queue, row.id) for row in index.rows}
            for position, new in enumerate(batch):
                key = (new.queue, new.id)
                if new.cause in causes and key in there:
                    already.append(position)
                elif new.cause in causes:
                    there.add(key)
                    file, known = f"{index.number()}.message", msgspec.structs.asdict(new)
                    (self.folder / file).write_bytes(known.pop("body"))
                    index.rows.append(Row(**known, body=b"", file=file, since=time.time()))
            index.rows.sort(key=lambda row: -row.priority)
            for queue, limit in limits.items():
                waiting = index.find(queue, "ready", "delayed")
                if limit.overflow == "drop-head":
                    waiting.sort(key=lambda row: row.priority)
                    surplus += waiting[: max(0, len(waiting) - limit.max_length)]
                elif len(waiting) > max(limit.max_length, sizes[queue]):
                    full.append(queue)
            if full:
                index.rows = before  # as if nothing had happened
                return PutResult(full=full)
            for row in surplus:
                row.reason = "maxlen"
            return PutResult(already=already, stale_tokens=stale)

    def claim(self, session, request, wants, wait, *, settle=(), repeat=False):
        end = time.monotonic() + wait
        with self.step() as index:
            born, stale = index.born.get(session), index.settle(settle)
            mine = [row for row in index.held(session).values() if row.request == request]
            if repeat and (mine or index.answered.get(session) == request):
                return Claimed(self.hand_out(index, mine, session, request), stale)
            claims = self.take(index, session, request, wants)
        while not claims and time.monotonic() < end:
            time.sleep(0.01)
            with self.step() as index:
                if index.born.get(session) == born:
                    claims = self.take(index, session, request, wants)
        return Claimed(claims, stale)

    def owned(self, session):
        with self.step() as index:
            return list(index.held(session))

    def release(self, tokens, *, delay=0.0, counted=True):
        with self.step() as index:
            held = index.held()
            for token in held.keys() & set(tokens):
                held[token].let_go(counted, delay)
            return [token for token in tokens if token not in held]

    def collect(self, session, limit):
        with self.step() as index:
            dead = [row for row in index.rows if row.state() == "dead"]
            return self.hand_out(index, dead[:limit], session)

    def inspect(self, queue):
        with self.step() as index:
            return Counts(*(len(index.find(queue, s)) for s in ("ready", "delayed", "claimed")))

    def purge(self, queue):
        with self.step() as index:
            before = len(index.rows)
            index.rows = [row for row in index.rows if row.token or row.queue != queue]
            return before - len(index.rows)

    def read_table(self, names=None):
        with self.step() as index:
            return {n: entry for n, entry in index.table.items() if names is None or n in names}

    def write_table(self, changes, drop=()):
        with self.step() as index:
            if index.stale({change.name: change.version for change in changes}):
                return False
            for change in changes:
                index.table.pop(change.name, None)
                if change.value is not None:
                    index.table[change.name] = Entry(index.number(), change.value)
            index.rows = [row for row in index.rows if row.queue not in drop]
            return True

    def close(self):
        pass


def check(url):
    url.check_options(())
    if url.host or not url.database:
        raise errors.ConfigError(f"{url}: write folder:///relative or folder:////absolute/path")


FEATURES = Features(durable=True, shared=True, priority=True, delay=True)
transport = StoreTransport("folder", FEATURES, lambda url, _: FolderStore(url.database), check)
