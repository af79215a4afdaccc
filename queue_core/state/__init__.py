"""Stores that can load and save one whole state, or have it in memory.

Whoever has a lock and a place for some bytes can be a transport: `StateStore` has all methods of
the contract, and needs to be told how the `State` is kept. The memory transport stands on it, and
so does ``examples/folder_transport.py``. Each step takes the whole state, so keep it small, or in
memory; a store for many messages, such as ``transports/sql``, implements the contract itself.
"""

from queue_core.state.queues import Message
from queue_core.state.state import Snapshot, State
from queue_core.state.store import StateStore

__all__ = ["Message", "Snapshot", "State", "StateStore"]
