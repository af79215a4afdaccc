"""The step that is made of steps itself: whatever needs the broker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from queue_core.worker.banner import lines
from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.builtin import is_builtin
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.runner import Worker

logger = logging.getLogger(__name__)


class Consumer(StartStopStep):
    """Takes messages."""

    last = True

    def create(self, parent: Worker) -> None:
        """Make it; the broker's URL is checked, and nothing is connected."""
        parent.consumer = TaskConsumer(parent)
        parent.consumer.blueprint.create(parent.consumer)

    def start(self, parent: Worker) -> None:
        """Start its steps; waits for a broker that is away, until told to stop."""
        parent.consumer.start()
        if not parent.stopping:
            for line in lines(parent):
                logger.info("%s", line)
            if all(is_builtin(task.name) for task in parent.info.tasks):
                logger.warning(
                    "the app has no tasks, so every message is given up; name the modules that "
                    "have them: App(include=[...])"
                )

    def close(self, parent: Worker) -> None:
        """Take nothing more."""
        parent.consumer.blueprint.close(parent.consumer)

    def stop(self, parent: Worker) -> None:
        """Stop its steps."""
        parent.consumer.blueprint.stop(parent.consumer)

    def shutdown(self, parent: Worker) -> None:
        """Settle, and leave the broker."""
        parent.consumer.blueprint.shutdown(parent.consumer)
        if parent.ready.is_set():
            ended = parent.consumer.ended()
            said = ", ".join(f"{count} {name}" for name, count in sorted(ended.items()))
            how = "clean" if parent.clean else "by force"
            logger.info("stopped %s: %s", how, said or "nothing done")

    def info(self, parent: Worker) -> Mapping[str, Any]:
        """What its steps say."""
        told: dict[str, Any] = parent.consumer.blueprint.info(parent.consumer)
        return {**told, "restarts": parent.consumer.restarts}
