"""Sending what an iterable gives, in windows: `Outgoing`.

A window is sent when it is full, and at the latest some milliseconds after its first message came,
also while the iterable keeps its caller waiting for the next one. So a thread of our own looks
after the windows of an iterable that may be slow; it ends with the call. One that is all there
already, a list or a tuple, needs none.

The rules: windows are sent one after the other, in the order of the input, and the first one that
fails is the last one that was sent. What fails on the thread is raised by the caller's next step.
The iterable itself runs on the caller's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
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
        self._error: Exception | None = None
        self._sending = threading.Lock()  # held while a window is taken and sent
        self._changing = threading.Lock()  # held while the window changes
        self._watch = None if patient else _Watch(self._send_late)

    def __enter__(self) -> Self:
        """Start."""
        if self._watch is not None:
            self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; blocks while a window is being sent."""
        if self._watch is not None:
            self._watch.stop()

    def add(self, publication: Publication) -> None:
        """Take one more message; sends the window if that fills it.

        Raises what `flush` raises.
        """
        with self._changing:
            window = self._window
            window.append(publication)
            self._size += len(publication.body)
            full = len(window) >= WINDOW_MESSAGES or self._size >= WINDOW_BYTES
        if full or self._error is not None:
            self.flush()
        elif self._watch is not None and len(window) == 1:
            self._watch.opened.set()

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
        with self._changing:
            window, self._window, self._size = self._window, [], 0
            if self._watch is not None:
                self._watch.opened.clear()
        if window:
            try:
                self.receipts += self._send(window)
            except Exception as error:
                self._error = error

    def _send_late(self) -> bool:
        """Send a window that nobody filled in time; return whether more may follow."""
        with self._sending:
            if self._error is None:
                self._send_window()
            return self._error is None


class _Watch:
    """The thread that looks after windows while the iterable keeps its caller waiting.

    Attributes:
        opened: set while a window has messages.
    """

    def __init__(self, send_late: Callable[[], bool]) -> None:
        """``send_late`` sends what there is, and says whether to go on."""
        self.opened = threading.Event()
        self._ended = threading.Event()
        self._send_late = send_late
        self._thread = threading.Thread(
            target=self._look_after, name="queue-core publish_many", daemon=True
        )

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; blocks while a window is being sent."""
        self._ended.set()
        self.opened.set()
        self._thread.join()

    def _look_after(self) -> None:
        going = True
        while going and not self._ended.is_set():
            self.opened.wait()
            going = self._ended.wait(WINDOW_SECONDS) or self._send_late()
