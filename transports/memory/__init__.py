"""The memory transport: the reference for stores, and a broker for single-process programs.

``memory://name`` names a broker that lives as long as the process; ``memory://`` is the one with
the name ``default``. All connections of the process to the same name share it. Nothing is durable,
and no other process sees it.
"""

from queue_core.emulation import StoreTransport
from queue_core.transport import Features
from queue_core.transports.memory.broker import MemoryBroker
from queue_core.transports.memory.store import MemoryBrokers, MemoryStore
from queue_core.url import BrokerURL

__all__ = ["FEATURES", "MemoryBroker", "MemoryBrokers", "MemoryStore", "transport"]

FEATURES = Features(priority=True, delay=True, key_value=True)


def _check(url: BrokerURL) -> None:
    url.check_driver()
    url.check_options(())


transport = StoreTransport("memory", FEATURES, MemoryBrokers().open, _check)
