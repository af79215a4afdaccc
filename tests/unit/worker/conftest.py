"""What tests of pools and workers need: reports, pools that end with the test, a worker at work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.runner import Worker, WorkerOptions
from tests.unit.worker.reports import Reports


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def jobs_here(monkeypatch):
    """Apps of this folder, such as ``pool_jobs:app``, can be imported by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def ending():
    """Take a pool, which ends with the test, and return it."""
    pools = []

    def take(pool):
        pools.append(pool)
        return pool

    yield take
    for pool in pools:
        pool.abort()
        pool.stop(0.0)


@pytest.fixture
def run(app):
    """Run a worker of ``app`` in a thread until the test ends; give its exit code when stopped."""
    started = []

    def start(*, size=1, **options):
        options = {"control": False, **options}
        worker = Worker(ThreadPool(size, app), WorkerOptions(broker=app.broker, **options))
        codes = []
        thread = threading.Thread(target=lambda: codes.append(worker.run()), daemon=True)
        thread.start()
        started.append((worker, thread))
        assert worker.ready.wait(30)
        return worker, thread, codes

    yield start
    for worker, thread in started:
        worker.stop()
        thread.join(20.0)
        assert not thread.is_alive()
