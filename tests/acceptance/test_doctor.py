"""``queue-core doctor`` on each broker: it tries it, says what it keeps, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

from queue_core import Connection, Queue

SECRET = "hunter2canary"


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if "QUEUE_CORE" not in name}
    return subprocess.run(
        [sys.executable, "-m", "queue_core.worker.cli", "doctor", *arguments],
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_tries_a_broker_and_says_what_it_is_worth(broker_url: str) -> None:
    done = doctor(broker_url)  # as a word; the others use -b
    assert (done.returncode, done.stderr) == (0, "")
    said = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"broker", "server", "connect", "message", "survives", "can", "cannot"} <= said


def test_as_json_it_says_the_same_as_the_connection_does(broker_url: str) -> None:
    done = doctor("-b", broker_url, "--json")
    report = json.loads(done.stdout)
    with Connection(broker_url) as connection:
        connection.connect()
        assert report["broker"] == connection.url
        assert report["server"] == connection.durability.broker
        assert report["survives"] == str(connection.durability.survives)
        assert [item["remedy"] for item in report["warnings"]] == [
            warning.remedy for warning in connection.durability.warnings
        ]
        assert report["notes"] == list(connection.durability.notes)
        assert {name for name, can in report["features"].items() if can} == {
            name for name, (can, _) in connection.features.describe().items() if can
        }
    assert report["schema"] == 1


def test_it_looks_at_one_queue(broker_url: str) -> None:
    with Connection(broker_url) as connection:
        queue = connection.declare(Queue(f"qc-test-doctor-{uuid.uuid4().hex}"))
        try:
            report = json.loads(doctor("-b", broker_url, "-Q", queue.name, "--json").stdout)
            assert report["survives"] == str(connection.durability_of(queue).survives)
        finally:
            connection.delete(queue)
    done = doctor("-b", broker_url, "-Q", queue.name)
    assert done.returncode == 4
    assert queue.name in done.stderr


def test_without_a_broker_it_says_how_to_name_one() -> None:
    done = doctor()
    assert done.returncode == 2
    assert "QUEUE_CORE_URL" in done.stderr


def test_what_is_wrong_has_its_exit_code_and_no_password(amqp_url: str) -> None:
    host = amqp_url.partition("@")[2]
    for url, code in (
        ("redis://127.0.0.1:1", 69),
        (f"amqp://guest:{SECRET}@{host}", 77),
        (f"redis://u:{SECRET}@127.0.0.1:1/x", 78),
        ("rediss://127.0.0.1:1?cafile=/nowhere", 78),
    ):
        done = doctor("-b", url)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("error:")
        assert done.stdout == ""
        assert SECRET not in done.stderr
