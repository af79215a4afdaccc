"""The step that takes part in remote control."""

from __future__ import annotations

from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.consumer.consumer import TaskConsumer


class Control(StartStopStep):
    """Answers commands."""

    requires = ("Connection",)

    def include_if(self, parent: TaskConsumer) -> bool:
        """Unless it is switched off."""
        return False
