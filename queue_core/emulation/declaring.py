r"""Declaring and deleting on a store, and the queues that delete themselves.

What changes in the table is decided by the pure functions of `edits`; here are the sessions that
keep such queues alive, and the order of steps that keeps them safe.

- A queue with ``expires`` and an exclusive one have a session ``queue:<name>\n<uid>``. It is opened
  before the queue is written, so that no queue is without one, and ended after the queue is
  deleted. For ``expires`` it is beaten by the keepers of those who consume, and by each
  declaration.
- Each subscription has a session ``consumer:<queue>\n<uid>.<number>``: counting consumers is
  counting these.
- Whoever uses such a queue beats first and then gives the queue's entry a new version; whoever
  deletes it reads the version first, then looks at the beats, and then deletes that version. So
  one of the two sees the other, and a queue that was just declared or subscribed to stays.
- The queue is deleted before the session whose end is the reason: if the process dies between,
  the next watcher finds the session and finishes.

All methods do I/O on the handle that the caller gives.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterable

from msgspec.structs import replace

from queue_core.emulation import edits
from queue_core.emulation.apart import Apart
from queue_core.emulation.core import Core
from queue_core.emulation.edits import Draft
from queue_core.emulation.entries import QueueEntry, q, x
from queue_core.emulation.leases import Names
from queue_core.emulation.shredding import Leftovers, is_large
from queue_core.emulation.table import read_entries
from queue_core.errors import (
    AccessRefused,
    ConnectTimeout,
    QueueNotFound,
    TopologyMismatch,
    UsageError,
    counted,
)
from queue_core.policy import Deadline
from queue_core.topology import Binding, Entity, Exchange, Queue
from queue_core.transport import QueueInfo, Store, require

__all__ = ["Declarer"]

logger = logging.getLogger(__name__)


class Declarer:
    """Topology for one session. Thread-safe as far as the handles are not shared."""

    def __init__(self, core: Core, on_deleted: Callable[[str, str], None]) -> None:
        """``on_deleted`` hears name and uid of each queue that this session deleted."""
        self._core = core
        self._on_deleted = on_deleted

    # --- declare ----------------------------------------------------------------------------------

    def declare(self, store: Store, entity: Entity, *, passive: bool, deadline: Deadline) -> str:
        """See `Session.declare`."""
        self._check(entity)
        if isinstance(entity, Binding):
            self._declare_binding(store, entity, passive, deadline)
            return entity.destination
        if isinstance(entity, Exchange):
            self._declare_exchange(store, entity, passive, deadline)
            return entity.name
        if passive:
            self._look_at_queue(store, entity.name, deadline)
            return entity.name
        if not entity.name:
            entity = replace(entity, name=f"qc.gen-{uuid.uuid4().hex}")
        self._declare_queue(store, entity, deadline)
        return entity.name

    def _declare_binding(
        self, store: Store, binding: Binding, passive: bool, deadline: Deadline
    ) -> None:
        names = [x(binding.source), _target(binding)]
        if not passive:
            session = self._core.main
            self._core.table.edit(
                store,
                lambda draft: edits.bind(draft, binding, session=session),
                hint=names,
                deadline=deadline,
            )
        elif not edits.has_binding(Draft(read_entries(store, names)), binding):
            raise QueueNotFound(
                f"{binding.destination_type} {binding.destination!r} is not bound to exchange"
                f" {binding.source!r} with routing key {binding.routing_key!r}"
            )

    def _declare_exchange(
        self, store: Store, exchange: Exchange, passive: bool, deadline: Deadline
    ) -> None:
        name = x(exchange.name)
        if not passive:
            self._core.table.edit(
                store,
                lambda draft: edits.declare_exchange(draft, exchange),
                hint=[name],
                deadline=deadline,
            )
        elif read_entries(store, [name])[name].exchange is None:
            raise QueueNotFound(f"exchange {exchange.name!r} does not exist")

    def _check(self, entity: Entity) -> None:
        """Raise Unsupported for what a store cannot do."""
        features, transport = self._core.features, self._core.transport
        if isinstance(entity, Binding):
            return
        if entity.arguments:
            require(features, "arguments", transport, repr(entity.name))
        if isinstance(entity, Queue):
            if entity.max_priority is not None:
                require(features, "priority", transport, repr(entity.name))
            for related in (entity.exchange, entity.dead_letter_exchange):
                if isinstance(related, Exchange):
                    self._check(related)

    def _look_at_queue(self, store: Store, name: str, deadline: Deadline) -> None:
        """Find the queue, and prolong its life."""
        entry = self.fresh(store, name)
        edits.check_owner(name, entry, self._core.main)
        if entry.expires is not None and not entry.exclusive:
            self._prolong(store, name, entry)
            self._touch(store, name, entry, deadline)

    def fresh(self, store: Store, name: str) -> QueueEntry:
        """Return a queue's entry as it is now. Raises QueueNotFound."""
        entry = self._core.table.refresh(store, [q(name)])[q(name)].queue
        if entry is None:
            raise QueueNotFound(f"queue {name!r} does not exist; declare it first")
        return entry

    def _declare_queue(self, store: Store, queue: Queue, deadline: Deadline) -> None:
        """Create the queue or see that it is the same, with the session that keeps it alive."""
        core = self._core
        name = queue.name
        seconds = core.options.lease if queue.exclusive else queue.expires
        while True:
            uid = uuid.uuid4().hex
            known = read_entries(store, [q(name)])[q(name)]
            found = known.queue
            if known.deleted and not Leftovers(core, name, known.deleted).delete(store, deadline):
                raise ConnectTimeout(
                    f"queue {name!r} was deleted a moment ago, and its messages are not gone yet;"
                    " declare it again later, or with a longer timeout"
                )
            if found is not None:
                self._prolong(store, name, found)
            elif seconds is not None:
                self._keep_alive(store, queue, uid, seconds)
            try:
                entry = self._edit_queue(store, queue, uid, deadline)
            except (UsageError, QueueNotFound, AccessRefused) as refusal:
                if found is None:
                    self._let_go(store, name, uid)
                if isinstance(refusal, AccessRefused) and self._bury_orphan(store, name, deadline):
                    continue
                raise
            made = entry.uid == uid
            if found is None and not made:
                self._let_go(store, name, uid)
            if made and found is not None and seconds is not None:
                store.open_session(Names.queue(name, uid), seconds)  # it was deleted meanwhile
            if not made and (found is None or found.uid != entry.uid):
                continue  # it was created meanwhile: prolong that one
            if entry.owner == core.main:
                core.exclusive.add((name, entry.uid))
            return

    def _keep_alive(self, store: Store, queue: Queue, uid: str, seconds: float) -> None:
        """Open the session of a queue that is not written yet.

        If the writing is interrupted, or its answer lost, the queue may exist: so the session stays
        for others to find, and an exclusive queue is ours to delete when we close.
        """
        store.open_session(Names.queue(queue.name, uid), seconds)
        if queue.exclusive:
            self._core.exclusive.add((queue.name, uid))

    def _let_go(self, store: Store, name: str, uid: str) -> None:
        """The queue was certainly not written: its session ends, if it has one."""
        self._core.exclusive.discard((name, uid))
        store.end_session(Names.queue(name, uid))

    def _edit_queue(self, store: Store, queue: Queue, uid: str, deadline: Deadline) -> QueueEntry:
        hint = [q(queue.name), *(x(binding.source) for binding in queue.all_bindings())]
        if queue.dead_letter_target:
            hint.append(x(queue.dead_letter_target))
        session = self._core.main
        return self._core.table.edit(
            store,
            lambda draft: edits.declare_queue(draft, queue, uid=uid, session=session),
            hint=hint,
            deadline=deadline,
        )

    def _prolong(self, store: Store, name: str, entry: QueueEntry) -> None:
        """Beat for a queue that expires."""
        if entry.expires is not None and not entry.exclusive:
            lease = Names.queue(name, entry.uid)
            if store.heartbeat([lease]):
                store.open_session(lease, entry.expires)

    def _touch(self, store: Store, name: str, entry: QueueEntry, deadline: Deadline) -> None:
        """Give the entry a new version, after the beat. Raises QueueNotFound: it came too late."""

        def touch(draft: Draft) -> bool:
            now = draft.queue(name)
            if now is None or now.uid != entry.uid:
                return False
            draft.touch(q(name))
            return True

        if not self._core.table.edit(store, touch, hint=[q(name)], deadline=deadline):
            raise QueueNotFound(f"queue {name!r} was deleted while it was looked for")

    def _bury_orphan(self, store: Store, name: str, deadline: Deadline) -> bool:
        """Delete an exclusive queue whose owner does not exist any more; whether it did."""
        entry = read_entries(store, [q(name)])[q(name)].queue
        if entry is None or not entry.owner:
            return True
        if entry.owner in store.sessions():
            return False
        self.remove(store, name, entry.uid, deadline)
        return True

    # --- delete -----------------------------------------------------------------------------------

    def delete(
        self, store: Store, entity: Entity, *, if_unused: bool, if_empty: bool, deadline: Deadline
    ) -> bool:
        """See `Session.delete`."""
        core = self._core
        if isinstance(entity, Binding):
            return core.table.edit(
                store,
                lambda draft: edits.unbind(draft, entity, session=core.main),
                hint=[x(entity.source), _target(entity)],
                deadline=deadline,
            )
        if isinstance(entity, Exchange):
            name = entity.name

            def delete(draft: Draft) -> bool:
                found = draft.exchange(name)
                if if_unused and found is not None and found.bindings:
                    raise TopologyMismatch(
                        f"exchange {name!r} is in use: it has "
                        f"{counted(len(found.bindings), 'binding')}"
                    )
                return edits.delete_exchange(draft, name)

            return core.table.edit(store, delete, hint=[x(name)], deadline=deadline)
        return self._delete_queue(store, entity.name, if_unused, if_empty, deadline)

    def _delete_queue(
        self, store: Store, name: str, if_unused: bool, if_empty: bool, deadline: Deadline
    ) -> bool:
        entry = read_entries(store, [q(name)])[q(name)].queue
        if entry is None:
            return False
        edits.check_owner(name, entry, self._core.main)
        if if_unused and (consumers := Names.consumers(store.sessions(), name)):
            found = counted(len(consumers), "consumer")
            raise TopologyMismatch(f"queue {name!r} is in use: it has {found}")
        if if_empty:
            counts = store.inspect(name)
            if waiting := counts.ready + counts.delayed:
                found = counted(waiting, "message waits", "messages wait")
                raise TopologyMismatch(f"queue {name!r} is not empty: {found}")
        return self.remove(store, name, entry.uid, deadline)

    def remove(
        self,
        store: Store,
        name: str,
        uid: str,
        deadline: Deadline,
        *,
        version: int | None = None,
    ) -> bool:
        """Delete the queue ``name`` if it is the one with ``uid``, then end its session.

        With ``version`` only if its entry has still that version. Returns whether it is gone now.
        """
        leftovers = Leftovers(self._core, name, uid) if is_large(store, name) else None

        def delete(draft: Draft) -> bool:
            entry = draft.queue(name)
            if entry is None or entry.uid != uid:
                return True
            if version is not None and draft.version(q(name)) != version:
                return False
            return edits.delete_queue(draft, name, large=leftovers is not None)

        if leftovers is not None:
            leftovers.begin(store)
        gone = self._core.table.edit(store, delete, hint=[q(name)], deadline=deadline)
        if gone:
            store.end_session(Names.queue(name, uid))
            self._core.exclusive.discard((name, uid))
            self._on_deleted(name, uid)
        if leftovers is not None:
            leftovers.delete(store, deadline)
        return gone

    # --- consumers --------------------------------------------------------------------------------

    def enter(self, store: Store, queue: str, number: int, deadline: Deadline) -> _Membership:
        """Open the session of a subscription; return its leases and the queue's uid.

        Raises:
            QueueNotFound, AccessRefused: see `Session.subscribe`.
        """
        core = self._core
        entry = self.fresh(store, queue)
        edits.check_owner(queue, entry, core.main)
        lease = Names.consumer(queue, core.uid, number)
        store.open_session(lease, core.options.lease)
        leases = [lease]
        if entry.expires is not None and not entry.exclusive:
            self._prolong(store, queue, entry)
            leases.append(Names.queue(queue, entry.uid))
        if entry.expires is not None or entry.auto_delete:
            try:
                self._touch(store, queue, entry, deadline)
            except QueueNotFound:
                store.end_session(lease)
                raise
        return _Membership(leases, entry.uid, entry.expires)

    def leave(self, store: Store, queue: str, leases: Iterable[str], deadline: Deadline) -> None:
        """End the session of a subscription; an auto-delete queue goes with its last consumer."""
        own, *others = leases
        if others:
            store.heartbeat(others)  # the time without a consumer begins now
        self.drop_unused(store, [queue], [own], deadline)
        store.end_session(own)
        self.drop_unused(store, [queue], (), deadline)

    def drop_unused(
        self,
        store: Store,
        queues: Collection[str],
        leaving: Collection[str],
        deadline: Deadline,
    ) -> None:
        """Delete those auto-delete queues from which nobody but ``leaving`` consumes.

        Called before and after a consumer's end: before, so that a crash in between leaves a
        session to be found; after, so that of two that leave together the last one sees it.
        What is wrong with one queue alone is raised when all others have had their turn.
        """
        known = self._core.table.readable(store, [q(name) for name in queues])
        entries = {name: known[q(name)].queue for name in queues if q(name) in known}
        found = {name: entry.uid for name, entry in entries.items() if entry and entry.auto_delete}
        sessions = store.sessions() if found else {}
        each = Apart()
        for name, uid in found.items():
            if set(Names.consumers(sessions, name)) <= set(leaving):
                with each:
                    self.remove(store, name, uid, deadline, version=known[q(name)].version)
        each.tell()

    # --- counting ---------------------------------------------------------------------------------

    def inspect(self, store: Store, queue: str) -> QueueInfo:
        """See `Session.inspect`."""
        self.fresh(store, queue)
        counts = store.inspect(queue)
        consumers = len(Names.consumers(store.sessions(), queue))
        return QueueInfo(queue, counts.ready, counts.delayed, counts.claimed, consumers)


class _Membership:
    """The sessions of a subscription, its own one first, and the uid of its queue."""

    __slots__ = ("expires", "leases", "uid")

    def __init__(self, leases: list[str], uid: str, expires: float | None) -> None:
        self.leases = leases
        self.uid = uid
        self.expires = expires


def _target(binding: Binding) -> str:
    prefix = q if binding.destination_type == "queue" else x
    return prefix(binding.destination)
