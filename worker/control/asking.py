"""The commands with which a worker is asked something. They change nothing.

Names, aliases, arguments and the shape of the answers are celery's, so that ``celery inspect``
works on our workers; what only ours know stands beside it.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import msgspec

from queue_core import Connection, Exchange, __version__
from queue_core.mailbox import Panel
from queue_core.worker.builtin import is_builtin
from queue_core.worker.configuration import masked, without_passwords
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.delivery import ActiveRequest
from queue_core.worker.outcome import TaskInfo
from queue_core.worker.pools.base import Running
from queue_core.worker.settings import DEFAULTS, FIELDS

panel = Panel()


def running_requests(consumer: TaskConsumer) -> list[tuple[ActiveRequest, Running]]:
    """Return what runs now."""
    found = (
        (consumer.in_flight.get(item.ticket), item) for item in consumer.worker.pool.info().running
    )
    return [(request, item) for request, item in found if request is not None]


@panel.inspect_command(concurrency=4)
def stats(consumer: TaskConsumer) -> dict[str, Any]:
    """What this worker has done and is made of."""
    worker = consumer.worker
    steps = worker.blueprint.info(worker)
    return {
        "total": dict(consumer.in_flight.totals),
        "pid": os.getpid(),
        "clock": str(worker.clock.value),
        "uptime": round(time.time() - worker.began),
        "pool": steps.get("Pool", {}),
        "broker": {"url": consumer.connection.url},
        "prefetch_count": worker.prefetch or worker.pool.ahead,
        "here": len(consumer.in_flight),
        "rusage": _usage(),
        "steps": steps,
    }


def _usage() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "utime": used.ru_utime,
        "stime": used.ru_stime,
        "maxrss": used.ru_maxrss,
        "minflt": used.ru_minflt,
        "majflt": used.ru_majflt,
        "nvcsw": used.ru_nvcsw,
        "nivcsw": used.ru_nivcsw,
    }


@panel.inspect_command(alias="dump_active", concurrency=4)
def active(consumer: TaskConsumer, safe: bool | None = None) -> list[dict[str, Any]]:
    """The tasks that run now."""
    return [request.info(item) for request, item in running_requests(consumer)]


@panel.inspect_command(alias="dump_reserved", concurrency=4)
def reserved(consumer: TaskConsumer) -> list[dict[str, Any]]:
    """The tasks that are here and do not run yet."""
    running = {request.ticket for request, _ in running_requests(consumer)}
    waiting = consumer.in_flight.all("reserved")
    return [request.info() for request in waiting if request.ticket not in running]


@panel.inspect_command(alias="dump_schedule")
def scheduled(consumer: TaskConsumer) -> list[dict[str, Any]]:
    """The tasks that wait here for their time, since the broker cannot hold them back."""
    return [
        {
            "eta": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(request.due)),
            "priority": info["delivery_info"]["priority"],
            "request": info,
        }
        for request in consumer.in_flight.all("scheduled")
        for info in [request.info()]
    ]


@panel.inspect_command(alias="dump_revoked")
def revoked(consumer: TaskConsumer) -> list[str]:
    """The ids of tasks that will not run here."""
    return list(consumer.worker.revoked)


@panel.inspect_command(alias="dump_tasks", variadic="taskinfoitems")
def registered(
    consumer: TaskConsumer, taskinfoitems: list[str] | None = None, builtins: bool | None = None
) -> list[str]:
    """The tasks that this worker knows, each with what is set of TASKINFOITEMS.

    With BUILTINS also those that every app has.
    """
    wanted = taskinfoitems or ["rate_limit", "soft_limit", "hard_limit"]
    return [
        _described(task, wanted)
        for name, task in sorted(consumer.tasks.items())
        if builtins or not is_builtin(name)
    ]


def _described(task: TaskInfo, wanted: list[str]) -> str:
    known = msgspec.structs.asdict(task)
    told = [f"{item}={known[item]}" for item in wanted if known.get(item) is not None]
    return f"{task.name} [{' '.join(told)}]" if told else task.name


@panel.inspect_command
def active_queues(consumer: TaskConsumer) -> list[dict[str, Any]]:
    """The queues that this worker takes from."""
    return [
        {
            "name": queue.name,
            "exchange": _exchange(queue.exchange),
            "routing_key": queue.routing_key,
            "durable": queue.durable,
            "exclusive": queue.exclusive,
            "auto_delete": queue.auto_delete,
            "queue_arguments": dict(queue.arguments),
            "paused": queue.name in consumer.intake.paused,
        }
        for queue in list(consumer.queues.values())
    ]


def _exchange(exchange: Exchange | str | None) -> dict[str, str]:
    if isinstance(exchange, Exchange):
        return {"name": exchange.name, "type": exchange.type}
    return {"name": exchange or "", "type": "direct"}


@panel.inspect_command(variadic="ids", concurrency=4)
def query_task(consumer: TaskConsumer, ids: list[str] | str) -> dict[str, Any]:
    """What this worker knows of tasks, by their IDS."""
    running = {request.ticket: item for request, item in running_requests(consumer)}
    found = consumer.in_flight.find([ids] if isinstance(ids, str) else ids)
    return {
        request.id: [
            "active" if request.ticket in running else request.state,
            request.info(running.get(request.ticket)),
        ]
        for request in found
    }


@panel.inspect_command
def report(consumer: TaskConsumer) -> dict[str, str]:
    """Versions and settings, for a bug report."""
    durability = consumer.connection.durability
    lines = [
        f"queue-core {__version__}  Python {platform.python_version()}  {platform.platform()}",
        *Connection.explain(consumer.connection.url).splitlines(),
        f"survives: {durability.survives.name.lower()} ({durability.found})",
        *(f"{name}: {value}" for name, value in conf(consumer).items()),
    ]
    return {"ok": "\n".join(lines)}


@panel.inspect_command(alias="dump_conf")
def conf(consumer: TaskConsumer, with_defaults: bool | None = None) -> dict[str, Any]:
    """The settings of app and worker, without passwords."""
    settings = consumer.worker.info.settings
    known = {name: getattr(settings, name) for name in FIELDS}
    told = {
        name: _plain(value)
        for name, value in known.items()
        if with_defaults or value != getattr(DEFAULTS, name)
    }
    worker = consumer.worker
    return {
        **told,
        "app": worker.info.name,
        "broker_url": consumer.connection.url,
        "task_default_queue": settings.task_default_queue,
        "worker_queues": list(consumer.queues),
        "worker_prefetch": worker.prefetch,
        "worker_drain": worker.drain,
        "worker_lease": worker.lease,
    }


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_passwords(value) if isinstance(value, str) else masked(value)


@panel.inspect_command
def memsample(consumer: TaskConsumer) -> str:
    """How much memory the worker's own process takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return f"{pages * resource.getpagesize() / 2**20:.2f}MB"
