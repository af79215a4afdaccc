"""AMQP semantics, written once for every store.

A `queue_core.transport.Store` keeps rows with leases; `StoreTransport` gives it exchanges,
bindings, prefetch, ttl, dead letters and the rest. The rules are pure modules (`routing`, `edits`,
`window`, `leases`, `deadletter`); `session` and the parts that it puts together do the I/O.
"""

from queue_core.emulation.session import EmulatedSession
from queue_core.emulation.transport import StoreTransport

__all__ = ["EmulatedSession", "StoreTransport"]
