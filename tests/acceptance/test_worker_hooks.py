"""Plain functions hear what a worker does, in its own process and in those that run tasks."""

from __future__ import annotations

import pytest

from queue_core.testing.eventually import eventually
from queue_core.worker import App
from tests.acceptance.conftest import WorkerProcess


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_plain_functions_hear_what_a_worker_does(pool, tmp_path):
    url, notes = f"sqlite:///{tmp_path}/broker.db", tmp_path / "notes"
    sender = App("sender", broker=url)
    worker = WorkerProcess(
        tmp_path / "worker.log",
        ["-A", "hooked:app", "-P", pool, "-c", "1", "-n", "hooked"],
        {"QUEUE_CORE_URL": url, "HOOKED": str(notes)},
    )
    try:
        worker.ready()
        assert sender.send_task("hooked.add", (1, 2)).get(30) == 3
        sender.control.revoke("never", reply=True, timeout=10.0)
        sender.send_task("hooked.add", (1, 2), task_id="never")
        eventually(lambda: "revoked never" in notes.read_text())
        worker.signal(15)
        assert worker.end() == 0
    finally:
        worker.kill()
        sender.close()
    lines = [line.partition(" ") for line in notes.read_text().splitlines()]
    mine = [what for pid, _, what in lines if pid == str(worker.process.pid)]
    others = [what for pid, _, what in lines if pid != str(worker.process.pid)]
    around = [what for what in mine if what not in ("begins", "ends")]
    assert around[0] == "ready hooked" and around[1].startswith("received hooked.add ")
    assert around[2:] == ["revoked never", "shutdown True"]
    assert "logged, and nothing else" in worker.log  # the other one that heard of it
    assert (others if pool == "prefork" else [w for w in mine if w not in around]) == [
        "begins",
        "ends",
    ]
