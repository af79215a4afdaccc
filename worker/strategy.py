"""Strategies: what makes a request of a message, chosen by the message's task.

A task may name its own (``@app.task(strategy="module:name")``): a function that is called once with
what is known of the task and the consumer, and returns the strategy. That is called with each
message and those of its headers that are in `queue_core.worker.delivery.READ`, and returns a
request, which is given to the pool, or None if it dealt with the message. It runs on the thread
that takes messages, and must not block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from queue_core import ConfigError, Message
from queue_core.worker.blueprint import load
from queue_core.worker.delivery import ActiveRequest
from queue_core.worker.hooks import Hook
from queue_core.worker.in_flight import InFlight
from queue_core.worker.outcome import TaskInfo
from queue_core.worker.rates import Bucket

Strategy = Callable[[Message, Mapping[str, Any]], ActiveRequest | None]

DEFAULT: Final = "queue_core.worker.strategy:default"


class ConsumerView(Protocol):
    """What strategies see of the consumer."""

    @property
    def in_flight(self) -> InFlight:
        """The requests that are here."""

    def bucket(self, task: TaskInfo) -> Bucket | None:
        """What counts the runs of a task; None if it has no rate limit."""

    def hold(self, request: ActiveRequest, seconds: float) -> None:
        """Keep a message away from the pool for so many seconds."""


def default(
    task: TaskInfo, consumer: ConsumerView, kind: type[ActiveRequest] | None = None
) -> Strategy:
    """Return the strategy of tasks without one of their own.

    It skips what is revoked or expired, and holds back what is not due or would be too much.
    ``kind`` is the class of the requests; that of the task if None.

    Raises:
        ConfigError: the task names no such class.
    """
    kind = kind or _request_class(task)
    in_flight, bucket = consumer.in_flight, consumer.bucket(task)
    revoked = in_flight.revoked

    def strategy(message: Message, headers: Mapping[str, Any]) -> ActiveRequest | None:
        request = kind(message, headers, task, in_flight)
        if revoked and request.id in revoked:
            request.skip("revoked")
            return None
        if headers.get("expires") is not None and request.expired():
            request.skip("expired")
            return None
        wait = request.wait() if headers.get("eta") is not None else 0.0
        if wait <= 0 and bucket is not None:
            wait = bucket.take()
        if wait <= 0:
            return request
        if headers.get("expires") is not None and request.expired(wait):
            request.skip("expired")
        else:
            consumer.hold(request, wait)
        return None

    return strategy


def _request_class(task: TaskInfo) -> type[ActiveRequest]:
    if task.request_class is None:
        return ActiveRequest
    found = load(task.request_class)
    if not isinstance(found, type) or not issubclass(found, ActiveRequest):
        raise ConfigError(
            f"the request_class of task {task.name}, {task.request_class}, is no subclass of "
            f"{ActiveRequest.__module__}.{ActiveRequest.__qualname__}"
        )
    return found


def announcing(strategy: Strategy, hook: Hook[[ActiveRequest]]) -> Strategy:
    """Return a strategy that tells of each request which ``strategy`` makes."""

    def announced(message: Message, headers: Mapping[str, Any]) -> ActiveRequest | None:
        request = strategy(message, headers)
        if request is not None:
            hook.tell(request)
        return request

    return announced
