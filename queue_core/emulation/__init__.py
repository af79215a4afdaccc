"""AMQP semantics, written once for every store.

A `queue_core.transport.Store` keeps rows with leases; `StoreTransport` (``transport``) gives it
exchanges, bindings, prefetch, ttl, dead letters and the rest.

- ``session``: the contract `Session`; ``core``: what its parts share; ``handles``: to the store
- ``declaring``, ``shredding``; ``publishing``; ``consuming``, ``ledger``: what a session does
- ``keeper``, ``reclaiming``: what happens by itself, and for others that died; ``apart``: what is
  wrong with one of many stops none of the others
- ``table``: what is known of the topology; ``entries``, ``stored``: how it and messages are kept
- ``routing``, ``edits``, ``window``, ``leases``, ``deadletter``: the rules, pure
"""

from queue_core.emulation.session import EmulatedSession
from queue_core.emulation.transport import StoreTransport

__all__ = ["EmulatedSession", "StoreTransport"]
