"""An app with steps and commands of its own, for the tests of remote control."""

import logging
from typing import Any

from queue_core.worker import App
from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.control import control_command, inspect_command

logger = logging.getLogger(__name__)

app = App("extended")


class Mood(StartStopStep):
    """Keeps a mood."""

    requires = ("Pool",)

    def create(self, parent: Any) -> None:
        parent.mood = ""

    def start(self, parent: Any) -> None:
        logger.info("the mood step starts")

    def stop(self, parent: Any) -> None:
        logger.info("the mood step stops, %s", parent.mood)


app.steps["worker"].add(Mood)


@inspect_command
def queues_here(consumer: Any) -> list[str]:
    """The queues."""
    return list(consumer.queues)


@control_command
def set_mood(consumer: Any, mood: str) -> str:
    """Be MOOD."""
    consumer.worker.mood = mood
    return mood
