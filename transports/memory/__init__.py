"""The memory transport: the reference for stores, and a broker for single-process programs.

``memory://name`` names a broker that lives as long as the process; ``memory://`` is the one with
the name ``default``. All connections of the process to the same name share it. Nothing is durable,
and no other process sees it.
"""

from queue_core.emulation import StoreTransport
from queue_core.transport import Features, SessionOptions
from queue_core.transports.memory.broker import MemoryBroker
from queue_core.transports.memory.store import MemoryBrokers, MemoryStore
from queue_core.url import BrokerURL

__all__ = [
    "FEATURES",
    "MemoryBroker",
    "MemoryBrokers",
    "MemoryStore",
    "check",
    "open_store",
    "transport",
]

FEATURES = Features(priority=True, delay=True, key_value=True)

# What the brokers of this process live in: it is the broker, as a file is SQLite's.
_brokers = MemoryBrokers()


def check(url: BrokerURL) -> None:
    """Raise ConfigError for an option: a memory broker has none."""
    url.check_options(())


def open_store(url: BrokerURL, options: SessionOptions) -> MemoryStore:
    """Return a new handle on the process's broker of that name."""
    return MemoryStore(_brokers.get(url.host or "default", options.clock))


transport = StoreTransport("memory", FEATURES, open_store, check)
"""What the entry point ``memory`` names."""
