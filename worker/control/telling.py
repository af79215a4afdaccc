"""The commands with which a worker is told to do something.

Names, arguments and the shape of the answers are celery's, so that ``celery control`` works on our
workers. What cannot be done is an error, whose text is the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from queue_core import Exchange, UsageError
from queue_core.mailbox import Panel
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.control.signal_names import signal_number
from queue_core.worker.rates import is_shared, per_second
from queue_core.worker.revoked import KEPT

logger = logging.getLogger(__name__)

panel = Panel()

Said = dict[str, str]


@panel.control_command(variadic="task_id", journal=KEPT)
def revoke(
    consumer: TaskConsumer,
    task_id: list[str] | str,
    terminate: bool = False,
    signal: str | int | None = None,
) -> Said:
    """Do not start these tasks; with TERMINATE end those that run, by SIGNAL."""
    return _revoke(consumer, task_id, signal_number(signal) if terminate else 0)


@panel.control_command(variadic="task_id", journal=KEPT)
def terminate(consumer: TaskConsumer, signal: str | int, task_id: list[str] | str) -> Said:
    """End these tasks by SIGNAL, and do not start them."""
    return _revoke(consumer, task_id, signal_number(signal))


def _revoke(consumer: TaskConsumer, task_id: list[str] | str, number: int) -> Said:
    ids = [task_id] if isinstance(task_id, str) else task_id
    if "" in ids:
        raise UsageError("the id of a task is empty; it is what its AsyncResult has as id")
    worker = consumer.worker
    worker.revoked.add(ids)  # before we look: what comes later finds it there
    ended = [
        request.id
        for request in worker.in_flight.find(ids)
        if request.terminate(worker.pool, number)
    ]
    words = f"tasks {', '.join(ids)} flagged as revoked"
    return {"ok": f"{words}; ended here: {', '.join(ended)}" if ended else words}


@panel.control_command
def hello(
    consumer: TaskConsumer, from_node: str, revoked: list[str] | dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Exchange revoked ids and the logical time, as celery's workers do when they start."""
    if from_node == consumer.worker.options.name:
        return None
    known = consumer.worker.revoked
    if news := [task_id for task_id in revoked or () if task_id not in known]:
        known.add(news)
    return {"revoked": list(known), "clock": consumer.worker.clock.value}


@panel.control_command
def rate_limit(consumer: TaskConsumer, task_name: str, rate_limit: str | float | None) -> Said:
    """Start a task at most so often: 10/s, 100/m, 2/h; 0 is without a limit.

    With the word cluster, as in "10/s cluster": on all workers together.
    """
    rate = per_second(rate_limit)
    consumer.change_task(task_name, rate_limit=rate, rate_shared=is_shared(rate_limit))
    if rate is None:
        return {"ok": "rate limit disabled successfully"}
    return {"ok": "new rate limit set successfully"}


@panel.control_command
def time_limit(
    consumer: TaskConsumer, task_name: str, soft: float | None = None, hard: float | None = None
) -> Said:
    """Limit the seconds that a task may run, from its next start on."""
    consumer.change_task(task_name, soft_limit=soft or None, hard_limit=hard or None)
    return {"ok": "time limits set successfully"}


@panel.control_command
def pool_grow(consumer: TaskConsumer, n: int = 1) -> Said:
    """Run N more tasks at once."""
    size = consumer.worker.pool.grow(n)
    consumer.intake.renew()  # more may be here now
    return {"ok": f"pool will grow to {size}"}


@panel.control_command
def pool_shrink(consumer: TaskConsumer, n: int = 1) -> Said:
    """Run N fewer tasks at once."""
    size = consumer.worker.pool.shrink(n)
    consumer.intake.renew()
    return {"ok": f"pool will shrink to {size}"}


@panel.control_command
def pool_restart(
    consumer: TaskConsumer,
    modules: list[str] | None = None,
    reload: bool = False,
    reloader: Any = None,
) -> Said:
    """Replace every child process, each when its task has ended; the app is imported anew."""
    if modules:
        raise UsageError("new children import the app as it is then; modules cannot be named")
    consumer.worker.pool.restart()
    return {"ok": "reload started"}


@panel.control_command
def add_consumer(
    consumer: TaskConsumer,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Said:
    """Take from QUEUE too; it is declared if need be."""
    if not queue:
        raise UsageError("a queue needs a name")
    if queue in consumer.queues:
        return {"ok": f"already consuming from {queue}"}
    if options := {name: value for name, value in options.items() if value is not None}:
        raise UsageError(f"add_consumer takes no {', '.join(options)}; define the queue in the app")
    found = consumer.definition(queue)
    if exchange is not None:
        target = Exchange(exchange, exchange_type or "direct")  # type: ignore[arg-type] # checked
        found = msgspec.structs.replace(found, exchange=target, routing_key=routing_key or queue)
    consumer.intake.add(found)
    return {"ok": f"add consumer {queue}"}


@panel.control_command
def cancel_consumer(consumer: TaskConsumer, queue: str) -> Said:
    """Take nothing more from QUEUE; what is here from it is finished."""
    if queue not in consumer.queues:
        raise UsageError(_not_ours(queue, consumer.queues))
    consumer.intake.cancel(queue)
    return {"ok": f"no longer consuming from {queue}"}


@panel.control_command
def pause(consumer: TaskConsumer, queue: str = "") -> Said:
    """Take nothing from QUEUE, or from any queue, until resume."""
    _check(consumer, queue)
    consumer.intake.pause(queue)
    return {"ok": f"paused {queue}".rstrip()}


@panel.control_command
def resume(consumer: TaskConsumer, queue: str = "") -> Said:
    """Take from QUEUE, or from all queues, again."""
    _check(consumer, queue)
    consumer.intake.resume(queue)
    return {"ok": f"resumed {queue}".rstrip()}


def _check(consumer: TaskConsumer, queue: str) -> None:
    if queue and queue not in consumer.queues:
        raise UsageError(_not_ours(queue, consumer.queues))


def _not_ours(queue: str, queues: Iterable[str]) -> str:
    return f"this worker does not take from {queue!r}; it takes from {', '.join(queues)}"


@panel.control_command
def log_level(consumer: TaskConsumer, level: str) -> Said:
    """Log from LEVEL on: debug, info, warning, error. For the worker's own process."""
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise UsageError(f"there is no level {level!r}; debug, info, warning and error are some")
    logging.getLogger().setLevel(level.upper())
    return {"ok": f"logging from {level.lower()} on"}


@panel.control_command(kind="admin")
def shutdown(consumer: TaskConsumer) -> Said:
    """Stop as on SIGTERM: tasks that run may finish."""
    logger.info("told to shut down by remote control")
    consumer.worker.stop()
    return {"ok": "shutting down"}
