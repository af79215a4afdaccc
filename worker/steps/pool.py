"""The step that ends the pool. It has started before all steps: only the pool knows the app's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.runner import Worker


class Pool(StartStopStep):
    """Runs tasks."""

    requires = ("Timer",)

    def stop(self, parent: Worker) -> None:
        """Let what runs finish, for as long as the drain time."""
        parent.clean = parent.pool.stop(parent.drain)

    def terminate(self, parent: Worker) -> None:
        """Let nothing finish."""
        parent.clean = parent.pool.stop(0.0)

    def info(self, parent: Worker) -> Mapping[str, Any]:
        """Its kind and size, and its children."""
        info = parent.pool.info()
        return {
            "kind": info.kind,
            "max-concurrency": info.size,
            "processes": list(info.pids),
            "running": len(info.running),
            **info.limits,
        }
