"""The loop of a thread that takes from a broker: when it is away, wait a little, and go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from queue_core import Backoff, Closed, QueueCoreError

logger = logging.getLogger(__name__)


def serve(step: Callable[[], object], stopping: threading.Event, trouble: str) -> None:
    """Call ``step`` until told to stop, or until what it uses was closed.

    An error of the broker's is logged after ``trouble``, and waited out with a growing delay; any
    other is a mistake of ours, and is raised. ``step`` blocks for seconds at most, so that the end
    is noticed.
    """
    backoff, failures = Backoff(), 0
    while not stopping.is_set():
        try:
            step()
            failures = 0
        except Closed:
            return
        except QueueCoreError as error:
            logger.warning("%s: %s", trouble, error)
            stopping.wait(backoff.delay(failures))
            failures += 1
