"""A signal ends a worker in whichever thread and at whichever moment it arrives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queue_core.testing.eventually import eventually
from queue_core.worker.signals import Signals

# The kernel may give a signal to any thread, and Python runs its handler in the main thread only,
# once that does something: here it waits in select, and is not interrupted.
PROGRAM = """
import signal, threading
from queue_core.worker import App
from queue_core.worker.pools.threads import SoloPool
from queue_core.worker.runner import Worker, WorkerOptions

app = App("a", broker="memory://")
worker = Worker(SoloPool(app), WorkerOptions(broker=app.broker))

def strike():
    worker.ready.wait(20)
    threading.Event().wait(0.3)  # until the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=strike, daemon=True).start()
raise SystemExit(worker.run())
"""


def test_a_signal_that_another_thread_gets_stops_the_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


COMMAND = [sys.executable, "-P", "-m", "queue_core.worker.cli", "worker", "-A", "pool_jobs:app"]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Callable]]]:
    """Start a worker; give it and what waits for a text in its log."""
    started = []

    def start(*arguments: str):
        log = tmp_path / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*COMMAND, "-b", f"sqlite:///{tmp_path}/b.db", "-c", "1", *arguments],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )
        started.append(process)

        def logged(text: str) -> str:
            eventually(lambda: text in log.read_text() or process.poll() is not None)
            assert text in log.read_text()
            return log.read_text()

        logged("ready in")
        return process, logged

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_quit_writes_the_stacks_of_all_threads_and_the_worker_goes_on(worker):
    process, logged = worker()
    process.send_signal(signal.SIGQUIT)
    logged("Current thread")
    assert "signals.py" in logged("worker/consumer/loop.py")
    process.terminate()
    assert process.wait(60) == 0


def _children(pid: int) -> list[int]:
    found = []
    for item in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            found += [int(child) for child in item.read_text().split()]
    return found


def test_hang_up_replaces_the_children(worker):
    process, logged = worker()

    def children() -> list[int]:
        """Those of the process that forks them, which is replaced, too."""
        templates = _children(process.pid)
        return sorted(pid for template in templates for pid in _children(template))

    before = children()
    assert len(before) == 1
    process.send_signal(signal.SIGHUP)
    logged("the children are replaced")
    eventually(lambda: len(children()) == 1 and children() != before)
    process.terminate()
    assert process.wait(60) == 0


def test_a_worker_can_log_objects_for_programs(worker):
    process, logged = worker("--log-format", "json", "-l", "debug")
    process.terminate()
    assert process.wait(60) == 0
    for line in logged("stopped").splitlines():
        told = json.loads(line)
        assert {"time", "level", "logger", "message", "pid"} <= told.keys()


@pytest.fixture
def signals() -> Iterator[Signals]:
    made = Signals(now=lambda: None, hang_up=lambda: None)
    yield made
    made.close()


def test_what_is_posted_is_done_by_who_waits_also_if_that_paused_meanwhile(signals):
    done = []
    signals.post(lambda: done.append(1))
    assert signals.pause(0.0) is False  # it notices, and has no time for it
    began = time.monotonic()
    assert signals.pause(0.2) is False
    assert time.monotonic() - began > 0.15
    signals.post(signals.stop)
    signals.wait()
    assert done == [1]


def test_the_second_stop_is_passed_on_at_once():
    struck = []
    signals = Signals(now=lambda: struck.append(1), hang_up=lambda: None)
    signals.stop()
    assert signals.stopping and struck == []
    signals.stop()
    assert struck == [1]
    signals.close()
    signals.stop()  # too late, and no error


def test_signals_are_caught_where_there_is_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    signals = Signals(now=lambda: None, hang_up=lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    restore = signals.catch()
    try:
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        restore()
        signals.close()
    assert signal.getsignal(signal.SIGTERM) is before
