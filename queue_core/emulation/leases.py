"""Whose lease is over, and whether ours may be: pure rules on the watcher's own monotonic clock.

A session lives as long as its ``beats`` change. No clock but the watcher's decides: `Watch` sees
every session from time to time, and one whose beats stood still for its whole lease may be ended
(with those beats, so that a heartbeat that comes first saves it).

The grace: the lease counts only while the watcher saw the store without a gap. If the store, the
network or the watcher itself paused, nobody could beat or be seen to beat, and the count starts
again; so a paused broker kills nobody. Nor does one that can be read and not written (a full disk,
a foreign transaction): while the watcher's own beats stand still, so may everybody's.

`Fence` is the other side: whoever cannot confirm its own heartbeat hands out nothing new, since
others may have taken its messages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from queue_core.transport import Lease

__all__ = ["COLLECT", "CONSUMER", "QUEUE", "REST", "Fence", "Names", "Watch"]

GAP: Final = 1 / 3
"""The part of a lease for which a session may go unseen; a longer gap starts its count again."""

LOOK: Final = 1 / 10
"""The part of the shortest lease after which a watcher looks again."""

SHORTEST_LOOK: Final = 0.05
LONGEST_LOOK: Final = 3.0

NODE: Final = "node:"
CONSUMER: Final = "consumer:"
QUEUE: Final = "queue:"
COLLECT: Final = "collect:"
REST: Final = "rest:"


class Names:
    r"""How sessions are named: what one is for can be read from its name.

    ``conn:<uid>`` or ``node:<node>:<uid>`` is a connection, ``collect:<uid>`` holds its dead
    letters, ``consumer:<queue>\n<uid of the connection>.<number>`` is one subscription,
    ``queue:<queue>\n<uid of the queue>`` keeps a queue alive that deletes itself, and
    ``rest:<queue>\n<uid of the queue>`` stands for what a deleted one has left.
    """

    @staticmethod
    def main(node: str, uid: str) -> str:
        """Return the name of a connection's own session."""
        return f"{NODE}{node}:{uid}" if node else f"conn:{uid}"

    @staticmethod
    def collect(uid: str) -> str:
        """Return the name of the session that holds a connection's dead letters."""
        return f"{COLLECT}{uid}"

    @staticmethod
    def consumer(queue: str, uid: str, number: int) -> str:
        """Return the name of one subscription of the connection ``uid``."""
        return f"{CONSUMER}{queue}\n{uid}.{number}"

    @staticmethod
    def queue(queue: str, uid: str) -> str:
        """Return the name of the session of a queue."""
        return f"{QUEUE}{queue}\n{uid}"

    @staticmethod
    def rest(queue: str, uid: str) -> str:
        """Return the name of the session of what a deleted queue has left."""
        return f"{REST}{queue}\n{uid}"

    @staticmethod
    def node_of(session: str) -> tuple[str, str]:
        """Return node and uid of a connection's session; both are empty for other sessions."""
        kind, _, rest = session.partition(":")
        node, _, uid = rest.rpartition(":")
        return (node, uid) if kind in ("conn", "node") else ("", "")

    @staticmethod
    def queue_of(session: str) -> tuple[str, str]:
        """Return queue name and uid of a ``consumer:``, ``queue:`` or ``rest:`` session."""
        name, _, uid = session.partition(":")[2].partition("\n")
        return name, uid

    @staticmethod
    def consumers(sessions: Collection[str], queue: str) -> list[str]:
        """Return those of ``sessions`` that consume from ``queue``."""
        prefix = f"{CONSUMER}{queue}\n"
        return [name for name in sessions if name.startswith(prefix)]


class _Seen(msgspec.Struct):
    beats: int
    seconds: float
    since: float


class Watch:
    """What one watcher knows of all sessions. Used by one thread."""

    __slots__ = ("_last", "_own", "_own_beat", "_seen")

    def __init__(self) -> None:
        """Begin having seen nothing."""
        self._seen: dict[str, _Seen] = {}
        self._last: float | None = None
        self._own: dict[str, int] = {}
        self._own_beat = 0.0  # when our own beats were seen to change

    def observe(
        self,
        sessions: Mapping[str, Lease],
        started: float,
        finished: float,
        *,
        ours: Collection[str] = (),
    ) -> list[tuple[str, int]]:
        """Take note of ``sessions``; return name and beats of those that may be ended.

        Args:
            sessions: as `Store.sessions` told them.
            started, finished: monotonic seconds before and after asking.
            ours: sessions that the watcher itself keeps alive; they are never returned.
        """
        gap = 0.0 if self._last is None else finished - self._last
        self._last = finished
        stuck = self._is_stuck(
            {name: sessions[name] for name in ours if name in sessions}, finished
        )
        seen: dict[str, _Seen] = {}
        over = []
        for name, lease in sessions.items():
            if name in ours:
                continue
            before = self._seen.get(name)
            if (
                before is None
                or stuck
                or before.beats != lease.beats
                or gap > max(lease.seconds * GAP, 2 * SHORTEST_LOOK)
            ):
                before = _Seen(lease.beats, lease.seconds, finished)
            seen[name] = before
            if started - before.since >= lease.seconds:
                over.append((name, lease.beats))
        self._seen = seen
        return over

    def _is_stuck(self, own: Mapping[str, Lease], now: float) -> bool:
        """Whether even our own beats do not reach the store."""
        beats = {name: lease.beats for name, lease in own.items()}
        if beats != self._own:
            self._own, self._own_beat = beats, now
        patience = min((lease.seconds for lease in own.values()), default=0.0) / 2
        return bool(own) and now - self._own_beat > max(patience, 2 * SHORTEST_LOOK)

    def interval(self) -> float:
        """Return the seconds until the next look."""
        shortest = min((item.seconds for item in self._seen.values()), default=LONGEST_LOOK / LOOK)
        return min(LONGEST_LOOK, max(SHORTEST_LOOK, shortest * LOOK))

    def next_look(self, now: float) -> float:
        """Return when to look again: at the next interval, or when the first lease may be over."""
        soonest = now + self.interval()
        ends = [item.since + item.seconds for item in self._seen.values()]
        return max(now, min([soonest, *(end for end in ends if end > now)]))


class Fence:
    """Whether our own lease is certainly not over yet."""

    __slots__ = ("_confirmed", "lease", "margin")

    def __init__(self, lease: float, now: float) -> None:
        """Begin confirmed at ``now``; the margin is a tenth of the lease, at most a second."""
        self.lease = lease
        self.margin = min(1.0, lease / 10)
        self._confirmed = now

    def confirm(self, sent: float) -> None:
        """Note that a heartbeat sent at ``sent`` (monotonic seconds) had an effect."""
        self._confirmed = max(self._confirmed, sent)

    def holds(self, now: float) -> bool:
        """Whether something new may be handed out."""
        return now - self._confirmed < self.lease - self.margin
