"""``queue-core purge``: it counts first, asks, and deletes what waits."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from queue_core import Connection, Queue

COMMAND = [sys.executable, "-m", "queue_core.worker.cli", "purge"]
CLEAN = {name: value for name, value in os.environ.items() if "QUEUE_CORE" not in name}

Count = Callable[[], int]


def purge(queue: str, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, queue, *words],
        env={**CLEAN, "QUEUE_CORE_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )


def answer(words: str, queue: str, url: str) -> tuple[int, str]:
    """Purge at a terminal, type something, and return the exit code and what stdout got."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, queue],
        env={**CLEAN, "QUEUE_CORE_URL": url},
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.write(master, words.encode())
    stdout = process.communicate(timeout=45)[0]
    os.close(slave)
    os.close(master)
    return process.returncode, stdout


@pytest.fixture
def full(broker_url: str) -> Iterator[tuple[str, Count]]:
    """The name of a queue with three messages, and what counts them."""
    with Connection(broker_url) as connection:
        queue = connection.declare(Queue(f"qc-test-purge-{uuid.uuid4().hex[:8]}"))
        for number in range(3):
            connection.producer().publish(number, queue.name)
        yield queue.name, lambda: connection.inspect(queue).ready
        connection.delete(queue)


def test_it_counts_first_and_deletes_only_when_told(
    full: tuple[str, Count], broker_url: str
) -> None:
    queue, count = full
    done = purge(queue, broker_url, "--dry-run")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{queue}: 3 messages wait\n", "")
    done = purge(queue, broker_url)
    assert (done.returncode, done.stdout) == (2, f"{queue}: 3 messages wait\n")
    assert "there is no terminal to ask at" in done.stderr
    assert answer("n\n", queue, broker_url) == (1, f"{queue}: 3 messages wait\n")
    assert count() == 3

    code, stdout = answer("y\n", queue, broker_url)
    assert (code, stdout.splitlines()[-1]) == (0, f"{queue}: 3 messages deleted")
    assert count() == 0
    done = purge(queue, broker_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{queue}: 0 messages wait\n", "")


def test_for_programs_there_is_yes_and_one_object(full: tuple[str, Count], broker_url: str) -> None:
    queue, count = full
    with Connection(broker_url) as connection:
        place = {"schema": 1, "broker": connection.url, "queue": queue}
    done = purge(queue, broker_url, "--json", "--dry-run")
    assert json.loads(done.stdout) == {**place, "waiting": 3, "deleted": 0}
    done = purge(queue, broker_url, "--json", "--yes")
    assert json.loads(done.stdout) == {**place, "waiting": 3, "deleted": 3}
    assert (done.returncode, done.stderr, count()) == (0, "", 0)


def test_a_queue_that_does_not_exist_is_nothing_found(broker_url: str) -> None:
    with Connection(broker_url) as connection:
        connection.connect()
        done = purge("qc-test-nowhere", broker_url, "--yes")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == f"error:   there is no queue 'qc-test-nowhere' at {connection.url}\n"


def test_a_queue_without_a_name_is_wrong_usage() -> None:
    done = purge("", "sqlite:///nowhere.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a name is not empty" in done.stderr


def test_messages_that_somebody_works_on_stay_and_delayed_ones_count(
    full: tuple[str, Count], broker_url: str
) -> None:
    queue, _ = full
    with Connection(broker_url) as connection:
        connection.producer().publish(3, queue, delay=600)
        with connection.consumer(queue, prefetch=1) as consumer:
            message = consumer.receive(timeout=30)
            assert message is not None
            done = purge(queue, broker_url, "--yes")
            waiting = 2 if broker_url.startswith("amqp") else 3
            shown = [f"{queue}: {waiting} messages {words}" for words in ("wait", "deleted")]
            assert done.stdout.splitlines() == shown
            message.ack()
            consumer.flush()
