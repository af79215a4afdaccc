"""Coroutine tasks for the pool tests."""

import asyncio
import threading
import time
from pathlib import Path

from queue_core.worker import App
from queue_core.worker.limits import SoftTimeLimitExceeded

app = App("pool coroutines")


@app.task(name="add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="wait_for")
async def wait_for(path: str) -> str:
    """Say that it runs, and run until the file is there."""
    Path(f"{path}.{id(asyncio.current_task())}.runs").touch()
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return threading.current_thread().name


@app.task(name="who")
async def who() -> str:
    await asyncio.sleep(0.01)
    return who.request.id


@app.task(name="patient")
async def patient() -> str:
    try:
        await asyncio.sleep(30.0)
    except SoftTimeLimitExceeded as error:
        return f"stopped after {error.seconds:g} s"
    return "slept"


@app.task(name="sleep")
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.task(name="tidy")
async def tidy(path: str) -> None:
    Path(f"{path}.x.runs").touch()
    try:
        await asyncio.sleep(30.0)
    finally:
        Path(f"{path}.tidied").touch()


@app.task(name="leave")
async def leave() -> None:
    raise SystemExit(3)


@app.task(name="impolite")
async def impolite() -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@app.task(name="busy")
def busy(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
