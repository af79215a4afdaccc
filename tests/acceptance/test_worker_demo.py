"""The demo, on a part of its work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from queue_core.testing.eventually import eventually
from queue_core.worker.demo.fleet import CLEAN_ENDS, Fleet

SECRET = "hunter2canary"


def demo(folder: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start it; whatever it writes is below ``folder``."""
    return subprocess.Popen(
        [sys.executable, "-m", "queue_core.worker.cli", "demo", "--broker", url, *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers_of(url: str) -> list[int]:
    """The process ids of demo workers on this broker, found by their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and b"queue_core.worker.demo" in (entry / "cmdline").read_bytes()
            ):
                if f"QUEUE_CORE_URL={url}".encode() in (entry / "environ").read_bytes().split(
                    b"\0"
                ):
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_demo_kills_a_worker_loses_nothing_and_leaves_nothing(broker_url, tmp_path):
    with demo(tmp_path, broker_url, "--limit", "80") as process:
        text, _ = process.communicate(timeout=100)
    assert process.returncode == 0, text
    assert re.search(r"chaos    SIGKILL worker \d+ at \d+ of 80", text), text
    again = re.search(r"redelivered (\d+) messages?", text)
    assert again is not None
    assert re.search(
        r"OK       80 sent, 80 done, 0 lost, 0 different from the direct count", text
    ), text
    assert len(text.split("next:")[1].strip().splitlines()) == 3
    assert workers_of(broker_url) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(broker_url, tmp_path, number):
    with demo(tmp_path, broker_url) as process:
        timer = threading.Timer(100.0, process.kill)
        timer.start()
        lines = ""
        while "sent " not in lines:
            line = process.stdout.readline()
            assert line, lines
            lines += line
        eventually(lambda: workers_of(broker_url))
        process.send_signal(number)
        rest = process.stdout.read()
        timer.cancel()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], rest
    assert "Traceback" not in rest
    assert workers_of(broker_url) == []


def test_workers_die_with_a_killed_demo(tmp_path, is_alive):
    url = f"sqlite:///{tmp_path}/broker.db"
    with demo(tmp_path, url) as process:
        while "sent " not in process.stdout.readline():
            assert process.poll() is None
        started = eventually(lambda: workers_of(url))
        process.kill()
        process.wait()
        process.stdout.read()
    eventually(lambda: not any(is_alive(pid) for pid in started))


def test_the_demo_refuses_memory_and_says_what_to_do(tmp_path):
    with demo(tmp_path, "memory://") as process:
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert text.startswith("error:") and "try:" in text


@pytest.mark.parametrize("scheme", ["amqp", "redis", "postgresql", "mysql"])
def test_a_broker_that_is_away_ends_the_demo_with_one_cause(tmp_path, scheme):
    with demo(tmp_path, f"{scheme}://me:{SECRET}@127.0.0.1:1/0") as process:
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 69, text
    assert "Traceback" not in text and text.startswith("error:")
    assert "127.0.0.1" in text and SECRET not in text
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("scheme", "driver", "extra"),
    [("postgresql", "psycopg", "postgres"), ("mysql", "pymysql", "mysql")],
)
def test_a_missing_driver_is_one_line_with_the_pip_command(tmp_path, scheme, driver, extra):
    missing = f"raise ModuleNotFoundError('No module named {driver}', name='{driver}')\n"
    (tmp_path / f"{driver}.py").write_text(missing)
    with demo(tmp_path, f"{scheme}://me:{SECRET}@127.0.0.1:1/0") as process:
        text, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, 70), text
    assert "Traceback" not in text and SECRET not in text
    [line] = [line for line in text.splitlines() if "pip install" in line]
    assert f"queue-core[{extra}]" in line


def test_a_worker_that_is_told_to_stop_ends_cleanly_however_far_its_start_is(tmp_path):
    fleet = Fleet(f"sqlite:///{tmp_path}/broker.db", "jobs", tmp_path, children=1, lease=3.0)
    started = [fleet.start() for _ in range(3)]
    for process, moment in zip(started, (0.0, 0.15, 0.2), strict=True):  # one after another
        time.sleep(moment)
        process.send_signal(signal.SIGTERM)
    assert {process.wait(50) for process in started} <= CLEAN_ENDS
    assert set(fleet.stop()) <= CLEAN_ENDS
