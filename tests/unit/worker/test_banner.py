"""What a worker says of itself when it is ready."""

import logging

import pytest

from queue_core.mailbox import SigningKey
from queue_core.worker import App
from queue_core.worker.flags import WorkerOptions
from queue_core.worker.pools.threads import SoloPool
from queue_core.worker.runner import Worker

KEY = SigningKey("ops", "a long secret that only operators have")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "control  node w@h, obeys everybody who can publish to the broker"),
        ({"keys": [KEY]}, "control  node w@h, obeys who has the key ops"),
        ({"control": False}, "control  off"),
    ],
)
def test_whom_a_worker_obeys_is_said_once_however_many_namespaces_it_is_in(caplog, options, words):
    caplog.set_level(logging.INFO)
    app = App("banner", broker="memory://banner", settings={"control_exchange": "elsewhere"})
    options = WorkerOptions(broker="memory://banner", name="w@h", burst=True, **options)
    try:
        assert Worker(SoloPool(app), options).run() == 0
    finally:
        app.close()
    assert [line for line in caplog.messages if "obeys" in line or "control " in line] == [words]
