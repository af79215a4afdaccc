"""The memory transport: the reference for stores, and a broker for single-process programs.

``memory://name`` names a broker that lives as long as the process; ``memory://`` is the one with
the name ``default``. All connections of the process to the same name share it. Nothing is durable,
and no other process sees it.
"""

from queue_core.transport import Features
from queue_core.transports.memory.broker import MemoryBroker
from queue_core.transports.memory.store import MemoryStore

__all__ = ["FEATURES", "MemoryBroker", "MemoryStore"]

FEATURES = Features(priority=True, delay=True, key_value=True)
