"""The Session contract as tests: what every transport must pass.

Subclass `SessionSuite` with one fixture, and pytest does the rest::

    class TestMyBroker(SessionSuite):
        transport = "mybroker"

        @pytest.fixture
        def open_session(self, tmp_path):
            url = parse(f"mybroker:///{tmp_path}/queues")
            return lambda **options: transport.open(url, SessionOptions(**options))

``open_session(**options)`` returns a new session to one and the same broker, each time it is
called; ``options`` are fields of `SessionOptions`. The broker need not be empty, since every name
is fresh. What else a transport may say of itself is in `SessionTests`. One that keeps its own
sockets also says how it dies (``crash``); one with transactions says how they begin (``begin``).

Each test is one clause of the contract in `queue_core.transport`. Nothing is skipped: where the
transport's `Features` declare "cannot", the test checks that asking for it raises `Unsupported`.
"""

from __future__ import annotations

from queue_core.testing.session_content import ContentTests
from queue_core.testing.session_deadletters import DeadLetterTests
from queue_core.testing.session_delivery import DeliveryTests
from queue_core.testing.session_durability import DurabilityTests
from queue_core.testing.session_features import FeatureTests
from queue_core.testing.session_lifetime import LifetimeTests
from queue_core.testing.session_routing import RoutingTests
from queue_core.testing.session_threads import ThreadTests
from queue_core.testing.session_topology import TopologyTests

__all__ = ["SessionSuite"]


class SessionSuite(
    FeatureTests,
    RoutingTests,
    TopologyTests,
    DeliveryTests,
    ContentTests,
    DeadLetterTests,
    LifetimeTests,
    ThreadTests,
    DurabilityTests,
):
    """Subclass this with an ``open_session`` fixture; see the module."""
