"""What a worker says of itself when it is ready."""

import logging

import pytest

from queue_core import ConnectionLost
from queue_core.mailbox import SigningKey
from queue_core.worker import App
from queue_core.worker.flags import WorkerOptions
from queue_core.worker.pools.threads import SoloPool
from queue_core.worker.runner import Worker

AWAY = "redis://:s3cret@127.0.0.1:1"
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


def run(backend=AWAY, task=None, **options):
    app = App("banner", broker="memory://banner", backend=backend)
    if task is not None:
        app.task(task)
    options = WorkerOptions(broker="memory://banner", name="w@h", **options)
    try:
        return Worker(SoloPool(app), options).run()
    finally:
        app.close()


def test_a_worker_says_where_its_results_are_and_that_nobody_is_there(caplog):
    caplog.set_level(logging.INFO)
    assert run(burst=True) == 0
    assert "results  in redis://:***@127.0.0.1:1, for 86400 s" in caplog.messages
    assert "no task can end before its result can be kept: Redis at 127.0.0.1:1" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_check_fails_where_results_cannot_be_kept():
    with pytest.raises(ConnectionLost, match="127.0.0.1:1"):
        run(check=True)


def test_a_worker_without_tasks_is_warned_that_it_gives_up_every_message(caplog):
    assert run(backend=None, check=True) == 0
    assert "the app has no tasks, so every message is given up" in caplog.text
    caplog.clear()

    def add(a, b):
        return a + b

    assert run(backend=None, task=add, check=True) == 0
    assert "no tasks" not in caplog.text
