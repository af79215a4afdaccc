"""The contract of `queue_core.transport.Store` as tests: subclass `StoreSuite` with one fixture.

::

    class TestFolder(StoreSuite):
        features = Features(durable=True, shared=True)
        transport = "folder"

        @pytest.fixture
        def open_store(self, tmp_path):
            return functools.partial(FolderStore, tmp_path)

``open_store`` returns a callable that opens one more handle on a store which is empty when the test
begins and nobody else's. If the store is ``shared`` or ``durable``, other processes call it too, so
it must be picklable: a `functools.partial` of something importable.

Nothing is skipped. Where the store declares that it cannot do something, the tests that need it
check that it says so when asked. `StoreTests` documents what else a store's author may set: the
time that the tests let pass, the clock, the user's transaction.
"""

from __future__ import annotations

from queue_core.testing.store_bench import OpenStore, StoreBench, StoreTests
from queue_core.testing.store_claim import ClaimTests, RepeatTests, WaitTests
from queue_core.testing.store_features import FeatureTests
from queue_core.testing.store_put import LimitTests, PutTests
from queue_core.testing.store_races import LoadTests, RaceTests
from queue_core.testing.store_return import CollectTests, CountTests, ReleaseTests
from queue_core.testing.store_sessions import SessionTests
from queue_core.testing.store_table import KeyTests, TableTests

__all__ = ["OpenStore", "StoreBench", "StoreSuite", "StoreTests"]


class StoreSuite(
    PutTests,
    LimitTests,
    ClaimTests,
    RepeatTests,
    ReleaseTests,
    CollectTests,
    CountTests,
    SessionTests,
    TableTests,
    KeyTests,
    FeatureTests,
    LoadTests,
    RaceTests,
    WaitTests,
):
    """Every clause of the store contract: one test each."""
