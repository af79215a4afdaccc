"""Messages as files in a folder: a whole transport, to be read, tried and copied.

``17.message`` is the content of one message. ``index`` is all that changes: the order of the
messages, who holds them, the sessions, the topology. Each step locks the folder, reads the index,
changes it in memory and renames a new one over the old; in that instant it happens, and whatever
dies before has changed nothing. Files that the index does not name are swept away.

Not for real work: each step scans everything, a waiting claim polls, and time is the wall clock of
one machine. A stored message outlives every process, but not a power cut: that would take an fsync
of each file before the rename. What the methods promise, and all types, stand in `Store`.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from queue_core import errors
from queue_core.emulation import StoreTransport
from queue_core.transport import Claim, Claimed, Counts, Entry, Envelope, Features, Lease, PutResult

ERRORS = {errno.ENOSPC: errors.BrokerFull, errno.EACCES: errors.AccessRefused}


class Row(Envelope, kw_only=True):
    """A message: its envelope, but for the content, and what became of it."""

    place: int
    since: float  # when it was put
    attempts: int = 0
    crashes: int = 0
    reason: str = ""  # why it is dead, once that was noted
    token: int = 0  # of the claim that holds it
    session: str = ""
    request: str = ""

    def state(self):
        """Return ``claimed``, ``ready``, ``delayed``, or why it is dead."""
        age = time.time() - self.since
        if self.token or self.reason:
            return "claimed" if self.token else self.reason
        if self.ttl is not None and self.ttl <= age:
            return "expired"
        if 0 < self.max_deliveries <= self.attempts:
            return "delivery_limit"
        return "delayed" if age < self.delay else "ready"

    def let_go(self, counted, delay=0.0):
        """Return it to its place. Collecting the dead was no attempt: there is none to undo."""
        self.attempts -= 0 if counted or self.reason else 1
        self.token, self.delay = 0, time.time() - self.since + delay


class Session(msgspec.Struct):
    """A session; ``born`` tells it from a later one of the same name."""

    lease: Lease
    born: int
    request: str = ""  # the last one that took something


class Index(msgspec.Struct):
    """Messages in the order of their puts, sessions, and the topology table."""

    last: int = 0
    rows: list[Row] = []
    sessions: dict[str, Session] = {}
    table: dict[str, Entry] = {}

    def number(self):
        """Return a number never used before: a place, a token, a beat or a version."""
        self.last += 1
        return self.last

    def session(self, name):
        if name not in self.sessions:
            raise errors.SessionLost(f"there is no session {name!r}")
        return self.sessions[name]

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

    def __init__(self, folder: Path):
        self.folder = folder

    @contextlib.contextmanager
    def step(self) -> Iterator[Index]:
        """Lock the folder, hand out its index, and at the end make true what was changed in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock, path = os.open(self.folder, os.O_RDONLY), self.folder / "index"
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                old = path.read_bytes() if path.exists() else b"{}"
                yield (index := msgspec.json.decode(old, type=Index))
                if (new := msgspec.json.encode(index)) != old:
                    (self.folder / "index.new").write_bytes(new)
                    os.replace(self.folder / "index.new", path)
                    named = {self.file(row) for row in index.rows}
                    for file in set(self.folder.glob("*.message")) - named:
                        file.unlink()
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # to close it is not enough if a fork has a copy
                os.close(lock)
        except msgspec.MsgspecError as error:
            raise errors.StoreCorrupt(f"{self.folder}: {error}") from error
        except OSError as error:
            raise ERRORS.get(error.errno, errors.ConnectionLost)(str(error)) from error

    def file(self, row):
        return self.folder / f"{row.place}.message"

    def hand_out(self, index, rows, session, request=""):
        """Give messages to the session; return them as claims, with their content."""
        claims = []
        for row in rows:
            row.token, row.session, row.request = row.token or index.number(), session, request
            content = msgspec.msgpack.decode(self.file(row).read_bytes())
            known = (row.attempts, row.priority, row.reason)
            claims.append(Claim(row.token, row.queue, row.id, *content, *known))
        return claims

    def take(self, index, session, request, wants):
        """Claim the best of each queue; what crashed twice, alone."""
        taken = []
        for queue, room in wants.items():
            ready = sorted(index.find(queue, "ready"), key=lambda row: -row.priority)
            safe = list(itertools.takewhile(lambda row: row.crashes < 2, ready))
            taken += (safe or ready[:1])[:room]
        for row in taken:
            row.attempts += 1
            index.sessions[session].request = request
        return self.hand_out(index, taken, session, request)

    def open_session(self, session, lease):
        with self.step() as index:
            beats = index.number()
            known = index.sessions.setdefault(session, Session(Lease(lease, beats), beats))
            known.lease = Lease(lease, beats)

    def heartbeat(self, sessions):
        with self.step() as index:
            for name in index.sessions.keys() & set(sessions):
                index.sessions[name].lease.beats = index.number()
            return [name for name in sessions if name not in index.sessions]

    def sessions(self):
        with self.step() as index:
            return {name: session.lease for name, session in index.sessions.items()}

    def end_session(self, session, beats=None):
        with self.step() as index:
            known = index.sessions.get(session)
            if known is None or beats not in (None, known.lease.beats):
                return False
            del index.sessions[session]
            for row in index.held(session).values():
                row.crashes += beats is not None
                row.let_go(counted=beats is not None)
            return True

    def put(self, batch, versions, *, settle=(), limits: Mapping = {}, transaction=None):
        if transaction is not None:
            raise errors.Unsupported("transactions", "folder")
        with self.step() as index:
            if stale := index.stale(versions):
                return PutResult(stale_entries=stale)
            before, held = index.rows, index.held()
            stale = index.settle(settle)
            there = {(row.queue, row.id) for row in index.rows}
            new, already = {}, []
            for position, envelope in enumerate(batch):
                key = (envelope.queue, envelope.id)
                if envelope.cause is not None and envelope.cause not in held:
                    continue
                if key in there or key in new:
                    already.append(position)
                else:
                    fields = msgspec.structs.asdict(envelope)
                    new[key] = Row(**fields, place=index.number(), since=time.time())
            index.rows += new.values()
            surplus = {}
            for queue, limit in limits.items():
                waiting = index.find(queue, "ready", "delayed")
                waiting.sort(key=lambda row: row.priority)
                surplus[queue] = waiting[: max(0, len(waiting) - limit.max_length)]
            full = [q for q in surplus if surplus[q] and limits[q].overflow == "reject-publish"]
            if full:
                index.rows = before  # as if nothing had happened
                return PutResult(full=full)
            for row in itertools.chain(*surplus.values()):
                row.reason = "maxlen"
            for row in new.values():
                self.file(row).write_bytes(msgspec.msgpack.encode((row.body, row.properties)))
                row.body = row.properties = b""
            return PutResult(already=already, stale_tokens=stale)

    def claim(self, session, request, wants, wait, *, settle=(), repeat=False):
        end = time.monotonic() + wait
        with self.step() as index:
            known = index.session(session)
            stale = index.settle(settle)
            mine = [row for row in index.held(session).values() if row.request == request]
            if repeat and (mine or known.request == request):
                return Claimed(self.hand_out(index, mine, session, request), stale)
            claims = self.take(index, session, request, wants)
        while not claims and time.monotonic() < end:
            time.sleep(0.01)
            with self.step() as index:
                now = index.sessions.get(session)
                if now is None or now.born != known.born:
                    break
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
            index.session(session)
            alive = ("claimed", "ready", "delayed")
            dead = [row for row in index.rows if row.state() not in alive][:limit]
            for row in dead:
                row.reason = row.state()
            return self.hand_out(index, dead, session)

    def inspect(self, queue):
        with self.step() as index:
            return Counts(*(len(index.find(queue, s)) for s in ("ready", "delayed", "claimed")))

    def purge(self, queue):
        with self.step() as index:
            kept = [row for row in index.rows if row.token or row.queue != queue]
            count, index.rows = len(index.rows) - len(kept), kept
            return count

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
        raise errors.ConfigError(
            f"{url}: write folder:///relative/path or folder:////absolute/path"
        )


FEATURES = Features(durable=True, shared=True, priority=True, delay=True)
transport = StoreTransport(
    "folder", FEATURES, lambda url, _: FolderStore(Path(url.database)), check
)
