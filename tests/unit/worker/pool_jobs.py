"""Tasks for the pool tests; children import this module."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

from queue_core.worker import App
from queue_core.worker.limits import SoftTimeLimitExceeded
from queue_core.worker.request import AsCurrent

app = App("pool jobs")


@app.task(name="add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="pid")
def pid() -> int:
    return os.getpid()


@app.task(name="wait_for")
def wait_for(path: str) -> int:
    """Say that it runs, and run until the file is there."""
    Path(f"{path}.{os.getpid()}-{threading.get_ident()}.runs").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return os.getpid()


@app.task(name="die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="leave")
def leave() -> None:
    raise SystemExit(3)


@app.task(name="sleep")
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(name="stubborn")
def stubborn(path: str, seconds: float) -> None:
    """Say that it runs; then block every signal and hold the interpreter lock."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    Path(f"{path}.{os.getpid()}.runs").touch()
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


@app.task(name="patient")
def patient() -> str:
    try:
        time.sleep(30.0)
    except SoftTimeLimitExceeded as error:
        return f"stopped after {error.seconds:g} s"
    return "slept"


@app.task(name="tidy")
def tidy(path: str) -> None:
    """Say that it runs, and say in the end that it was told to end."""
    Path(f"{path}.{os.getpid()}.runs").touch()
    try:
        time.sleep(30.0)
    finally:
        Path(f"{path}.tidied").touch()


kept = []


@app.task(name="swell")
def swell(megabytes: int) -> int:
    kept.append(bytes(megabytes * 1024 * 1024).replace(b"\0", b"x"))
    return os.getpid()


@app.task(name="odd signal")
def odd_signal() -> None:
    os.kill(os.getpid(), 35)  # one that has no name


@app.task(name="abort")
def abort() -> None:
    os.abort()


@app.task(name="quit")
def quit_() -> None:
    os._exit(0)


@app.task(name="orphan")
def orphan(path: str) -> None:
    """Leave a process behind that holds all descriptors, and die."""
    if os.fork() == 0:
        deadline = time.monotonic() + 20.0
        while not Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="family")
def family() -> int | None:
    """Start a process, end it by SIGTERM, and return its exit code."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=lambda: (begun.set(), time.sleep(30.0)))
    process.start()
    begun.wait(30)
    process.terminate()
    process.join(30)
    return process.exitcode


@app.task(name="twin")
def twin() -> int:
    """Return twice."""
    os.fork()
    return os.getpid()


@app.task(name="chatter", bind=True)
def chatter(self, times: int, ballast: str) -> str:
    """Say how far it has come, from two threads at once."""

    def say(who: str, request) -> None:
        with AsCurrent(request):
            for number in range(times):
                self.update_state(meta={"who": who, "number": number, "ballast": ballast})

    other = threading.Thread(target=say, args=("other", self.request))
    other.start()
    say("main", self.request)
    other.join()
    return "done"


@app.task(name="babble", bind=True)
def babble(self) -> str:
    """Say something all the time, until the time is over."""
    try:
        while True:
            self.update_state(meta="x" * 1000)
    except SoftTimeLimitExceeded:
        return "out of time"
