"""The event loop of this process: one, on a thread of its own, started when it is first needed.

Tasks that are coroutine functions run on it, whatever kind of pool their worker has, so that what
they share - a client's connections, a lock - belongs to one loop for as long as the process lives.

asyncio can only cancel a task; a `Run` can have any exception raised where it waits, which is how a
time limit reaches a coroutine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Generator
from types import coroutine
from typing import Any, Generic, TypeVar, cast

from queue_core import PerProcess

T = TypeVar("T")


def loop_here() -> asyncio.AbstractEventLoop:
    """Return the loop of this process, starting its thread at the first call. Thread-safe."""
    return _loop.get()


def _start() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="event loop", daemon=True).start()
    return loop


_loop = PerProcess(_start)  # a forked process has no thread that would run its parent's


def run(awaitable: Awaitable[T]) -> T:
    """Run ``awaitable`` on this process's loop and wait for it in this thread.

    It sees the context variables of this thread. What is raised in this thread while it waits (by a
    signal) is raised in the awaitable instead, where that waits; what comes of it is returned or
    raised here. Not to be called on the loop's own thread.
    """
    loop = loop_here()
    current = Run(awaitable)
    future = asyncio.run_coroutine_threadsafe(current.result(), loop)
    while True:
        try:
            value, error = future.result()
            break
        except BaseException as raised:
            loop.call_soon_threadsafe(current.interrupt, raised)
    if error is not None:
        raise error
    return cast(T, value)


class Run(Generic[T]):
    """One awaitable on its way, in one `asyncio.Task`."""

    def __init__(self, awaitable: Awaitable[T]) -> None:
        """Not begun; await `result`."""
        self._inner = _coroutine(awaitable)
        self._error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` where the awaitable waits. To be called on the loop's thread."""
        self._error = error
        if self._task is not None:
            self._task.cancel()

    async def result(self) -> tuple[T | None, BaseException | None]:
        """Await it; return its value, or what it raised.

        Nothing is raised here, since SystemExit would end the loop too.
        """
        self._task = asyncio.current_task()
        try:
            return cast(T, await self._steps()), None
        except BaseException as error:
            return None, error
        finally:
            self._task = None

    @coroutine
    def _steps(self) -> Generator[Any, None, Any]:
        error = self._interrupted_by(None)
        while True:
            try:
                waiting = self._inner.send(None) if error is None else self._inner.throw(error)
            except StopIteration as end:
                return end.value
            try:
                yield waiting
                error = self._interrupted_by(None)
            except asyncio.CancelledError as raised:
                error = self._interrupted_by(raised)

    def _interrupted_by(self, raised: BaseException | None) -> BaseException | None:
        """What is to be raised inside: the reason of an `interrupt` instead of its cancellation."""
        error, self._error = self._error, None
        if error is None:
            return raised
        if raised is not None and self._task is not None:
            self._task.uncancel()
        return error


def _coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    if isinstance(awaitable, Coroutine):
        return awaitable

    async def waiting() -> T:
        return await awaitable

    return waiting()
