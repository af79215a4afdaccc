"""Workers asked and told by celery's own client, as it is published, on RabbitMQ."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from queue_core import Queue, RemoteError
from queue_core.testing.eventually import eventually

SIDE = Path(__file__).parent / "celery_side"


@pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)
def test_every_command_of_celerys_client_is_obeyed(
    peers, broker_url, app, queue, start_worker, tmp_path
):
    name = f"celery@qc-test-{uuid.uuid4().hex[:8]}"
    worker = start_worker("-n", name, "-c", "1", "--prefetch", "4").ready()
    note = tmp_path / "note"
    held = app.send_task("jobs.hold", (str(note),), queue=queue)
    eventually(note.exists)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [peers / "python", "remote.py", name, held.id, queue],
        cwd=SIDE,
        env={**clean, "BROKER": broker_url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    app.connection().delete(Queue(f"{queue}-c"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    asked = {key: value[name] for key, value in told.items() if isinstance(value, dict)}
    assert asked["ping"] == {"ok": "pong"}
    assert asked["stats"]["pid"] == worker.process.pid
    assert asked["stats"]["pool"]["max-concurrency"] == 1
    assert [item["id"] for item in asked["active"]] == [held.id]
    assert asked["reserved"] == [] and asked["scheduled"] == []
    assert "jobs.hold" in asked["registered"]
    assert [item["name"] for item in asked["active_queues"]] == [queue]
    assert asked["query_task"][held.id][0] == "active"
    assert asked["conf"]["task_default_queue"] == "celery"
    assert asked["report"]["ok"].startswith("queue-core")
    assert isinstance(asked["clock"]["clock"], int)
    assert asked["memsample"].endswith("MB")
    assert asked["revoked"] == [held.id]
    answers = {key: value[0][name]["ok"] for key, value in told.items() if isinstance(value, list)}
    assert answers["rate_limit"] == "new rate limit set successfully"
    assert answers["time_limit"] == "time limits set successfully"
    assert answers["pool_grow"].startswith("pool will grow")
    assert answers["pool_shrink"].startswith("pool will shrink")
    assert answers["pool_restart"] == "reload started"
    assert answers["add_consumer"] == f"add consumer {queue}-c"
    assert answers["cancel_consumer"] == f"no longer consuming from {queue}-c"
    assert "flagged as revoked" in answers["revoke"]
    assert held.id in answers["terminate"]
    with pytest.raises(RemoteError, match="(?i)revoked"):
        held.get(20)
    assert worker.end() == 0
