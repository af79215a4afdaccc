"""The last step: the thread that takes messages."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.consumer.consumer import SETTLING, TaskConsumer
from queue_core.worker.guarding import guarded

logger = logging.getLogger(__name__)

RECEIVE: Final = 2.0
"""Seconds of one wait for messages, as long as a broker lets one last; a stop ends it."""
BURST: Final = 1.0
"""The same of a worker that ends when there are none."""
STALLED: Final = 10.0
"""Seconds after a wait in which a broker must say that there was nothing, or is given up."""
JOIN: Final = 2.0
LOOK: Final = 0.05
"""Seconds between two looks at how many messages to hold, or whether there is room."""


class Loop(StartStopStep):
    """Takes one message after the other; never waits for a task."""

    requires = ("Tasks",)
    last = True

    def __init__(self, parent: TaskConsumer) -> None:
        """Nothing runs."""
        super().__init__(parent)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parent: TaskConsumer) -> None:
        """Start the thread; the one before has ended, or is about to."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=guarded(self._run, parent.worker.fail),
            args=(parent, self._stopping),
            name="consumer",
            daemon=True,
        )
        self._thread.start()

    def close(self, parent: TaskConsumer) -> None:
        """Take nothing more."""
        self._stopping.set()

    def stop(self, parent: TaskConsumer) -> None:
        """Take nothing more.

        The thread is waited for in `shutdown`: the pool shall give back what it did not start
        before another task ends, and it may run its tasks in this very thread.
        """
        self._stopping.set()

    def shutdown(self, parent: TaskConsumer) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join(SETTLING if parent.worker.clean else JOIN)

    def _run(self, parent: TaskConsumer, stopping: threading.Event) -> None:
        intake, burst = parent.intake, parent.worker.options.burst
        look = time.monotonic() + LOOK
        patience = BURST if burst else RECEIVE
        try:
            while not stopping.is_set():
                if (now := time.monotonic()) >= look:
                    look = now + LOOK
                    intake.tend()
                taker = intake.taker
                idle = burst and intake.idle  # before the wait: what ends later may bring more
                if taker is None:
                    stopping.wait(LOOK)
                elif (message := taker.receive(timeout=patience, patience=STALLED)) is not None:
                    parent.take(message, taker)
                elif idle and intake.exhausted():
                    parent.worker.stop()
                    return
        except Exception as error:
            if stopping.is_set():
                logger.debug("the consumer has ended: %s", error)
            else:
                parent.trouble(error)
