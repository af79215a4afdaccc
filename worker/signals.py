"""Signals, and other reasons for the main thread to wake up.

Signal handlers run between two instructions of the main thread, which may hold any lock. So they
only count and write a byte to a pipe; the main thread waits on that pipe and does the work.

::

    TERM, INT   stop gently; the second one stops now
    HUP         replace the children; in a terminal, which is gone then: stop gently
    QUIT        write the stacks of all threads to stderr; the worker goes on
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable

from queue_core.worker.wake_pipe import WakePipe


class Signals:
    """What the main thread waits for. `stop` and `post` may be called from any thread.

    Attributes:
        patient: something may run that should be waited for when the first signal comes.
    """

    def __init__(self, *, now: Callable[[], None], hang_up: Callable[[], None]) -> None:
        """Catch nothing yet.

        Args:
            now: called at the second signal to stop, in the handler: takes no lock. Called at the
                first one while it is not ``patient``.
            hang_up: called by `wait` after a HUP.
        """
        self._now = now
        self._hang_up = hang_up
        self._stops = 0
        self.patient = True
        self._terminal = os.isatty(2)
        self._calls: deque[Callable[[], None]] = deque()
        self._pipe = WakePipe()

    @property
    def stopping(self) -> bool:
        """Whether the worker should end."""
        return self._stops > 0

    @property
    def urgent(self) -> bool:
        """Whether it should end without waiting for what runs."""
        return self._stops > (1 if self.patient else 0)

    def stop(self) -> None:
        """Do what a signal to stop does."""
        self._stops += 1
        if self.urgent:
            self._now()
        self._pipe.wake()

    def post(self, call: Callable[[], None]) -> None:
        """Have the main thread call this, unless the worker ends before."""
        self._calls.append(call)
        self._pipe.wake()

    def wait(self) -> None:
        """Do what is posted, until the worker should end."""
        while not self.stopping:
            while self._calls and not self.stopping:
                self._calls.popleft()()
            self.pause(None)

    def pause(self, seconds: float | None) -> bool:
        """Wait for a signal, or something to be posted; return whether the worker should end."""
        if not self.stopping and select.select([self._pipe.readable], [], [], seconds)[0]:
            self._pipe.drain()
        return self.stopping

    def catch(self) -> Callable[[], None]:
        """Catch signals, if this is the main thread; return what restores the handlers before."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        numbers = {
            signal.SIGTERM: lambda _number, _frame: self.stop(),
            signal.SIGINT: lambda _number, _frame: self.stop(),
            signal.SIGHUP: lambda _number, _frame: self._on_hang_up(),
        }
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            del numbers[signal.SIGHUP]  # nohup: whoever started us does not want it heard
        before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
        # The handler runs once the main thread does something. If another thread got the signal, or
        # it came just before the main thread began to wait, only this ends the waiting.
        woken = signal.set_wakeup_fd(self._pipe.writable, warn_on_full_buffer=False)
        # Where there is no stderr to write to, no stacks are written.
        with contextlib.suppress(AttributeError, RuntimeError, io.UnsupportedOperation):
            faulthandler.register(signal.SIGQUIT, file=sys.stderr, all_threads=True)

        def restore() -> None:
            faulthandler.unregister(signal.SIGQUIT)
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _on_hang_up(self) -> None:
        if self._terminal:
            self.stop()
        else:
            self.post(self._hang_up)

    def close(self) -> None:
        """Let go of the pipe."""
        self._pipe.close()
