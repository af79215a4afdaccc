"""What a worker says of itself when it is ready."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import Any

from queue_core import Connection, Queue, __version__
from queue_core.worker.builtin import is_builtin
from queue_core.worker.runner import Worker
from queue_core.worker.sending import RPC

SHOWN = 8
"""Tasks that are listed by name."""


def lines(worker: Worker) -> Iterator[str]:
    """Yield the lines."""
    options, info, consumer = worker.options, worker.info, worker.consumer
    yield (
        f"queue-core {__version__}  worker {options.name}  pid {os.getpid()}  "
        f"python {platform.python_version()}"
    )
    connection = consumer.connection
    server = connection.durability.broker
    yield f"broker   {'  '.join([connection.url, *([server] if server else [])])}, lease " + (
        f"{worker.lease:g} s"
    )
    yield f"results  {_results(worker)}"
    pool = worker.pool.info()
    parts = [f"{pool.kind}, {pool.size} at once", f"prefetch {worker.prefetch or 'by the pool'}"]
    parts += [f"{name} {value:g}" for name, value in pool.limits.items()]
    yield f"pool     {', '.join(parts)}"
    yield f"queues   {'  '.join(_queue(queue) for queue in consumer.queues.values())}"
    names = [task.name for task in info.tasks if not is_builtin(task.name)]
    more = f"  and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    yield f"tasks    {'  '.join(names[:SHOWN]) or 'none'}{more}"
    yield f"control  {_control(worker)}"


def _control(worker: Worker) -> str:
    if not worker.controlled:
        return "off"
    keys = ", ".join(key.name for key in worker.options.keys)
    whom = f"who has the key {keys}" if keys else "everybody who can publish to the broker"
    return f"node {worker.options.name}, obeys {whom}"


def _results(worker: Worker) -> str:
    backend, connection = worker.info.settings.result_backend, worker.consumer.connection
    if backend is None:
        store = connection.features.key_value
        return f"in the broker, {_kept(worker)}" if store else "by rpc"
    if backend in RPC:
        return "by rpc"
    return f"in {Connection(backend).url}, {_kept(worker)}"  # without its password


def _queue(queue: Queue) -> str:
    told: list[Any] = [queue.name]
    if queue.max_priority:
        told.append(f"(priority 0-{queue.max_priority})")
    return "".join(told)


def _kept(worker: Worker) -> str:
    seconds = worker.info.settings.result_expires
    return "for ever" if seconds is None else f"for {seconds:g} s"
