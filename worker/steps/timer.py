"""The step that runs the worker's timer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.runner import Worker


class Timer(StartStopStep):
    """Calls what must happen later."""

    def start(self, parent: Worker) -> None:
        """Start its thread."""
        parent.timer.start()

    def stop(self, parent: Worker) -> None:
        """Call nothing more."""
        parent.timer.stop()

    def info(self, parent: Worker) -> Mapping[str, Any]:
        """How much waits."""
        return {"waiting": len(parent.timer)}
