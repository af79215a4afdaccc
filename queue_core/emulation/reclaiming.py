"""Putting away what others left behind: connections that died, and what belonged to them.

Who died is for `leases.Watch` to say; a connection that starts under the name of a node ends that
node's earlier ones without waiting. One that had a session before ends its own earlier ones only:
another of the node has started since, is alive, and would end this one in turn.

What belonged to them is put away by the rules of `declaring`: versions are read first, then beats,
and then that version is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from queue_core.emulation.apart import Apart
from queue_core.emulation.core import Core
from queue_core.emulation.declaring import Declarer
from queue_core.emulation.entries import q
from queue_core.emulation.leases import CONSUMER, QUEUE, REST, Names
from queue_core.emulation.routing import Known
from queue_core.emulation.shredding import Leftovers
from queue_core.errors import ConfigError
from queue_core.policy import Deadline
from queue_core.transport import Lease, Store

__all__ = ["Reclaimer"]

logger = logging.getLogger(__name__)

MAX_NODE: Final = 300
_OF_QUEUES: Final = (QUEUE, CONSUMER)


class Reclaimer:
    """Puts away what dead sessions left, for one session that lives. Thread-safe, as `Declarer`."""

    def __init__(self, core: Core, declarer: Declarer) -> None:
        """Do nothing yet."""
        self._core = core
        self._declarer = declarer

    def reclaim(
        self,
        store: Store,
        dead: Mapping[str, int],
        deadline: Deadline,
        breathe: Callable[[Store], None] = lambda store: None,
    ) -> Collection[str]:
        """End sessions that died, with what belongs to them; one that beat again goes on.

        ``dead`` has the beats at which each stood still. All are looked at in one go, the versions
        of their queues first: one look at every session there is does for a whole batch.
        ``breathe`` is called after each. Returns those that cannot be ended, because of what is
        wrong with them alone or with their queue: they are to be tried again much later.
        """
        queues = {name: q(Names.queue_of(name)[0]) for name in dead if name.startswith(_OF_QUEUES)}
        known = self._core.table.readable(store, set(queues.values()))
        sessions = store.sessions()
        over = {
            name: lease
            for name, beats in dead.items()
            if (lease := sessions.get(name)) is not None and lease.beats == beats
        }
        stuck = {name for name in over if name in queues and queues[name] not in known}
        consumers = [name for name in over if name.startswith(CONSUMER)]
        consumed = {Names.queue_of(name)[0] for name in consumers}
        with Apart() as before:
            self._declarer.drop_unused(store, consumed, consumers, deadline)
        for name, lease in over.items():
            if name in stuck:
                continue
            with Apart() as ending:
                self._end(store, name, lease, known, deadline)
            if ending.error is not None:
                logger.error("session %r is over and cannot be ended: %s", name, ending.error)
                stuck.add(name)
            breathe(store)
        with Apart() as after:
            self._declarer.drop_unused(store, consumed, (), deadline)
        if error := after.error or before.error:
            logger.error("a queue that nobody uses any more cannot be deleted: %s", error)
        return stuck

    def _end(
        self,
        store: Store,
        session: str,
        lease: Lease,
        known: Mapping[str, Known],
        deadline: Deadline,
    ) -> None:
        """End one session that died, and the queue that it kept alive."""
        name, uid = Names.queue_of(session)
        if session.startswith(REST):
            self._core.later(Leftovers(self._core, name, uid))
            return
        if session.startswith(QUEUE):
            entry, version = known[q(name)].queue, known[q(name)].version
            if entry is not None and entry.uid == uid:
                if not self._declarer.remove(store, name, uid, deadline, version=version):
                    return
                logger.info("queue %r was deleted: nobody used it for %g s", name, lease.seconds)
        if store.end_session(session, lease.beats):
            logger.info("session %r ended: its owner is gone", session)

    def take_over(self, store: Store, deadline: Deadline) -> None:
        """End the older sessions that ours stands for, as if they had crashed, at once."""
        node = self._core.options.node
        if len(node) > MAX_NODE:
            raise ConfigError(
                f"node name {node[:40]!r}... is too long; {MAX_NODE} characters is the limit"
            )
        sessions = store.sessions()
        older = [name for name in sessions if self._replaces(name)]
        stuck: set[str] = set()
        for _ in range(100):
            if not older:
                return
            for name in older:
                with Apart() as replacing:
                    if store.end_session(name, sessions[name].beats):
                        who = f"node {node!r} has started" if node else "its connection is there"
                        logger.info("session %r ended: %s again", name, who)
                        self._inherit(store, name, sessions, deadline)
                if replacing.error is not None:
                    logger.error("not all of session %r ended: %s", name, replacing.error)
                    stuck.add(name)
            sessions = store.sessions()
            # those that beat meanwhile
            older = [name for name in older if name in sessions and name not in stuck]

    def _replaces(self, session: str) -> bool:
        """Whether our session stands for this earlier one."""
        options = self._core.options
        node, uid = Names.node_of(session)
        if not uid or node != options.node or session == self._core.main:
            return False
        return not options.again or bool(options.origin and uid.startswith(options.origin))

    def _inherit(
        self, store: Store, dead: str, sessions: Mapping[str, Lease], deadline: Deadline
    ) -> None:
        """Put away the exclusive queues and the subscriptions of a dead connection."""
        uid = dead.rpartition(":")[2]
        names = [name for name in store.read_table() if name.startswith("q:")]
        each = Apart()
        for name, known in self._core.table.readable(store, names).items():
            entry = known.queue
            if entry is not None and entry.owner == dead:
                with each:
                    self._declarer.remove(store, name[2:], entry.uid, deadline)
        if (holder := sessions.get(Names.collect(uid))) is not None:
            with each:
                store.end_session(Names.collect(uid), holder.beats)
        consumers = {
            name: lease.beats
            for name, lease in sessions.items()
            if name.startswith(CONSUMER) and Names.queue_of(name)[1].partition(".")[0] == uid
        }
        self.reclaim(store, consumers, deadline)
        each.tell()
