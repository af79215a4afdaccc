r"""Purging and deleting queues that hold too much for one step.

A store that has no `Shredder` does both at once. Elsewhere a queue that is `large` is deleted so:

1. The session ``rest:<name>\n<uid>`` is opened. Nobody keeps it alive: if this process dies, or
   takes too long, the next watcher finds the session and goes on.
2. The queue's entry says ``deleted``, and nothing is bound to it. From now on it does not exist,
   and nothing is published to it, since a put carries the entry's version.
3. Its messages are shredded, step by step, while the entry has that version. So a queue that is
   declared anew under the same name loses nothing.
4. The entry, what is still claimed, and then the session go.

A consumer that has not heard yet (see the keeper) may be given some of the messages meanwhile.
Whoever declares the queue anew does the rest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from queue_core.emulation.core import Core
from queue_core.emulation.entries import q
from queue_core.emulation.leases import Names
from queue_core.emulation.table import read_entries
from queue_core.errors import ConnectTimeout
from queue_core.policy import Deadline
from queue_core.transport import Change, Shredder, Store

__all__ = ["Leftovers", "is_large", "purge"]

LARGE: Final = 10_000
"""The most messages that are deleted in one step."""


def is_large(store: Store, queue: str) -> bool:
    """Whether the queue's messages must not be deleted in one step."""
    return isinstance(store, Shredder) and _waiting(store, queue) > LARGE


def _waiting(store: Store, queue: str) -> int:
    counts = store.inspect(queue)
    return counts.ready + counts.delayed


def purge(store: Store, queue: str, deadline: Deadline) -> int:
    """Delete the messages that wait in the queue; return how many.

    Raises:
        ConnectTimeout: they were too many for the time; those that are deleted stay deleted.
    """
    deleted = 0
    if isinstance(store, Shredder):
        surplus = _waiting(store, queue) - LARGE
        while deleted < surplus and (some := store.shred(queue, {})):
            deleted += some
            if deadline.expired:
                raise ConnectTimeout(
                    f"{deleted} messages of queue {queue!r} were deleted in time, others are left;"
                    " purge it again, or with a longer timeout"
                )
    return deleted + store.purge(queue)


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a deleted queue has left. A chore: each call is one step, and calls for the next."""

    core: Core
    queue: str
    uid: str

    def begin(self, store: Store) -> None:
        """See to it that somebody deletes it; comes before the deletion of the queue."""
        store.open_session(Names.rest(self.queue, self.uid), self.core.options.lease)

    def __call__(self, store: Store) -> None:
        """Do one step."""
        self.delete(store, Deadline.after(0.0, self.core.clock))

    def delete(self, store: Store, deadline: Deadline) -> bool:
        """Delete it until the deadline; return whether all is gone, or leave it to the keeper.

        Does nothing to a queue that was not deleted.
        """
        name = q(self.queue)
        known = read_entries(store, [name])[name]
        if known.deleted == self.uid:
            while isinstance(store, Shredder) and store.shred(self.queue, {name: known.version}):
                if deadline.expired:
                    self.core.later(self)
                    return False
            self.core.table.forget([name])
            store.write_table([Change(name, known.version, None)], [self.queue])
            self.core.table.forget([name])
        store.end_session(Names.rest(self.queue, self.uid))
        return True
