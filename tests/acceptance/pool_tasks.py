"""Tasks that hang, crash, hoard and hold the interpreter lock; worker processes import this."""

import asyncio
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from queue_core.worker import App
from queue_core.worker.limits import SoftTimeLimitExceeded

app = App("pool tasks", backend=os.environ.get("JOBS_BACKEND"))
limited = App("limited")


@limited.task(soft_time_limit=0.3)
def slow() -> None:
    time.sleep(1.0)


def note(path: str, word: str) -> None:
    with open(path, "a") as file:
        file.write(f"{word}\n")


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def once(path: str, word: str) -> int:
    note(path, word)
    return os.getpid()


@app.task
def stubborn(path: str, seconds: float) -> None:
    """Block all signals, and hold the interpreter lock in a C function."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    note(path, str(os.getpid()))
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    note(path, "through")


@app.task
def polite() -> str:
    try:
        time.sleep(30.0)
    except SoftTimeLimitExceeded:
        return "in order"
    return "slept"


@app.task
def crash(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "_exit":
        os._exit(0)
    elif how == "sys.exit":
        sys.exit("enough")
    elif how == "interrupt":
        raise KeyboardInterrupt
    raise AssertionError(how)


@app.task
def hoard() -> None:
    """Want more memory than there is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 1024 * 1024, resource.RLIM_INFINITY))
    bytearray(256 * 1024 * 1024)


@app.task
async def both(path: str, word: str) -> str:
    """Wait until two of this kind run at once."""
    note(path, word)
    while len(Path(path).read_text().split()) < 2:
        await asyncio.sleep(0.01)
    return threading.current_thread().name


@app.task
def drivers() -> list[str]:
    """Return which drivers this process has loaded."""
    return [name for name in ("pika", "redis", "sqlalchemy", "psycopg") if name in sys.modules]


@app.task
def wait_for(path: str) -> bool:
    """Say that it runs, and run until the file is there."""
    Path(f"{path}.runs").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return True
