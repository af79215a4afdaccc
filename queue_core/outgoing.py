"""Sending what an iterable gives, in windows: `Outgoing`.

A window is sent when it is full, and at the latest some milliseconds after its first message came,
also while the iterable keeps its caller waiting for the next one. So a thread of our own sends
the windows of an iterable that may be slow, and the caller goes on to fill the next one meanwhile,
but not more than that; it ends with the call. An iterable that is all there already, a list or a
tuple, needs none.

The rules: windows are sent one after the other, in the order of the input, and the first one that
fails is the last one that was sent. What fails on the thread is raised by the caller's next step.
The iterable itself runs on the caller's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Self

from queue_core.message import Publication
from queue_core.receipt import Receipt

WINDOW_MESSAGES: Final = 4000
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOW_SECONDS: Final = 0.02


class Outgoing:
    """The windows of one call. A context manager; leaving it sends nothing.

    Attributes:
        receipts: of everything that was sent and accepted, in order.
    """

    def __init__(
        self, send: Callable[[Sequence[Publication]], Sequence[Receipt]], *, patient: bool
    ) -> None:
        """Send windows with ``send``; if not ``patient`` also while nobody calls `add`."""
        self.receipts: list[Receipt] = []
        self._send = send
        self._window: list[Publication] = []
        self._size = 0
        self._error: BaseException | None = None
        self._sending = threading.Lock()  # held while a window is taken and sent
        self._changed = threading.Condition()  # guards the window; told when it is taken
        self._watch = None if patient else _Watch(self._send_late)

    def __enter__(self) -> Self:
        """Start."""
        if self._watch is not None:
            self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop; blocks while a window is being sent."""
        if self._watch is not None:
            self._watch.stop()

    def add(self, publication: Publication) -> None:
        """Take one more message; if that fills the window, wait until it is sent or being sent.

        Raises what `flush` raises.
        """
        with self._changed:
            window = self._window
            window.append(publication)
            self._size += len(publication.body)
            full = len(window) >= WINDOW_MESSAGES or self._size >= WINDOW_BYTES
        if self._error is not None or (full and self._watch is None):
            self.flush()
        elif self._watch is not None:
            if len(window) == 1:
                self._watch.open()
            if full:
                self._watch.hurry()
                with self._changed:
                    self._changed.wait_for(lambda: self._window is not window or self._error)

    def flush(self) -> None:
        """Send what has not been sent, and wait for it.

        Raises whatever the sending of this window, or of one that the thread sent, raised.
        """
        with self._sending:
            if self._error is None:
                self._send_window()
            if self._error is not None:
                raise self._error

    def _send_window(self) -> None:
        with self._changed:
            window, self._window, self._size = self._window, [], 0
            if self._watch is not None:
                self._watch.close()
            self._changed.notify()
        if window:
            try:
                self.receipts += self._send(window)
            except BaseException as error:  # or the caller would wait for a thread that has ended
                with self._changed:
                    self._error = error
                    self._changed.notify()

    def _send_late(self) -> bool:
        """Send a window that nobody filled in time; return whether more may follow."""
        with self._sending:
            if self._error is None:
                self._send_window()
            return self._error is None


class _Watch:
    """The thread that sends windows while the iterable and its caller fill the next one."""

    def __init__(self, send_late: Callable[[], bool]) -> None:
        """``send_late`` sends what there is, and says whether to go on."""
        self._opened = threading.Event()  # the window has messages
        self._urgent = threading.Event()  # it is full, or all is over
        self._ended = False
        self._since = 0.0
        self._send_late = send_late
        self._thread = threading.Thread(
            target=self._look_after, name="queue-core publish_many", daemon=True
        )

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def open(self) -> None:
        """The window has its first message."""
        self._since = time.monotonic()
        self._opened.set()

    def hurry(self) -> None:
        """The window is full."""
        self._urgent.set()

    def close(self) -> None:
        """The window is being sent, and the next one is empty."""
        self._opened.clear()
        if not self._ended:
            self._urgent.clear()

    def stop(self) -> None:
        """End; blocks while a window is being sent."""
        self._ended = True
        self._urgent.set()
        self._opened.set()
        self._thread.join()

    def _look_after(self) -> None:
        going = True
        while going and not self._ended:
            self._opened.wait()
            self._urgent.wait(max(0.0, self._since + WINDOW_SECONDS - time.monotonic()))
            going = self._ended or self._send_late()
