"""The conformance kit that ships with the package: the contract of a transport as tests.

`StoreSuite` and `SessionSuite` are subclassed with one fixture each, `StoreMachine` with a method;
`FakeClock` moves only when a test says so; `eventually` waits for a condition with a deadline;
`FaultProxy` breaks TCP connections on purpose. It needs the extra ``test`` (pytest, hypothesis).
"""

import pytest

# Failed assertions of the suites explain themselves as those in test files do.
pytest.register_assert_rewrite(
    "queue_core.testing.session_bench",
    "queue_core.testing.session_content",
    "queue_core.testing.session_deadletters",
    "queue_core.testing.session_delivery",
    "queue_core.testing.session_durability",
    "queue_core.testing.session_features",
    "queue_core.testing.session_lifetime",
    "queue_core.testing.session_machine",
    "queue_core.testing.session_routing",
    "queue_core.testing.session_tap",
    "queue_core.testing.session_threads",
    "queue_core.testing.session_topology",
    "queue_core.testing.machine",
    "queue_core.testing.store_bench",
    "queue_core.testing.store_claim",
    "queue_core.testing.store_features",
    "queue_core.testing.store_put",
    "queue_core.testing.store_races",
    "queue_core.testing.store_return",
    "queue_core.testing.store_sessions",
    "queue_core.testing.store_table",
)

from queue_core.testing.clocks import FakeClock  # noqa: E402 - after the line above
from queue_core.testing.eventually import eventually  # noqa: E402
from queue_core.testing.faults import FaultProxy  # noqa: E402
from queue_core.testing.machine import StoreMachine  # noqa: E402
from queue_core.testing.session_machine import SessionMachine  # noqa: E402
from queue_core.testing.session_suite import SessionSuite  # noqa: E402
from queue_core.testing.store_suite import StoreSuite  # noqa: E402

__all__ = [
    "FakeClock",
    "FaultProxy",
    "SessionMachine",
    "SessionSuite",
    "StoreMachine",
    "StoreSuite",
    "eventually",
]
